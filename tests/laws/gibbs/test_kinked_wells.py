import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad

from statsgd.laws.gibbs.gibbs import Gibbs
from statsgd.laws.gibbs.kinked_wells import KinkedWellsGibbs
from statsgd.problems.landscapes import kinked_wells


@pytest.mark.parametrize("temperature", [0.02, 0.2, 5.0])
def test_flat_probability_does_not_depend_on_temperature(temperature):
    law = KinkedWellsGibbs(temperature, 1.0, 9.0)
    assert_allclose(law.flat_probability(), 0.75, rtol=1e-12)  # √h_s/(√h_s + √h_f)
    assert_allclose(law.loss.split(), 0.5, rtol=1e-12)  # (√h_s − √h_f)/(√h_s + √h_f)


@pytest.mark.parametrize(("temperature", "flat"), [(0.02, 0.197596), (0.1, 0.645339)])
def test_raised_flat_well(temperature, flat):
    law = KinkedWellsGibbs(temperature, 1.0, 9.0, 0.05)
    assert_allclose(law.flat_probability(), flat, atol=6e-7)


@pytest.mark.parametrize("law", [KinkedWellsGibbs(0.6), KinkedWellsGibbs(0.3, 2.0, 1.0, 0.4)])
def test_moments_and_distribution_against_quadrature(law):
    def density(x):
        return np.exp(law.log_density(np.array([x])))

    ends = (-9.0, float(law.loss.split()), 9.0)

    def integral(f):
        return sum(quad(f, a, b, epsabs=1e-12)[0] for a, b in itertools.pairwise(ends))

    assert_allclose(integral(density), 1, rtol=1e-9)
    mean = integral(lambda x: x * density(x))
    assert_allclose(law.mean(), [mean], rtol=1e-8)
    assert_allclose(law.covariance(), [[integral(lambda x: (x - mean) ** 2 * density(x))]])
    assert_allclose(law.cdf(np.array([ends[1]])), [law.flat_probability()], rtol=1e-9)
    assert_allclose(law.cdf(np.array([1.3])), [1 - quad(density, 1.3, 9.0)[0]], rtol=1e-8)


def test_agrees_with_the_tabulated_gibbs_law():
    law = Gibbs(kinked_wells(1.0, 9.0, 0.05), 0.2)
    exact = KinkedWellsGibbs(0.2, 1.0, 9.0, 0.05)
    assert_allclose(law.log_normalizer(), exact.log_normalizer(), atol=1e-4)  # the kink
    assert_allclose(law.mean(), exact.mean(), atol=1e-4)


@pytest.mark.slow
def test_draws_follow_the_law():
    # 40 000 draws: standard error 0.22 % of P(flat), 0.7 % of the variance.
    law = KinkedWellsGibbs(0.3)
    draws = np.asarray(law.draw(jax.random.key(0), (40_000,)))[:, 0]
    flat = np.mean(draws < float(law.loss.split()))
    assert abs(flat - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 40_000)
    squares = (draws - draws.mean()) ** 2
    error = squares.std() / np.sqrt(40_000)
    assert abs(squares.mean() - law.covariance()[0, 0]) < 4 * error


def test_a_missing_well_is_refused():
    with pytest.raises(ValueError, match=r"height must be below 2\*sharp = 2"):
        KinkedWellsGibbs(0.1, 1.0, 1.0, 2.5)
