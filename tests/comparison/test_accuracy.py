"""Accuracy of a law along one coordinate, against closed forms between normal laws."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

from statsgd import SGD, noise
from statsgd.comparison import Marginal, accuracy
from statsgd.comparison.accuracy import _edges, numerical
from statsgd.estimate import Discrepancy
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


def test_a_planted_difference_of_five_per_cent_is_recovered():
    # 2Φ(s/2) − 1 = 0.05; an estimate wrong by 1.1 would be off by 0.005 in the mean of 4.
    rng = np.random.default_rng(0)
    shift = 2 * norm.ppf(0.525)
    found = [
        accuracy(Marginal.of_points(rng.normal(shift, 1, 20_000)), Marginal.of_normal(0.0, 1.0))
        for _ in range(4)
    ]
    values, errors, upper, resolved = np.array([f.total_variation for f in found], dtype=float).T
    assert resolved.all()
    assert np.all(np.abs(values - 0.05) < 4 * errors)
    # Errors of a share near one half: ½/√n.
    np.testing.assert_allclose(errors, 0.5 / np.sqrt(20_000), rtol=0.4)
    assert abs(values.mean() - 0.05) < 4 * 0.5 / np.sqrt(4 * 20_000)
    assert np.all((upper > values) & (upper < values + 3 * errors))


def test_what_chance_alone_explains_is_bounded():
    # At 20 000 points and 20 cells c = 0.0123, and equal laws are bounded by 0.93c or more.
    rng = np.random.default_rng(1)
    law = Marginal.of_normal(0.0, 1.0)
    found = [
        accuracy(Marginal.of_points(rng.normal(size=20_000)), law).total_variation for _ in range(4)
    ]
    assert not any(distance.resolved for distance in found)
    assert all(str(distance).startswith("below ") for distance in found)
    assert all(0.0114 < distance.upper < 0.025 for distance in found)
    # As many draws in place of the law make chance √2 as large.
    both = [Marginal.of_points(rng.normal(size=20_000)) for _ in range(2)]
    assert 0.0114 * np.sqrt(2) < accuracy(*both).total_variation.upper < 0.035


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.02, 0.04])
def test_bounds_hold(shift):
    # 95 % in 50 repeats, at distances of the size of what chance gives.
    rng = np.random.default_rng(2)
    law, repeats = Marginal.of_normal(0.0, 1.0), 50
    upper = [
        accuracy(Marginal.of_points(rng.normal(shift, 1, 20_000)), law).total_variation.upper
        for _ in range(repeats)
    ]
    held = np.sum(np.array(upper) > 2 * norm.cdf(shift / 2) - 1)
    assert held >= 0.95 * repeats - 4 * np.sqrt(0.05 * 0.95 * repeats)


def test_twenty_cells_see_what_smooth_laws_differ_by():
    law = Marginal.of_normal(0.0, 1.0)
    for other, expected in (
        (Marginal.of_normal(0.3, 1.0), 2 * norm.cdf(0.15) - 1),
        (Marginal.of_normal(0.0, 1.5), normal_distance(1.5)),
    ):
        edges = _edges(law, other, 20)
        seen = 0.5 * np.abs(np.diff(law.cdf(edges)) - np.diff(other.cdf(edges))).sum()
        assert 0.99 * expected < seen < expected * (1 + 1e-9)


def test_a_distance_within_its_numerical_error_is_bounded_by_it():
    assert numerical(0.01, 0.002) == Discrepancy(0.01, 0.002, 0.012, True)
    assert str(numerical(0.001, 0.002)) == "below 0.3 %"
