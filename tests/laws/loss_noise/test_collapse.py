import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import betainc, elliprf
from scipy.stats import chi2, norm

import statsgd
from statsgd import SGD, noise
from statsgd.laws.loss_noise import (
    classify_noise_regime,
    codimension_selection,
    collapse_probability,
    contraction_learning_rate,
    critical_noise_ratio,
    discrete_collapse_threshold,
    distance_tube_mass,
    fit_loss_scaled_noise,
    flatness_weight,
    linear_regression_collapse_threshold,
    linear_regression_growth_rate,
    loss_tube_mass,
    lyapunov_exponent,
    mean_loss_contraction,
    mean_square_noise_ratio,
    relaxation_rate,
)
from statsgd.laws.loss_noise.collapse import expected_log_square
from statsgd.problems import landscape, linear_regression


def test_critical_noise():
    # ε_c = 4/(q−2)
    assert [critical_noise_ratio(q) for q in (3, 4, 10)] == [4, 2, 0.5]
    assert np.isinf(critical_noise_ratio(2))
    assert mean_square_noise_ratio(4) == 1


# d = q = 12, p = 6: ε_c = 0.4, explosive threshold α = 1 + 10/6
@pytest.mark.parametrize(
    ("epsilon", "regime"),
    [(0.3, "collapse"), (0.4, "critical"), (0.8, "ergodic"), (1.5, "explosive"), (3, "explosive")],
)
def test_regimes(epsilon, regime):
    assert classify_noise_regime(epsilon, 12, dim=12, growth=6) == regime


def test_other_regimes():
    # q = 3, d = 12, p = 6: q/2 = 1.5 < α = 2 < 1 + 10/6
    assert classify_noise_regime(2.0, 3, dim=12, growth=6) == "bistable"
    assert classify_noise_regime(8.0, 3) == "ergodic"
    # a quadratic on ℝ^d never has a law
    assert classify_noise_regime(8.0, 3, dim=3, growth=2) == "explosive"
    assert classify_noise_regime(3.0, 3, dim=3, growth=2) == "collapse"
    assert classify_noise_regime(100.0, 2) == "collapse"
    with pytest.raises(ValueError, match="dim and growth must be given together"):
        classify_noise_regime(1.0, 3, dim=3)


def test_mean_loss_contraction():
    # ρ = (1−ηh)² + η²σqh/2 with h = 1, q = 4, σ = 10, η = 0.05
    assert mean_loss_contraction(0.05, 1.0, 2.0, 40.0) == pytest.approx(0.9525, abs=1e-12)
    assert contraction_learning_rate(1.0, 2.0, 40.0) == pytest.approx(0.0952381, abs=6e-8)
    with pytest.raises(ValueError, match="at most 2/smoothness"):
        mean_loss_contraction(2.1, 1.0, 2.0, 40.0)


@pytest.mark.slow
def test_mean_loss_contraction_of_sgd_is_the_equality_case():
    problem = landscape(lambda v: 0.5 * v @ v, np.ones(4))
    dynamics = SGD(0.05, noise.LossScaled(10.0))
    n = 20_000
    tree = statsgd.simulate(problem, dynamics, steps=5, replicas=n, seed=0, progress=False)
    ratio = tree["run"]["loss"].values / 2.0
    assert abs(ratio.mean() - 0.9525**5) < 4 * ratio.std() / np.sqrt(n)  # 0.6 %


def test_relaxation_rate():
    # εh(q−2α)²/16
    assert relaxation_rate(8, 3, 1) == pytest.approx(0.125)
    assert relaxation_rate(16, 3, 1) == pytest.approx(0.5625)


# A_α(H) = mean over unit ν of (νᵀHν)^(−α)
@pytest.mark.parametrize(
    ("h", "alpha", "value"),
    [
        ((1, 4, 9), 0.5, 0.5086446),
        ((1, 4, 9), 1, 0.2793290),
        ((1, 4, 9), 1.25, 0.2135037),
        ((1, 4, 9), 1.5, 1 / 6),
        ((4, 4, 4), 0.5, 0.5),
        ((4, 4, 4), 1, 0.25),
        ((4, 4, 4), 1.5, 0.125),
        ((1, 8, 8), 1, 0.2271777),
        ((1, 8, 8), 1.5, 0.125),
        ((0.25, 16, 16), 1, 0.1744091),
        ((0.25, 16, 16), 1.5, 0.125),
    ],
)
def test_flatness_weight(h, alpha, value):
    assert flatness_weight(h, alpha) == pytest.approx(value, abs=6e-8)


def test_flatness_weight_identities():
    h = np.array([1.0, 4.0, 9.0])
    assert flatness_weight(h, 0.5) == pytest.approx(elliprf(*h), rel=1e-10)
    assert flatness_weight(h, 1) == pytest.approx(elliprf(*(1 / h)) / 6, rel=1e-10)
    for alpha in (-1.5, -0.3, 0.0, 0.7, 2.2, 3.0):
        dual = np.prod(h) ** -0.5 * flatness_weight(1 / h, 1.5 - alpha)
        assert flatness_weight(h, alpha) == pytest.approx(dual, rel=1e-10)
    assert flatness_weight(np.diag(h), -1) == pytest.approx(14 / 3)  # mean of νᵀHν is Tr H/q
    # orders on either side of an integer join up
    assert flatness_weight(h, -1 + 1e-9) == pytest.approx(14 / 3, rel=1e-7)
    unit = np.random.default_rng(0).standard_normal((400_000, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for alpha in (-1.7, 0.4, 2.5):
        sample = (unit**2 @ h) ** -alpha
        error = sample.std() / np.sqrt(len(sample))
        assert abs(sample.mean() - flatness_weight(h, alpha)) < 4 * error


def test_tube_masses():
    # near a point of zero loss in three dimensions, by radial quadrature of L^(−α)
    h, epsilon = np.array([4.0, 4.0, 4.0]), 8.0
    r = np.exp(np.linspace(-80, np.log(0.3), 200_001))
    mass = np.trapezoid((2 * r**2) ** -1.25 * 4 * np.pi * r**3, np.log(r))
    assert distance_tube_mass(h, epsilon, 0.3) == pytest.approx(mass, rel=1e-6)
    assert loss_tube_mass(h, epsilon, 2 * 0.3**2) == pytest.approx(mass, rel=1e-6)
    assert np.isinf(loss_tube_mass(h, 3.0, 0.1))


def test_codimension_selection():
    strata = [np.ones(3), np.ones(4), [1, 4, 9]]
    assert codimension_selection(strata, 3.0) == (
        (True, False, True),
        "selected",
        pytest.approx((6 / 7, 0, 1 / 7)),
    )
    assert codimension_selection(strata, 1.5).outcome == "collapse"
    assert codimension_selection(strata, 4.5).outcome == "ergodic"


def test_collapse_probability():
    # I_x(4/ε+1, 4/ε+1) for x²(1−x)²/2, I_x(4/ε+1, 8/ε+1) for x²(1−x)⁴/2
    def even(x):
        return x**2 * (1 - x) ** 2 / 2

    assert collapse_probability(even, 0.3, 0, 1, 1.0) == pytest.approx(0.0988087, abs=6e-8)
    assert collapse_probability(even, 0.3, 0, 1, 4.0) == pytest.approx(0.216, abs=6e-8)
    skew = collapse_probability(lambda x: x**2 * (1 - x) ** 4 / 2, 0.3, 0, 1, 1.0)
    assert skew == pytest.approx(0.345686, abs=6e-7)
    assert skew == pytest.approx(betainc(5, 9, 0.3), rel=1e-9)


def test_collapse_at_noise_so_weak_that_only_the_top_of_the_loss_counts():
    # ε = 10⁻⁷, I_x(4/ε+1, 4/ε+1), a step of width 10⁻⁴, and a narrow rim beside a wide one.
    def even(x):
        return x**2 * (1 - x) ** 2 / 2

    start = 0.5 - 5e-5
    expected = betainc(4e7 + 1, 4e7 + 1, start)
    assert 0.1 < expected < 0.3
    assert collapse_probability(even, start, 0, 1, 1e-7) == pytest.approx(expected, abs=1e-7)

    # L^(2/ε) = 1 on a length 1 and e^8 on a rim of width 3·10⁻⁴.
    def rimmed(x):
        return np.exp(np.where(np.abs(x - 0.8007) < 1.5e-4, 4.0, 0.0))

    share = collapse_probability(rimmed, 0.5, 0, 1, 1.0)
    assert share == pytest.approx(0.5 / (1 + 3e-4 * (np.exp(8) - 1)), rel=1e-6)


@pytest.mark.slow
def test_sgd_collapses_where_the_probability_says():
    problem = landscape(lambda v: v[0] ** 2 * (1 - v[0]) ** 2 / 2, np.array([0.3]))
    dynamics = SGD(0.005, noise.LossScaled(200.0))
    n = 10_000
    tree = statsgd.simulate(problem, dynamics, steps=4000, replicas=n, seed=0, progress=False)
    right = tree["endpoints"]["params"].values[:, 0] > 0.5
    # chain at dt = 0.005: 0.0951 ± 0.0021, the law 0.0988; O(η) bias allowed
    assert abs(right.mean() - 0.0988087) < 4 * np.sqrt(0.09 / n) + 0.004


# (ε(q−2)/4 − 1) A_{α−1}/A_α
@pytest.mark.parametrize(
    ("h", "epsilon", "exponent"),
    [
        ((1, 1, 1), 6, 0.5),
        ((1, 4, 9), 4, 0.0),
        ((1, 4, 9), 3, -0.721964),
        ((1, 9), 2, -1.8),
        ((1, 1), 2, -1.0),
        ((2.0,), 2, -3.0),
        ((1, 1, 1), 2, -0.5),
    ],
)
def test_lyapunov_exponent(h, epsilon, exponent):
    assert lyapunov_exponent(h, epsilon) == pytest.approx(exponent, abs=6e-7)


def test_mean_curvature_of_the_stationary_direction():
    # E νᵀHν = A_{α−1}/A_α at ε = 4
    ratio = flatness_weight((1, 4, 9), 0.5) / flatness_weight((1, 4, 9), 1.5)
    assert ratio == pytest.approx(3.051868, abs=6e-7)


@pytest.mark.slow
def test_lyapunov_exponent_of_sgd():
    # (1,4,9) at ε = 3 in steps of η = 0.001: log L changes at twice the exponent
    problem = landscape(
        lambda v: 0.5 * (v[0] ** 2 + 4 * v[1] ** 2 + 9 * v[2] ** 2),
        lambda key: jax.random.normal(key, (3,)),
    )
    dynamics = SGD(0.001, noise.LossScaled(3000.0))
    n = 2000
    tree = statsgd.simulate(
        problem,
        dynamics,
        steps=5000,
        replicas=n,
        seed=0,
        progress=False,
        observe={"log_loss": lambda v: jax.numpy.log(problem.loss(v))},
        observe_at=[1000, 5000],
    )
    log_loss = tree["observables"]["log_loss"].values
    slope = (log_loss[:, 1] - log_loss[:, 0]) / 8
    error = slope.std() / np.sqrt(n)  # about 3 %
    assert abs(slope.mean() - lyapunov_exponent((1, 4, 9), 3)) < 4 * error


# E log|(1−ηh)e + sξ|² = 0, s² = ηhε/2
@pytest.mark.parametrize(
    ("q", "eta", "threshold", "half_unit"),
    [
        (1, 0.001, 4847.95, 5e-3),
        (1, 0.01, 489.655, 5e-4),
        (1, 0.1, 53.3744, 5e-5),
        (2, 0.001, 220.316, 5e-4),
        (2, 0.01, 36.7907, 5e-5),
        (2, 0.1, 7.90924, 5e-6),
        (3, 0.001, 3.99000, 5e-6),
        (3, 0.01, 3.89967, 5e-6),
        (3, 0.1, 2.99279, 5e-6),
        (10, 0.001, 0.49963, 5e-6),
        (10, 0.01, 0.49626, 5e-6),
        (10, 0.1, 0.46360, 5e-6),
    ],
)
def test_discrete_collapse_threshold(q, eta, threshold, half_unit):
    value = discrete_collapse_threshold(q, eta)
    assert abs(value - threshold) < half_unit + 1e-6 * threshold
    # only ηh matters
    assert discrete_collapse_threshold(q, eta / 3, 3.0) == pytest.approx(value, rel=1e-9)


def test_expected_log_square_against_sampling():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400_000, 3)) * 0.7
    x[:, 0] += 1.2
    sample = np.log(np.sum(x**2, -1))
    value = expected_log_square(3, 1.44, 0.49)
    assert abs(sample.mean() - value) < 4 * sample.std() / np.sqrt(len(sample))


# E log((1−ηz²)² + η²z²c) = 0; 2/(q−3); 2/(q−2); 2/(q+2)
@pytest.mark.parametrize(
    ("q", "values"),
    [(5, (0.351222, 1, 0.666667, 0.285714)), (20, (0.0931644, 0.117647, 0.111111, 0.0909091))],
)
def test_linear_regression_thresholds(q, values):
    np.testing.assert_allclose(linear_regression_collapse_threshold(q), values, rtol=3e-6)
    assert abs(linear_regression_growth_rate(q, values[0])) < 1e-6


def test_linear_regression_growth_rate_of_drawn_steps():
    # |(I − ηaaᵀ)e|² = (1 − ηz²)² + η²z²c for a unit vector e, z = a·e, c the rest of |a|².
    a = np.random.default_rng(0).standard_normal((400_000, 5))
    z, c = a[:, 0], np.sum(a[:, 1:] ** 2, axis=1)
    for eta in (0.1, 0.5):
        growth = np.log((1 - eta * z**2) ** 2 + (eta * z) ** 2 * c) / 2
        error = growth.std() / np.sqrt(len(growth))
        assert abs(growth.mean() - linear_regression_growth_rate(5, eta)) < 4 * error


@pytest.mark.parametrize(("q", "scale"), [(2, 1.0), (301, 1.9), (10_000, 1.9), (10**7, 1.9)])
def test_linear_regression_growth_rate_in_many_dimensions(q, scale):
    # E log(a + bc) over c ~ χ²_{q−1} by its cumulants (to a relative 1/q³), else by quadrature.
    eta = scale / q

    def over_c(z):
        a, b = (1 - eta * z**2) ** 2, (eta * z) ** 2
        if q < 1000:
            logs = quad(lambda u: np.log(a + b * chi2.isf(u, q - 1)), 0, 1, limit=400)[0]
            return logs
        mean, spread = a + b * (q - 1), b**2 * 2 * (q - 1)
        third, fourth = 8 * (q - 1) * b**3, b**4 * 12 * (q - 1) ** 2
        return np.log(mean) - spread / mean**2 / 2 + third / mean**3 / 3 - fourth / mean**4 / 4

    kink = min(1 / np.sqrt(eta), 9.0)
    parts = [quad(lambda z: over_c(z) * norm.pdf(z), *pair)[0] for pair in ((0, kink), (kink, 10))]
    assert linear_regression_growth_rate(q, eta) == pytest.approx(sum(parts), rel=1e-5)


def test_fit_recovers_the_noise_it_was_made_from():
    rng = np.random.default_rng(0)
    loss = rng.uniform(0, 2, 200)
    traces = 5 * 3.0 * (loss + 0.4) + 0.1 * rng.standard_normal(200)
    fit = fit_loss_scaled_noise(loss, traces, 5, radial_variances=traces / 5)
    assert abs(fit.strength - 3.0) < 4 * fit.strength_error
    assert abs(fit.floor - 0.4) < 4 * fit.floor_error
    assert fit.strength_error < 0.03
    assert fit.r_squared > 0.99
    assert fit.isotropic
    with pytest.raises(ValueError, match="must not all be equal"):
        fit_loss_scaled_noise(np.ones(5), np.ones(5), 2)


def test_fit_finds_the_rank_one_part_of_linear_regression():
    # one example of noiseless regression with N(0, I) inputs has C = 2L(I + uuᵀ): radial ratio
    # 2q/(q+1) and slope 2(q+1)/q
    rng = np.random.default_rng(1)
    q, n = 4, 20_000
    problem = linear_regression(rng.standard_normal((n, q)), np.zeros(n))
    points = rng.standard_normal((40, q))
    loss, traces, radial = [], [], []
    for theta in points:
        c = np.asarray(noise.Minibatch(1).covariance(problem, theta.astype(np.float32)))
        loss.append(float(problem.loss(theta.astype(np.float32))))
        traces.append(np.trace(c))
        radial.append(theta @ c @ theta / (theta @ theta))
    with pytest.warns(UserWarning, match="radial ratio of the noise is 1.6"):
        fit = fit_loss_scaled_noise(loss, traces, q, radial)
    assert fit.radial_ratio == pytest.approx(2 * q / (q + 1), rel=0.03)
    assert fit.strength == pytest.approx(2 * (q + 1) / q, rel=0.05)
    assert not fit.isotropic
