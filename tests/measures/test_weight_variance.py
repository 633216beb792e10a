"""Errors of means and fits, and variance against curvature in real ensembles."""

import numpy as np
import pytest

from statsgd import SGD, laws, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian
from statsgd.measures import (
    bootstrap,
    correlation_time,
    ensemble_variance,
    jackknife,
    mean_over_clusters,
    mean_over_runs,
    power_law_fit,
    variance_exponent,
    window_variances,
)
from statsgd.measures.runs.averages import stretch_count
from statsgd.problems import ConvergenceWarning
from tests.statistical import assert_variance_within

ETA, H = 0.1, np.geomspace(0.3, 5.0, 6)
C = 0.2 * H**2  # p = 2: σ² ∝ h but for steps, ψ = 2(p−1) = 2
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]


@pytest.fixture(scope="module")
def run():
    return simulate(
        problems.quadratic(TURN @ np.diag(H) @ TURN.T),
        SGD(ETA, noise.Anisotropic(TURN @ np.diag(C) @ TURN.T)),
        steps=150,
        replicas=3500,
        seed=0,
        progress=False,
    )


def ar1(rho, replicas, steps, rng, width=()):
    x = [rng.normal(size=(replicas, *width))]
    for _ in range(steps - 1):
        x.append(rho * x[-1] + np.sqrt(1 - rho**2) * rng.normal(size=(replicas, *width)))
    return np.stack(x, axis=1)


def test_variance_along_curvature_in_an_ensemble(run):
    # Var = ηc/(h(2−ηh)), exact for the chain.
    ends = run["endpoints"].params.values.astype(float)
    exact = ETA * C / (H * (2 - ETA * H))
    spread = ensemble_variance(ends, TURN)
    assert np.all(4 * spread.standard_error < 0.1 * exact)
    assert np.all(np.abs(spread.deviation(exact)) < 4)
    assert_variance_within(ends @ TURN, exact)
    wanted = np.polyfit(np.log(H), np.log(exact), 1)[0]
    found = variance_exponent(ends, TURN, H, resamples=150)
    assert 4 * found.standard_error < 0.1 * wanted
    assert abs(found.deviation(wanted)) < 4
    # Against flatness F ∝ h^(−1/2) the exponent is −ψ; ψ = 2 at small steps.
    width = laws.networks.log_loss_flatness(0.01, H)
    psi = -variance_exponent(ends, TURN, width, resamples=50).value
    assert psi == pytest.approx(2 * found.value)
    assert laws.networks.variance_flatness_exponent(
        1e-3, ETA, 10, noise_exponent=2
    ) == pytest.approx(2, rel=1e-3)
    assert abs(psi - 2) < 0.3
    low, high = variance_exponent(ends, TURN, H).interval()
    assert low < wanted < high


def test_variance_within_windows_of_one_trajectory():
    # Γ(0)[1 − (1+a)/(T(1−a)) + …]: flat directions show the noise, not their variance.
    rng = np.random.default_rng(2)
    steps, window = 40_000, 100
    kicks = rng.normal(size=(steps, 6)) * np.sqrt(C)
    theta, points = np.zeros(6), np.empty((steps, 6))
    for k in range(steps):
        theta = theta - ETA * (H * theta + kicks[k])
        points[k] = theta
    found = window_variances(points[None], window)
    exact = laws.networks.window_variance(H, C, ETA, window)
    assert np.all(4 * found.standard_error < 0.15 * exact)
    assert np.all(np.abs(found.deviation(exact)) < 4)
    wanted = np.polyfit(np.log(H), np.log(exact), 1)[0]
    stationary = np.polyfit(np.log(H), np.log(C / (H * (2 - ETA * H))), 1)[0]
    exponent = variance_exponent(points[None], None, H, window=window, resamples=150)
    assert 4 * exponent.standard_error < 0.1 * wanted
    assert abs(exponent.deviation(wanted)) < 4
    assert exponent.deviation(stationary) > 4


def test_line_with_errors_in_both_on_known_data():
    # Pearson's data with York's weights (York 1968): slope −.480533407, intercept 5.47991022,
    # χ² 11.8664 (York et al. 2004), slope error .0580.
    x = np.array([0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4])
    y = np.array([5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5])
    s_x = np.array([1000, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1.0]) ** -0.5
    s_y = np.array([1, 1.8, 4, 8, 20, 20, 70, 70, 100, 500]) ** -0.5
    fit = power_law_fit(np.exp(x), np.exp(y), np.exp(x) * s_x, np.exp(y) * s_y)
    assert fit.exponent == pytest.approx(-0.480533407, rel=1e-7)
    assert fit.intercept == pytest.approx(5.47991022, rel=1e-7)
    assert fit.chi_square == pytest.approx(11.8664, rel=1e-5)
    assert fit.standard_error == pytest.approx(0.0580, abs=6e-4)
    plain = power_law_fit(np.exp(x), np.exp(y))
    slope, covariance = np.polyfit(x, y, 1, cov=True)
    assert plain.exponent == pytest.approx(slope[0])
    assert plain.standard_error == pytest.approx(np.sqrt(covariance[0, 0]))


def test_a_fit_that_does_not_settle_says_so(monkeypatch):
    monkeypatch.setattr("statsgd.measures.motion.weight_variance._ROUNDS", 1)
    with pytest.warns(ConvergenceWarning, match=r"the exponent still moves by .* after 1 rounds"):
        power_law_fit(np.array([1.0, 2, 4, 8]), np.array([1.0, 3, 3.5, 9]), 0.5, 0.5)


def test_errors_in_curvature_do_not_flatten_the_exponent():
    # ln y = 2 ln x; errors .5 in ln x, .1 in ln y: ordinary least squares is 15 % too flat.
    rng = np.random.default_rng(1)
    true = np.linspace(-2.0, 2.0, 12)
    plain, fits = [], []
    for _ in range(300):
        x, y = true + 0.5 * rng.normal(size=12), 2 * true + 0.1 * rng.normal(size=12)
        fits.append(power_law_fit(np.exp(x), np.exp(y), 0.5 * np.exp(x), 0.1 * np.exp(y)))
        plain.append(power_law_fit(np.exp(x), np.exp(y)).exponent)
    slope = np.array([fit.exponent for fit in fits])
    assert np.mean(slope) == pytest.approx(2, rel=0.05)
    assert np.mean(plain) < 1.85
    error = np.array([fit.standard_error for fit in fits])
    assert np.mean(np.abs(slope - 2) < 1.96 * error) > 0.9


@pytest.mark.slow
def test_intervals_of_the_exponent_hold():
    # 40 ensembles of 60 Gaussian endpoints: 95 % intervals cover 38 ± 1.4 of them.
    rng = np.random.default_rng(4)
    x = np.geomspace(0.1, 10, 5)
    inside = 0
    for seed in range(40):
        found = variance_exponent(
            rng.normal(size=(60, 5)) * np.sqrt(x), None, x, seed=seed, resamples=50
        )
        low, high = found.interval()
        inside += low <= 1 <= high
    assert inside >= 33


def test_correlated_runs_are_worth_what_they_are():
    rng = np.random.default_rng(5)
    # AR(1) with ρ = .9: 1 + 2Σρᵏ = 19; one run of 40 000 steps is worth 2100 draws.
    x = ar1(0.9, 1, 40_000, rng)
    assert correlation_time(x) == pytest.approx(19, rel=0.3)
    assert correlation_time(rng.normal(size=(4, 5000))) < 1.2
    assert correlation_time(np.ones((2, 100))) == 1
    # An oscillation counts with its envelope: (−.9)ᵏ has the integrated time 1/19.
    assert correlation_time(ar1(-0.9, 1, 40_000, rng)) == pytest.approx(19, rel=0.3)
    assert mean_over_runs(x).standard_error == pytest.approx(np.sqrt(19 / 40_000), rel=0.3)
    assert stretch_count(np.zeros((100, 7))) == 1
    # One run each, 300 times: t of the mean has the right size.
    many = ar1(0.9, 300, 4000, rng)
    t = np.array([mean_over_runs(one[None]).deviation(0.0) for one in many])
    assert 0.8 < np.mean(t**2) < 1.5


def test_jackknife_and_bootstrap():
    rng = np.random.default_rng(6)
    x = rng.normal(1.0, 0.5, size=(400, 2))
    # log of a mean: error s/(m√n); ratio of independent means: √2 s/(m√n).
    logarithm = jackknife(lambda mean: np.log(mean[0]), x)
    assert logarithm.standard_error == pytest.approx(0.5 / 20, rel=0.15)
    ratio = jackknife(lambda mean: mean[0] / mean[1], x)
    assert ratio.standard_error == pytest.approx(np.sqrt(2) * 0.5 / 20, rel=0.15)
    assert abs(ratio.deviation(1.0)) < 4
    # Of the square of a mean the bias is the mean's variance, which is taken off.
    square = jackknife(lambda mean: mean[0] ** 2, x[:20])
    unbiased = x[:20, 0].mean() ** 2 - x[:20, 0].var(ddof=1) / 20
    assert square.value == pytest.approx(unbiased, rel=1e-12)
    drawn = bootstrap(lambda these: these.mean(axis=0), x, seed=0)
    plain = mean_over_clusters(x)
    np.testing.assert_allclose(drawn.standard_error, plain.standard_error, rtol=0.15)
    np.testing.assert_array_equal(plain.deviation(plain.value), 0.0)
    sure = mean_over_clusters(np.ones((5, 1)))
    assert sure.deviation(1.0) == 0
    assert sure.deviation(2.0) == -np.inf


def test_known_variance_of_a_law_is_recovered_per_direction():
    law = HeavyBallGaussian(np.diag([2.0, 0.5]), [[1.0, 0.6], [0.6, 0.8]], ETA, 0.9)
    points = np.random.default_rng(7).multivariate_normal(np.zeros(2), law.covariance(), 5000)
    found = ensemble_variance(points)
    assert np.all(np.abs(found.deviation(np.diagonal(law.covariance()))) < 4)


def test_bad_input(unchecked):
    points = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match=r"against must have shape \(3,\)"):
        variance_exponent(points, None, np.ones(2))
    with pytest.raises(ValueError, match="x and y must be three or more"):
        power_law_fit(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="y_error must be positive at every point"):
        power_law_fit(np.arange(1.0, 4.0), np.ones(3), y_error=np.array([0.1, 0.0, 0.1]))
    with pytest.raises(ValueError, match="directions must have 3 rows"):
        ensemble_variance(points, np.eye(2))
    with pytest.raises(ValueError, match="window must fit twice"):
        window_variances(points[None], 8)
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
        mean_over_clusters(points).interval(1.0)
