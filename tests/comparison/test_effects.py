"""Effect sizes beyond moments: known values, intervals that hold, planted errors caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from statsgd import compare
from statsgd.comparison import BasinProbabilities, FlatPreference, MeanRatio, TotalVariation
from statsgd.comparison.effects import Sides, preference_slope
from statsgd.laws import DiscreteChainLaw, Gibbs, HeavyBallGaussian
from statsgd.laws.grids.grid import Grid
from statsgd.problems.landscapes import smooth_wells

SADDLE = 0.6585913
TEMPERATURE = 0.02


def ensemble(points):
    """Endpoints as `simulate` returns them."""
    return xr.DataTree.from_dict(
        {"endpoints": xr.Dataset({"params": (("replica", "parameter"), np.asarray(points))})}
    )


def sharp(params):
    """Basin 0 is the flat well of `smooth_wells`, basin 1 the sharp one."""
    return jnp.where(params[0] < SADDLE, 0, 1)


@pytest.fixture(scope="module")
def wells():
    return Gibbs(smooth_wells(), TEMPERATURE)


@pytest.fixture(scope="module")
def endpoints(wells):
    return ensemble(wells.draw(jax.random.key(1), (20_000,)))


BASINS = BasinProbabilities(sharp, 2)
# Curvatures of the wells: 1 and (1 + a)² with a = 2.
PREFERENCE = FlatPreference(sharp, [0.0, np.log(9.0)])


def test_right_law_agrees_in_every_effect(wells, endpoints):
    effects = [TotalVariation(), BASINS, PREFERENCE, MeanRatio(lambda x: jnp.abs(x - 2))]
    result = compare(endpoints, wells, seed=0, margin=0.1, effects=effects)
    # P(x < saddle) of the smooth wells at τ = 0.02.
    basins = result.effects("basin probability")
    assert abs(basins["measured"][0] - 0.733882) < 4 * np.sqrt(0.25 / 20_000)
    np.testing.assert_allclose(basins["predicted"][0], 0.733882, atol=2e-4)
    assert set(basins["verdict"]) == {"agrees within 10 %"}
    # log(0.733882/0.266118)/log 9, with the delta-method error 1/(√(n p q) log 9).
    slope = result.effects("flat preference against none").iloc[0]
    expected = np.log(0.733882 / 0.266118) / np.log(9)
    error = 1 / np.sqrt(20_000 * 0.733882 * 0.266118) / np.log(9)
    assert abs(slope["measured"] - expected) < 4 * error
    np.testing.assert_allclose(slope["standard_error"], error, rtol=0.02)
    assert slope["verdict"] == "differs by more than 10 %"  # there is a preference
    assert result.effects("flat preference")["verdict"][0] == "agrees within 10 %"
    variation = result.effects("total variation").iloc[0]
    assert variation["low"] == 0
    assert variation["high"] < 0.05
    assert result.effects("balance ratio")["verdict"][0] == "agrees within 10 %"
    # That there is a preference does not speak against a law that says so.
    assert result.verdict == "agrees within 10 %"
    # Four quantities along the coordinate and along the mode, two wells, 1 + 2 + 2 + 1 effects.
    assert "Bonferroni over 16 intervals" in result.settings["multiplicity"]
    assert len(result.table) == 16


def test_planted_preference_and_basin_weights_are_caught(wells, endpoints):
    # A law that moves 5 % of the mass into the sharp well: the flat one has 0.683882 of it.
    draws = np.asarray(wells.draw(jax.random.key(2), (200_000,)))
    flat, steep = draws[draws[:, 0] < SADDLE], draws[draws[:, 0] >= SADDLE]
    shifted = np.concatenate([flat[:54_710], steep[:25_290]])
    shifted = np.random.default_rng(0).permutation(shifted)
    claim = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"params": (("chain", "draw", "i"), shifted[None])})}
    )
    result = compare(
        endpoints, claim, seed=0, margin=0.02, effects=[BASINS, PREFERENCE, TotalVariation()]
    )
    assert set(result.effects("basin probability")["verdict"]) == {"differs by more than 2 %"}
    assert result.effects("flat preference")["verdict"][0] == "differs by more than 2 %"
    # TV between them is 0.05 up to cells that straddle the saddle.
    variation = result.effects("total variation").iloc[0]
    assert variation["low"] < 0.05 < variation["high"]
    assert variation["measured"] > 0.045


def test_total_variation_catches_a_temperature_wrong_by_ten_per_cent():
    rng = np.random.default_rng(0)
    points = np.sqrt(1.1) * rng.normal(size=(400_000, 1))
    law = Gibbs.quadratic([[1.0]], 1.0)
    row = compare(ensemble(points), law, seed=0, margin=0.015, effects=[TotalVariation()])
    row = row.effects("total variation").iloc[0]
    # ½∫|N(0,1) − N(0,1.1)| = 2(Φ(x) − Φ(x/√1.1)) at the crossing x² = 1.1 log(1.1)/0.1: 0.02306.
    assert row["low"] < 0.02306 < row["high"]
    assert row["verdict"] == "differs by more than 1.5 %"
    right = compare(ensemble(points / np.sqrt(1.1)), law, seed=0, margin=0.015,
                    effects=[TotalVariation()])  # fmt: skip
    assert right.effects("total variation")["verdict"][0] == "agrees within 1.5 %"


def test_total_variation_interval_holds():
    # Truth N(0, 1.2) against N(0, 1), cells of the law's twentiles: 95 % intervals in 200 repeats.
    law = Gibbs.quadratic([[1.0]], 1.0)
    rng = np.random.default_rng(1)
    edges = law.quantile(np.arange(1, 20) / 20)[:, 0]
    truth = np.diff(Gibbs.quadratic([[1.0]], 1.2).cdf(edges[:, None])[:, 0], prepend=0, append=1)
    distance = 0.5 * np.abs(truth - 0.05).sum()
    reference = np.quantile(rng.normal(size=200_000), np.linspace(0.0005, 0.9995, 2001))
    hits = 0
    for _ in range(200):
        x = np.sqrt(1.2) * rng.normal(size=(500, 1))
        row = TotalVariation().rows(Sides(x[:, None], reference[:, None, None], law), 0.025)
        hits += row["low"][0] <= distance <= row["high"][0]
    assert hits >= 190 - 4 * np.sqrt(200 * 0.05 * 0.95)


def test_slope_solves_the_likelihood():
    curvature, volumes = np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 1.0])
    shares = volumes * np.exp(-0.7 * curvature)
    slope, variance = preference_slope(shares / shares.sum(), curvature, volumes)
    np.testing.assert_allclose(slope, 0.7, rtol=1e-9)
    p = shares / shares.sum()
    np.testing.assert_allclose(variance, p @ (curvature - p @ curvature) ** 2, rtol=1e-9)
    # One log-odds per unit: half as steep in units twice as long.
    np.testing.assert_allclose(preference_slope(p, 2 * curvature, volumes)[0], 0.35, rtol=1e-9)


def test_empty_basin_gives_a_finite_slope_with_a_wide_interval():
    points = np.zeros((50, 1, 1))
    rows = PREFERENCE.rows(Sides(points, np.linspace(0, 1, 100)[:, None, None], None), 0.025)
    # Half an endpoint in the sharp basin: log(50.5/0.5)/log 9.
    np.testing.assert_allclose(rows["measured"], np.log(101) / np.log(9))
    assert rows["standard_error"][1] > 0.3


def test_masses_of_a_grid_law_are_exact():
    law = DiscreteChainLaw(lambda x: x - x**3, [[2.0]], 0.1, Grid(-2.6, 2.6, 200))
    points = np.linspace(-1, 1, 400)[:, None]
    rows = compare(ensemble(points), law, seed=0,
                   effects=[BasinProbabilities(lambda x: jnp.where(x[0] < 0, 0, 1), 2)],
                   ).effects("basin probability")  # fmt: skip
    np.testing.assert_allclose(rows["predicted"], 0.5, atol=1e-9)


def test_balance_ratio_sees_a_missing_momentum_factor():
    # Momentum 0.5 doubles the temperature: a mean square of 2 over 1 where it is forgotten.
    right = HeavyBallGaussian([[1.0]], [[1.0]], 0.05, 0.5)
    wrong = HeavyBallGaussian([[1.0]], [[1.0]], 0.05)
    points = right.draw(jax.random.key(3), (4000,))
    square = MeanRatio(lambda x: x**2, name="square ratio")
    for law, verdict in ((right, "agrees within 20 %"), (wrong, "differs by more than 20 %")):
        result = compare(ensemble(points), law, seed=0, margin=0.2, effects=[square])
        assert result.effects("square ratio")["verdict"][0] == verdict


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(endpoints, wells):
    with pytest.raises(ValueError, match="log_curvatures must differ"):
        FlatPreference(sharp, [1.0, 1.0])
    with pytest.raises(ValueError, match="label must give indices from 0 to 1"):
        compare(endpoints, wells, seed=0, effects=[BasinProbabilities(lambda x: 2, 2)])
    with pytest.raises(ValueError, match="cells must be at least 2"):
        TotalVariation(1)
