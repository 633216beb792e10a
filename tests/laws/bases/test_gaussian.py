"""A normal law by its moments: against SciPy, where it is singular, and what it refuses."""

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from statsgd.laws import GaussianLaw, ImproperLawError
from tests.statistical import assert_mean_within, assert_variance_within

MEAN = np.array([0.5, -1.0, 2.0])
# Widths from 0.01 to 100, correlations up to 0.8.
WIDTH = np.array([0.01, 1.0, 100.0])
CORRELATION = np.array([[1, 0.8, -0.3], [0.8, 1, 0.1], [-0.3, 0.1, 1]])
COVARIANCE = WIDTH[:, None] * CORRELATION * WIDTH


def test_density():
    law = GaussianLaw(MEAN, COVARIANCE)
    points = MEAN + WIDTH * np.random.default_rng(0).normal(size=(2, 4, 3))
    reference = multivariate_normal(MEAN, COVARIANCE)
    np.testing.assert_allclose(law.log_density(points), reference.logpdf(points), rtol=1e-10)
    slope = -np.linalg.solve(COVARIANCE, (points - MEAN)[..., None])[..., 0]
    np.testing.assert_allclose(law.score(points), slope, rtol=1e-9)


def test_marginals():
    law = GaussianLaw(MEAN, COVARIANCE)
    points, levels = MEAN + WIDTH * np.linspace(-3, 3, 7)[:, None], np.array([0.001, 0.5, 0.9])
    np.testing.assert_allclose(law.cdf(points), norm.cdf(points, MEAN, WIDTH), rtol=1e-10)
    expected = norm.ppf(levels[:, None], MEAN, WIDTH)
    np.testing.assert_allclose(law.quantile(levels), expected, rtol=1e-10)


def test_moments_and_draws():
    law = GaussianLaw(MEAN, COVARIANCE)
    np.testing.assert_array_equal(law.mean(), MEAN)
    np.testing.assert_array_equal(law.covariance(), COVARIANCE)
    draws = (np.asarray(law.draw(jax.random.key(0), (100, 200)), float) - MEAN) / WIDTH
    draws = draws.reshape(-1, 3)
    assert_mean_within(draws, np.zeros(3))
    # 20 000 draws see a factor of 1.05.
    assert_variance_within(draws, np.ones(3), mean=0, resolve=1.05)
    products = draws[:, :, None] * draws[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(products.mean(axis=0) - CORRELATION) < 4 * error)


def test_a_noiseless_direction_has_marginals_and_draws_but_no_density():
    law = GaussianLaw([1.0, 2.0], np.diag([4.0, 0.0]))
    np.testing.assert_allclose(law.cdf(np.array([[1.0, 1.9], [1.0, 2.0]])), [[0.5, 0], [0.5, 1]])
    np.testing.assert_allclose(law.quantile([0.1, 0.9])[:, 1], 2)
    draws = np.asarray(law.draw(jax.random.key(0), (20_000,)))
    np.testing.assert_array_equal(draws[:, 1], 2)
    assert_variance_within(draws[:, 0], 4.0, mean=1.0, resolve=1.05)
    line = GaussianLaw([0.0, 0.0], [[1.0, 2.0], [2.0, 4.0]])
    for use in (lambda: law.log_density(np.ones(2)), lambda: line.score(np.ones(2))):
        with pytest.raises(ImproperLawError, match="project the noiseless directions out"):
            use()
    with pytest.raises(ImproperLawError, match="must be positive definite for a density"):
        line.model(np.zeros((3, 2)))
    along = np.asarray(line.draw(jax.random.key(0), (100,)))
    np.testing.assert_allclose(along[:, 1], 2 * along[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], "covariance must be symmetric"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "covariance must be positive semi-definite"),
        ([0.0, 0.0], np.ones((2, 3)), r"covariance must have shape \(2, 2\)"),
        ([0.0], np.eye(2), r"mean must have shape \(2,\)"),
        (0.0, np.eye(1), "mean must have 1 axes"),
        ([np.nan, 0.0], np.eye(2), "mean must be finite"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianLaw(mean, covariance)
