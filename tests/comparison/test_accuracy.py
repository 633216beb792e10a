"""Accuracy of a law along one coordinate, against closed forms between normal laws."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

from statsgd import SGD, noise
from statsgd.comparison import Marginal, accuracy
from statsgd.laws import (
    DiscreteChainLaw,
    FlooredLossScaledLaw,
    Gibbs,
    IntractableError,
    TwoBasinGibbs,
)
from statsgd.laws.grids.grid import Grid
from statsgd.problems import landscapes


def normal_distance(ratio):
    """Total variation between N(0, 1) and N(0, r): they cross at x² = r log r/(r − 1)."""
    x = np.sqrt(ratio * np.log(ratio) / (ratio - 1))
    return 2 * abs(norm.cdf(x) - norm.cdf(x / np.sqrt(ratio)))


@pytest.mark.parametrize("ratio", [1.01, 1.5, 0.5])
def test_normal_laws_of_different_variance(ratio):
    found = accuracy(Marginal.of_normal(1.0, 4.0), Marginal.of_normal(1.0, 4.0 * ratio), 1.0)
    np.testing.assert_allclose(found.total_variation.value, normal_distance(ratio), rtol=2e-3)
    np.testing.assert_allclose(found.variance.value, ratio - 1, rtol=1e-4)
    np.testing.assert_allclose(found.tail.value, np.sqrt(ratio) - 1, rtol=1e-4)
    assert abs(found.mean.value) < 1e-9
    assert abs(found.basin.value) < 1e-9
    assert found.total_variation.standard_error < 0.01 * found.total_variation.value


def test_shifted_normal_law():
    # Shift by s standard deviations: total variation 2Φ(s/2) − 1, P(x < 0) moves by Φ(−s) − ½.
    found = accuracy(Marginal.of_normal(0.0, 1.0), Marginal.of_normal(0.3, 1.0), 0.0)
    np.testing.assert_allclose(found.total_variation.value, 2 * norm.cdf(0.15) - 1, rtol=1e-3)
    np.testing.assert_allclose(found.mean.value, 0.3, rtol=1e-6)
    np.testing.assert_allclose(found.basin.value, norm.cdf(-0.3) - 0.5, rtol=1e-6)


def test_points_know_their_error():
    rng = np.random.default_rng(3)
    truth = Marginal.of_points(rng.normal(size=20_000))
    wide = accuracy(truth, Marginal.of_normal(0.0, 1.21))
    error = 1.21 * np.sqrt(2 / 20_000)
    assert abs(wide.variance.value - 0.21) < 4 * error
    np.testing.assert_allclose(wide.variance.standard_error, error, rtol=0.25)
    distance, uncertainty = wide.total_variation[:2]
    assert abs(distance - normal_distance(1.21)) < 4 * uncertainty
    # Chance alone: subtracted, so that equal laws are at no distance beyond the error.
    same = accuracy(truth, Marginal.of_normal(0.0, 1.0)).total_variation
    assert same.value < 4 * same.standard_error < 0.03


@pytest.mark.slow
def test_marginals_of_laws():
    problem = landscapes.quadratic([[1.0]])
    sgd = SGD(0.2, noise.Isotropic(1.0))
    chain = Marginal.of_law(DiscreteChainLaw.from_sgd(problem, sgd))
    gibbs = Marginal.of_law(Gibbs.from_sgd(problem, sgd), grid=Grid(-3.0, 3.0, 800))
    found = accuracy(chain, gibbs)
    # The chain's variance is the law's over 1 − ηh/2.
    np.testing.assert_allclose(found.variance.value, -0.1, atol=1e-4)
    np.testing.assert_allclose(found.total_variation.value, normal_distance(0.9), rtol=5e-3)
    law = FlooredLossScaledLaw([[1.0]], 0.5, 1.0)
    drawn = Marginal.of_points(np.asarray(law.draw(jax.random.key(0), (4000,)))[:, 0])
    found = accuracy(drawn, Marginal.of_law(law, grid=Grid(-6.0, 6.0, 2000)))
    assert found.total_variation.value < 4 * found.total_variation.standard_error
    assert abs(found.tail.value) < 4 * found.tail.standard_error


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="points must be at least 2"):
        Marginal.of_points(np.zeros(1))
    with pytest.raises(IntractableError, match="knows no quantiles"):
        Marginal.of_law(TwoBasinGibbs(0.5))


def test_a_few_points_far_off_hide_nothing():
    # Between N(0, 1) and N(1, 1) it is 2Φ(½) − 1; points at 10⁶ must not spoil where cells lie.
    points = np.random.default_rng(0).normal(size=20_000)
    points[:10] = 1e6
    found = accuracy(Marginal.of_points(points), Marginal.of_normal(1.0, 1.0)).total_variation
    assert abs(found.value - 0.38292) < 4 * found.standard_error + 0.005
