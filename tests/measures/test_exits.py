"""Exit times, survival and climb: textbook data, exact chains, and how often intervals hold."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from statsgd import SGD, noise, problems, simulate
from statsgd.laws.gibbs import mean_exit_time_1d
from statsgd.laws.minimum import escape_efficiency
from statsgd.measures import (
    escape_rate,
    escape_rate_interval,
    exit_times,
    first_exit,
    first_passage,
    loss_climb,
    restricted_mean,
    survival_curve,
)
from statsgd.measures.escape.exits import ExitTimes

# Remission times of Freireich et al. (1963), 6-mercaptopurine arm; + is censored.
TIMES = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
CENSORED = [3, 5, 7, 8, 11, 12, 13, 16, 17, 18, 19, 20]
REMISSION = ExitTimes(np.array(TIMES, dtype=float), ~np.isin(np.arange(21), CENSORED))

ETA, NOISE, EDGE = 0.1, 2.0, 0.7  # ½θ², C = 2: D = .1, exits of (−.7, .7) after about 100 steps


@pytest.fixture(scope="module")
def escaping():
    return simulate(
        problems.quadratic(np.eye(1)),
        SGD(ETA, noise.Isotropic(NOISE)),
        steps=100,
        replicas=4000,
        seed=5,
        progress=False,
        observe={
            "inside": lambda x: jnp.abs(x[0]) < EDGE,
            "loss": lambda x: 0.5 * jnp.sum(x**2),
        },
        observe_at=1,
    )


@pytest.fixture(scope="module")
def exact_survival():
    # θ' = .9θ + ηξ killed outside (−.7, .7): S(k) by Gauss–Legendre quadrature of the kernel.
    x, w = np.polynomial.legendre.leggauss(80)
    x, w = EDGE * x, EDGE * w
    kernel = norm.pdf(x[None, :], (1 - ETA) * x[:, None], ETA * np.sqrt(NOISE)) * w
    stays = [np.ones(80)]
    for _ in range(4000):
        stays.append(kernel @ stays[-1])
    at_zero = norm.pdf(x, 0, ETA * np.sqrt(NOISE)) * w
    return np.append(1.0, [at_zero @ s for s in stays])


def test_kaplan_meier_on_known_data():
    # Printed in the textbooks: S and Greenwood's error at each exit time, 9 exits in 359 weeks.
    curve = survival_curve(REMISSION)
    np.testing.assert_array_equal(curve.time, [6, 7, 10, 13, 16, 22, 23])
    np.testing.assert_array_equal(curve.at_risk, [21, 17, 15, 12, 11, 7, 6])
    stays = [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    np.testing.assert_allclose(curve.survival, stays, atol=6e-5)
    errors = [0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346]
    np.testing.assert_allclose(curve.standard_error, errors, atol=6e-5)
    rate = escape_rate(REMISSION)
    np.testing.assert_allclose([rate.value, rate.standard_error], [9 / 359, 3 / 359])
    low, high = escape_rate_interval(REMISSION)
    assert low < rate.value < high
    np.testing.assert_allclose(
        curve.at([0, 6, 9.5, 100]).value, [1, 18 / 21, 0.8067, 0.4482], atol=6e-5
    )
    # The area under S up to week 23: 23 − Σ (1 − S) over the intervals.
    widths, below = np.diff([6, 7, 10, 13, 16, 22, 23]), np.array(stays[:-1])
    assert restricted_mean(REMISSION, 23).value == pytest.approx(6 + widths @ below, abs=1e-3)


def test_without_censoring_all_is_elementary():
    time = np.random.default_rng(0).exponential(5.0, 50)
    exits = ExitTimes(time, np.ones(50, dtype=bool))
    curve = survival_curve(exits)
    share = np.array([(time > t).mean() for t in curve.time])
    np.testing.assert_allclose(curve.survival, share, atol=1e-12)
    np.testing.assert_allclose(curve.standard_error, np.sqrt(share * (1 - share) / 50), atol=1e-12)
    mean = restricted_mean(exits, 1e6)
    assert mean.value == pytest.approx(time.mean())
    assert mean.standard_error == pytest.approx(time.std() / np.sqrt(50))


def test_escape_of_sgd_against_the_exact_chain(escaping, exact_survival):
    exits = exit_times(escaping, "inside")
    share = 1 - exits.left.mean()
    assert 0.25 < share < 0.5  # much is censored
    k = np.array([5, 20, 50, 90])
    curve = survival_curve(exits)
    assert np.all(np.abs(curve.at(k).deviation(exact_survival[k])) < 4)
    low, high = curve.interval(0.9999)
    there = exact_survival[curve.time.astype(int)]
    assert np.all((low < there) & (there < high))
    # Mean up to 100 steps, Σ S(k); 4 errors resolve a factor 1.1.
    mean = restricted_mean(exits, 100)
    expected = exact_survival[:100].sum()
    assert 4 * mean.standard_error < 0.1 * expected
    assert abs(mean.value - expected) < 4 * mean.standard_error
    # The rate once the start is forgotten: the quasi-stationary one.
    rate = escape_rate(exits, after=20)
    exact = 1 - exact_survival[2000] / exact_survival[1999]
    assert 4 * rate.standard_error < 0.1 * exact
    assert abs(rate.value - exact) < 4 * rate.standard_error
    # From the start it is another number, since exits take a while to begin.
    assert escape_rate(exits).value < exact - 2 * rate.standard_error
    # The whole mean: area so far plus what is left at the late rate.
    whole = mean.value + curve.at(100).value[0] / rate.value
    assert whole == pytest.approx(exact_survival.sum(), rel=0.08)
    # The diffusion's own formula sees no O(ηh) heating of the chain: right to a fifth here.
    problem = problems.quadratic(np.eye(1))
    law = mean_exit_time_1d(problem, ETA * NOISE / 2, 0.0, -EDGE, EDGE, learning_rate=ETA) / ETA
    assert exact_survival.sum() == pytest.approx(law, rel=0.2)
    # Ignoring the censored ones, as if they were not there, is far off.
    assert exits.time[exits.left].mean() < 0.6 * exact_survival.sum()


def test_exits_to_the_step_without_records(escaping):
    # The same replicas as `simulate` runs, so the same exits, to the step.
    exits = first_passage(
        problems.quadratic(np.eye(1)),
        SGD(ETA, noise.Isotropic(NOISE)),
        lambda x: jnp.abs(x[0]) < EDGE,
        steps=100,
        replicas=1000,
        seed=5,
    )
    seen = exit_times(escaping, "inside")
    np.testing.assert_array_equal(exits.time, seen.time[:1000])
    np.testing.assert_array_equal(exits.left, seen.left[:1000])


@pytest.mark.slow
def test_mean_first_passage_of_a_chain_over_a_barrier():
    # Quartic x⁴/4 − x²/2, −1 → 0 at τ = .1, chain with η = .02: 33.41 in t = ηk; the diffusion
    # takes 30.82, 8 % less.
    exits = first_passage(
        problems.quartic_wells(),
        SGD(0.02, noise.Isotropic(10.0)),
        lambda x: x[0] < 0,
        steps=6000,
        replicas=6000,
        seed=0,
    )
    rate = escape_rate(exits, after=300)
    spread = restricted_mean(exits, 6000)
    left = survival_curve(exits).at(6000)[0] / rate.value
    error = np.hypot(spread.standard_error, left * rate.standard_error / rate.value)
    mean, error = 0.02 * (spread.value + left), 0.02 * error
    assert 4 * error < 0.07 * 33.41
    assert abs(mean - 33.41) < 4 * error
    assert abs(mean - 30.82) > 4 * error


def test_intervals_of_the_rate_hold_as_often_as_they_say():
    # Exponential times cut at a fixed time: 95 % and 2 % of tail, 1000 data sets of 12.
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        time = rng.exponential(1.0, 12)
        low, high = escape_rate_interval(ExitTimes(np.minimum(time, 0.8), time < 0.8))
        hits += low <= 1 <= high
    assert 930 < hits < 990
    none = ExitTimes(np.full(10, 3.0), np.zeros(10, dtype=bool))
    # No exits in 30: the upper end is −log(.025)/30.
    low, high = escape_rate_interval(none)
    assert (escape_rate(none).value, low) == (0, 0)
    assert high == pytest.approx(-np.log(0.025) / 30)


def test_climb_of_the_loss_against_its_law(escaping):
    # E L_k = (η/2) Tr[(2I−ηH)⁻¹(I−(I−ηH)^{2k})C]; ½η² Tr(HC) = .01 at k = 1.
    steps = np.arange(1, 101)
    law = escape_efficiency(np.eye(1), NOISE * np.eye(1), ETA, steps)
    assert law[0] == pytest.approx(0.01)
    found = loss_climb(escaping["observables"].loss.values, 0.0)
    assert 4 * found.standard_error[0] < 0.1 * law[0]
    assert np.all(np.abs(found.deviation(law)) < 4)
    assert np.all(np.abs(found.deviation(1.1 * law)[:50]) > 3)


def test_bad_input(unchecked):
    held = np.array([[True, False], [True, True]])
    with pytest.raises(ValueError, match=r"inside must be booleans of shape \(replica, 3\)"):
        first_exit(held, np.arange(3.0))
    with pytest.raises(ValueError, match="inside must hold at the first record, got 1"):
        first_exit(held[:1, ::-1], np.arange(2.0))
    with pytest.raises(ValueError, match="times must increase"):
        first_exit(held, np.zeros(2))
    exits = first_exit(held, np.arange(2.0))
    with pytest.raises(ValueError, match="after must leave replicas inside"):
        escape_rate(exits, after=1.0)
    problem, sgd = problems.quadratic(np.eye(1)), SGD(ETA, noise.Isotropic(NOISE))
    ask: dict = {"steps": 5, "replicas": 3, "seed": 0}
    with pytest.raises(ValueError, match="start must lie inside the region, got 3"):
        first_passage(problem, sgd, lambda x: x[0] > 1, **ask)
    with pytest.raises(ValueError, match="inside must return one boolean"):
        first_passage(problem, sgd, lambda x: x, **ask)
    with pytest.raises(ValueError, match="horizon must be at most the last time seen 1"):
        restricted_mean(exits, 2.0)
    with pytest.raises(ValueError, match=r"start_loss must have shape \(\) or \(2,\)"):
        loss_climb(np.ones((2, 3)), np.ones(3))


def test_replicas_that_diverge_have_left():
    # Two replicas inside at every record; the second is frozen at step 6, where it blew up.
    steps = ("step", [4, 8])
    run = xr.DataTree.from_dict(
        {
            "observables": xr.Dataset(
                {"inside": (("replica", "step"), np.ones((2, 2)))}
            ).assign_coords(step=steps),
            "run": xr.Dataset(
                {"diverged": ("replica", [False, True]), "diverged_at": ("replica", [-1, 6])}
            ),
        }
    )
    exits = exit_times(run, "inside")
    assert exits.left.tolist() == [False, True]
    assert exits.time.tolist() == [8, 8]
    with pytest.raises(ValueError, match="group 'observables'"):
        exit_times(run.drop_nodes("observables"), "inside")
