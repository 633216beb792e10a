from itertools import pairwise

import jax
import numpy as np
import pytest
from scipy.integrate import quad

import statsgd
from statsgd import SGD, noise
from statsgd.laws import ImproperLawError, LinearRegressionGaussian, OutlierPowerLaw
from statsgd.laws.minimum import regression_second_moment
from statsgd.problems import linear_regression, population_risk


def test_one_outlier():
    # φ = 1 + S/(ηh), ν = 2φ − n, scale² = 2L*/(hν), var = 2L*/(h(ν−2)), n_c = 2φ
    law = OutlierPowerLaw(1, 0.1, 1.0, 0.5)
    assert law.escape_exponent == pytest.approx(11)
    assert law.degrees_of_freedom == pytest.approx(21)
    assert law.scale[0, 0] == pytest.approx(0.0476190, abs=6e-8)
    assert law.covariance()[0, 0] == pytest.approx(0.0526316, abs=6e-8)


@pytest.mark.slow
def test_ten_outliers():
    law = OutlierPowerLaw(1, 0.1, 1.0, 0.5, 10)
    assert law.degrees_of_freedom == pytest.approx(12)
    np.testing.assert_allclose(law.covariance(), 0.1 * np.eye(10), rtol=1e-12)
    draws = np.asarray(law.draw(jax.random.key(0), (4_000,)))
    square = draws**2
    rows = square.mean(1)
    assert abs(rows.mean() - 0.1) < 4 * rows.std() / np.sqrt(len(rows))  # 1 %


def test_too_many_outliers():
    with pytest.raises(ImproperLawError, match=r"22 outliers need n < 2\(1 \+ S/\(eta h\)\) = 22"):
        OutlierPowerLaw(1, 0.1, 1.0, 0.5, 22).mean()


# T(c) = 2β̂ ∫ y^(1−n)(1+y²)^β̂ ∫ x^(n−1)(1+x²)^(−β̂−1)
@pytest.mark.parametrize(
    ("n", "c", "time"),
    [(1, 1.25, 6.213068), (1, 1.5, 35.63495), (1, 2, 574.1016), (20, 1.5, 0.25), (20, 3, 1.0)],
)
def test_passage_time(n, c, time):
    assert OutlierPowerLaw(1, 0.1, 1.0, 0.5, n).passage_time(c) == pytest.approx(time, rel=2e-7)


@pytest.mark.parametrize(("learning_rate", "ratio"), [(1e-4, 1.01), (1e-4, 1.05), (2.0, 1e12)])
def test_passage_time_far_from_moderate_numbers(learning_rate, ratio):
    # β̂ = 10⁴, of e¹⁰⁰ and e⁵⁰⁰, and β̂ = ½ over twelve decades; n = 2 has an elementary inner
    # integral, (1 − (1+y²)^(−β̂))/(2β̂), and t = log(1+y²) an elementary outer one:
    # T = ½ ∫₀^{log c} (e^{(β̂+1)t} − e^t)/(e^t − 1) dt
    beta = 1 / learning_rate
    top = np.log(ratio)

    def integrand(t):
        return np.exp((beta + 1) * (t - top)) * -np.expm1(-beta * t) / np.expm1(t)

    ends = [0.0, top - min(top / 2, 30 / beta), top]
    parts = [quad(integrand, *pair, epsabs=0, epsrel=1e-11)[0] for pair in pairwise(ends)]
    expected = np.log(sum(parts) / 2) + (beta + 1) * top
    time = OutlierPowerLaw(1, learning_rate, 1.0, 0.5, 2).passage_time(ratio)
    assert np.log(time) == pytest.approx(expected, abs=1e-9)


def test_passage_time_slope_and_unit():
    law = OutlierPowerLaw(1, 0.1, 1.0, 0.5)
    for c, slope in [(2, 9.8716), (4, 10.307)]:
        step = 1e-4
        ratio = law.passage_time(c * np.exp(step)) / law.passage_time(c * np.exp(-step))
        assert np.log(ratio) / (2 * step) == pytest.approx(slope, abs=6e-4)
    # h = 4 and η/4 have the same S/(ηh): time in units of 1/h
    scaled = OutlierPowerLaw(1, 0.025, 4.0, 0.5)
    assert scaled.passage_time(1.5) == pytest.approx(law.passage_time(1.5) / 4)
    with pytest.raises(ValueError, match="loss_ratio must be above 1"):
        law.passage_time(0.9)


def test_escape_rate_is_a_power_of_the_loss_ratio():
    # |h_s|/(2π) √(det H*/|det H_s|) (L_s/L*)^(−(φ − n/2))
    law = OutlierPowerLaw(1, 0.1, 1.0, 0.5)
    assert law.escape_rate(1.0, [1.0], [-4.0]) == pytest.approx(4 / (2 * np.pi) / 2 * 2**-10.5)
    with pytest.raises(ValueError, match="one of the saddle's negative"):
        law.escape_rate(1.0, [1.0], [4.0])


def test_exact_variance_of_real_regression_differs_from_the_law():
    # η/(S(2−η) − (κ−1)η): κ = 3 (Gaussian x) 0.0588235 against 0.0526316 of the law
    exact = LinearRegressionGaussian.gaussian_inputs([[1.0]], 1.0, 1, 0.1)
    assert exact.covariance()[0, 0] == pytest.approx(0.0588235, abs=6e-8)


@pytest.mark.slow
def test_sgd_of_kurtosis_two_is_exactly_gaussian_not_a_power_law():
    # x ∈ {0, ±√2} has κ = 2, for which the decoupled covariance is exact in one dimension; with
    # y ~ N(0, 1) and S = 1 the chain is autoregressive: N(0, η/(2(1−η))), 0.0555556 at η = 0.1
    def draw(key):
        pick, target = jax.random.split(key)
        x = jax.random.choice(pick, np.sqrt([0.0, 0.0, 2.0, 2.0]) * [1, 1, 1, -1])
        return x, jax.random.normal(target)

    problem = population_risk(
        lambda v, e: 0.5 * (e[0] * v[0] - e[1]) ** 2,
        draw,
        np.zeros(1),
        exact_loss=lambda v: 0.5 * v[0] ** 2 + 0.5,
    )
    n, dynamics = 40_000, SGD(0.1, noise.Minibatch(1, "fresh"))
    tree = statsgd.simulate(problem, dynamics, steps=150, replicas=n, seed=0, progress=False)
    x = tree["endpoints"]["params"].values[:, 0].astype(np.float64)
    exact = regression_second_moment(0.1, 1, kurtosis=2.0)
    assert exact == pytest.approx(0.0555556, abs=6e-8)
    assert abs(x.var() - exact) < 4 * exact * np.sqrt(2 / n)  # 0.7 %
    kurtosis = np.mean(x**4) / np.mean(x**2) ** 2
    # Gaussian, where the power law has 3 + 6/17 = 3.353; the error of a sample is √(24/n) = 0.025
    assert abs(kurtosis - 3) < 4 * np.sqrt(24 / n)


def test_second_moment_of_real_regression():
    # η/(S(2−η) − (κ−1)η) in one dimension, ηn/(S(2−η) − η(n+1)) for N(0, I) inputs
    assert regression_second_moment(0.1, 1) == pytest.approx(0.0588235, abs=6e-8)
    assert regression_second_moment(0.1, 1, 3) == pytest.approx(0.3 / 1.5)
    exact = LinearRegressionGaussian.gaussian_inputs(np.eye(3), 1.0, 1, 0.1)
    assert regression_second_moment(0.1, 1, 3) == pytest.approx(np.trace(exact.covariance()))
    with pytest.raises(ImproperLawError, match="second moment of the chain diverges"):
        regression_second_moment(1.0, 1, 1)
    with pytest.raises(ValueError, match="kurtosis other than 3 is known"):
        regression_second_moment(0.1, 1, 2, kurtosis=2.0)
    # the power law with the matched second moment has φ = 1 + S/η − S/2 = 10.5 (κ = 2)
    variance = regression_second_moment(0.1, 1, kurtosis=2.0)
    assert ((1 / variance + 2) + 1) / 2 == pytest.approx(10.5)


def test_from_sgd_takes_equal_outliers_only():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 2))
    y = x @ [1.0, -1.0] + rng.standard_normal(20_000)
    problem = linear_regression(x, y)
    law = OutlierPowerLaw.from_sgd(problem, SGD(0.1, noise.Minibatch(4)))
    assert law.outliers == 2
    assert law.minimum_loss == pytest.approx(0.5, rel=0.03)
    assert law.curvature == pytest.approx(1.0, rel=0.03)
    np.testing.assert_allclose(law.mean(), [1, -1], atol=0.03)
    skew = linear_regression(x * [1.0, 2.0], y)
    with pytest.raises(ValueError, match="Hessian eigenvalues from"):
        OutlierPowerLaw.from_sgd(skew, SGD(0.1, noise.Minibatch(4)))
    with pytest.raises(ValueError, match="momentum = 0"):
        OutlierPowerLaw.from_sgd(problem, SGD(0.1, noise.Minibatch(4), momentum=0.5))
    with pytest.raises(ValueError, match="with replacement"):
        OutlierPowerLaw.from_sgd(problem, SGD(0.1, noise.Minibatch(4, "without_replacement")))
