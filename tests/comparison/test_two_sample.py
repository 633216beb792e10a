"""Tests on arrays: known values against SciPy, nulls, power, and calibrated rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from statsgd.comparison import (
    CALIBRATED_TESTS,
    calibrate,
    cramer_von_mises,
    energy,
    holm,
    kernel_stein_discrepancy,
    kolmogorov_smirnov,
    maximum_mean_discrepancy,
    normal_setting,
    sliced_wasserstein,
    standard_settings,
    thin_by_effective_size,
)
from statsgd.comparison.permutation import exceedance
from statsgd.comparison.stein import stein_kernel

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def line():
    rng = np.random.default_rng(0)
    # Rounded: points that coincide must count together.
    return rng.normal(size=(60, 1)).round(1), 1.4 * rng.normal(size=(47, 1)).round(1)


def test_statistics_on_the_line_are_those_of_scipy(line):
    x, y = line
    few = {"permutations": 99}
    expected = stats.ks_2samp(x[:, 0], y[:, 0]).statistic
    np.testing.assert_allclose(kolmogorov_smirnov(x, y, KEY, **few).statistic, expected)
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0])
    np.testing.assert_allclose(sliced_wasserstein(x, y, KEY, **few).statistic, expected)
    expected = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    np.testing.assert_allclose(energy(x, y, KEY, **few).statistic, expected)
    # SciPy splits tied ranks, so without ties.
    x, y = x + 1e-4 * np.arange(60)[:, None], y + 1.3e-4 * np.arange(47)[:, None]
    expected = stats.cramervonmises_2samp(x[:, 0], y[:, 0]).statistic
    np.testing.assert_allclose(cramer_von_mises(x, y, KEY, **few).statistic, expected)


def test_energy_of_two_points():
    # E|X−Y| with X ∈ {0, 2}, Y = {1, 5}: (1+5+1+3)/4; E|X−X'| = 1, E|Y−Y'| = 2.
    result = energy(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]), KEY)
    np.testing.assert_allclose(result.statistic, 2 * 2.5 - 1 - 2)


def test_energy_sees_a_wrong_scale():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(500, 2)), 1.3 * rng.normal(size=(500, 2))
    assert energy(x, y, KEY).p_value < 0.01


def test_rank_p_values_agree_with_scipy():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(80, 1)), 0.4 + rng.normal(size=(73, 1))
    expected = stats.cramervonmises_2samp(x[:, 0], y[:, 0]).pvalue
    found = cramer_von_mises(x, y, KEY).p_value
    assert abs(found - expected) < 4 * np.sqrt(expected / 1000)


def test_exceedance_counts_ties_and_itself():
    assert float(exceedance(jnp.array([2.0, 1.0, 2.0, 3.0]))) == 3 / 4
    assert float(exceedance(jnp.array([5.0, 1.0, 2.0, 3.0]))) == 1 / 4


def test_mmd_is_invariant_under_scale_and_sees_a_shift():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(120, 2)), 0.6 + rng.normal(size=(100, 2))
    one, other = (maximum_mean_discrepancy(s * x, s * y, KEY) for s in (1.0, 1e3))
    np.testing.assert_allclose(one.statistic, other.statistic, rtol=1e-6)
    assert one.p_value == 0.001


def test_stein_kernel_has_mean_zero_under_the_law():
    # ∫ u(x, y) φ(x) dx = 0 for the standard normal, whatever y: here y = 0.8.
    with jax.enable_x64(True):
        grid = np.linspace(-8, 8, 401)
        points = np.concatenate([grid, [0.8]])[:, None]
        kernel = np.asarray(stein_kernel(points, -points, np.float64(0.7)))
    values = kernel[:-1, -1] * stats.norm.pdf(grid)
    assert abs(integrate.simpson(values, x=grid)) < 1e-9
    assert integrate.simpson(np.abs(values), x=grid) > 0.3


def test_stein_test_sees_a_wrong_scale():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 2))
    assert kernel_stein_discrepancy(x, -x, KEY).p_value > 0.05
    assert kernel_stein_discrepancy(x, -x / 1.3, KEY).p_value < 0.01


def test_holm_against_the_textbook_rule():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\]"):
        holm(np.array([1.2]))


def test_chains_are_thinned_to_their_effective_number():
    # AR(1) with φ = 0.8: n(1 − φ)/(1 + φ) = n/9 for the mean, n(1 − φ²)/(1 + φ²) for the square.
    rng = np.random.default_rng(4)
    chains = np.empty((4, 5000, 1))
    chains[:, 0] = rng.normal(size=(4, 1))
    for t in range(1, 5000):
        chains[:, t] = 0.8 * chains[:, t - 1] + 0.6 * rng.normal(size=(4, 1))
    thinned = thin_by_effective_size(chains)
    assert 8 <= thinned.step <= 12
    assert abs(np.corrcoef(thinned.values[:-1, 0], thinned.values[1:, 0])[0, 1]) < 0.2
    assert f"every {thinned.step}th: they are correlated" in thinned.describe()
    independent = thin_by_effective_size(rng.normal(size=(4, 1000, 2)))
    assert independent.step == 1
    assert len(independent.values) == 4000
    # Nothing is known of chains of one draw, but that they are independent.
    assert thin_by_effective_size(rng.normal(size=(50, 1, 2))).values.shape == (50, 2)


def test_treating_a_chain_as_independent_would_reject_too_often():
    # Against a well-mixed sample of the same law the unthinned chain is off by its Monte Carlo
    # error, three times what independent draws would have.
    rng = np.random.default_rng(5)
    chains = np.empty((40, 2, 200))
    chains[..., 0] = rng.normal(size=(40, 2))
    for t in range(1, 200):
        chains[..., t] = 0.95 * chains[..., t - 1] + np.sqrt(1 - 0.95**2) * rng.normal(size=(40, 2))
    p = [
        kolmogorov_smirnov(run.reshape(-1, 1), rng.normal(size=(400, 1)), KEY, 99).p_value
        for run in chains
    ]
    assert np.mean(np.array(p) <= 0.05) > 0.3


@pytest.mark.usefixtures("unchecked")
def test_bad_samples_are_named():
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match="the same number of columns"):
        energy(x, np.zeros((5, 3)), KEY)
    with pytest.raises(ValueError, match="y must hold at least 2 points"):
        energy(x, np.zeros((1, 2)), KEY)
    with pytest.raises(ValueError, match="x must be finite"):
        energy(x + np.nan, x, KEY)
    with pytest.raises(ValueError, match="score must have the shape"):
        kernel_stein_discrepancy(x, np.zeros((5, 1)), KEY)
    with pytest.raises(ValueError, match="tests must be one of"):
        calibrate(["t_test"], repeats=10, points=10, seed=0)


@pytest.mark.slow
def test_calibration_table_states_its_errors():
    table = calibrate(["energy"], [normal_setting("null")], repeats=200, points=20, seed=0)
    row = table.iloc[0]
    np.testing.assert_allclose(
        row["standard_error"], np.sqrt(row["rate"] * (1 - row["rate"]) / 200)
    )
    assert abs(row["rate"] - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.slow
def test_every_test_keeps_its_level():
    # 2000 null repeats: the standard error of a rate of 5 % is 0.49 %.
    table = calibrate(repeats=2000, points=40, references=53, seed=0)
    assert set(table["test"]) == set(CALIBRATED_TESTS)
    assert table["rate"].between(0.04, 0.06).all(), table.to_string()


@pytest.mark.slow
def test_power_grows_with_the_number_of_points():
    small, large = (
        calibrate(["energy"], standard_settings(), repeats=200, points=n, seed=1)["rate"].to_numpy()
        for n in (40, 300)
    )
    assert large.mean() > small.mean() + 0.03
    # Between wells 5 % of 300 points is 1.2 standard errors of the difference of two halves, which
    # a two-sided test at 5 % sees 23 % of the time.
    assert large[1] > 0.12
