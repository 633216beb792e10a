import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise
from statsgd.laws import HeavyBallGaussian, LinearRegressionGaussian
from statsgd.laws.minimum import crossover_curvature
from statsgd.laws.networks import (
    log_loss_flatness,
    two_layer_linear_covariance,
    variance_flatness_exponent,
    window_variance,
)
from statsgd.problems import linear_regression


@pytest.mark.parametrize(
    ("statistic", "exponent"), [("white", 0.0), ("average", 1.971), ("end", 3.999)]
)
def test_exponents_for_noise_like_the_curvature(statistic, exponent):
    # C = H, η = .1, M = 200, β = 0, h = h_cross/50.
    h = crossover_curvature(0.1, 200) / 50
    value = variance_flatness_exponent(h, 0.1, 200, statistic=statistic)
    np.testing.assert_allclose(value, exponent, atol=6e-4)


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize(
    ("statistic", "beta", "flat"), [("average", 0.0, 0), ("end", 0.0, 2), ("end", 0.9, 0)]
)
def test_table_of_exponents(p, statistic, beta, flat):
    # Flat: 2p, 2(p+1), 2p below the floor of momentum; steep: 2(p−1).
    exponent = {"noise_exponent": p, "statistic": statistic}
    low = variance_flatness_exponent(1e-6, 0.05, 100, beta, **exponent)
    np.testing.assert_allclose(low, 2 * p + flat, atol=0.01)
    high = variance_flatness_exponent(1.0, 0.02, 5000, **exponent)  # off by 4/s = .04
    np.testing.assert_allclose(high, 2 * (p - 1), atol=0.07)


def test_flatness_of_the_log_loss():
    # F = 2√(2(e−1)L₀/h)
    np.testing.assert_allclose(log_loss_flatness(0.01, 2), 0.262166, atol=5e-7)
    x = log_loss_flatness(0.01, 2) / 2
    np.testing.assert_allclose(np.log(0.01 + x**2) - np.log(0.01), 1)


def test_window_variance():
    np.testing.assert_allclose(window_variance(0.05, 1, 0.1, 400), 0.434093, atol=5e-7)
    full = HeavyBallGaussian([[0.05]], [[1.0]], 0.1).covariance()[0, 0]
    np.testing.assert_allclose(full, 1.002506, atol=5e-7)
    np.testing.assert_allclose(window_variance(0.05, 1, 0.1, 10**7), full, rtol=1e-4)
    np.testing.assert_allclose(window_variance(1e-5, 1, 0.1, 100), 0.01 * 100 / 6, rtol=1e-3)
    with pytest.raises(ImproperLawError):
        window_variance(30.0, 1, 0.1, 10)


def test_window_variance_by_simulation():
    # 4000 windows: standard error 1 %.
    rng, h, eta, t = np.random.default_rng(0), 0.2, 0.1, 100
    x = rng.normal(size=4000) * np.sqrt(eta / (h * (2 - eta * h)))
    path = []
    for _ in range(t):
        x = x - eta * (h * x + rng.normal(size=4000))
        path.append(x)
    measured = np.var(path, axis=0)
    error = measured.std() / np.sqrt(4000)
    assert abs(measured.mean() - window_variance(h, 1, eta, t)) < 4 * error


def test_two_layers():
    # Balanced, s = (2, 1, .5, .25): Var δW₂,ij = T s_j/(s_i + s_j), T = ηs₂/(2S).
    s = np.array([2, 1, 0.5, 0.25])
    law = two_layer_linear_covariance(np.sqrt(s), np.sqrt(s), 0.01, 0.04, 4)
    np.testing.assert_allclose(law.temperature, 5e-5)
    shares = law.output.mean(0) / law.temperature
    np.testing.assert_allclose(shares, [0.7139, 0.5750, 0.4250, 0.2861], atol=5e-5)
    slope = np.polyfit(np.log(s), np.log(shares), 1)[0]
    np.testing.assert_allclose(slope, 0.439, atol=5e-4)
    # The covariance of a pair is T times a projector.
    np.testing.assert_allclose(law.output + law.input, law.temperature)
    np.testing.assert_allclose(law.output * law.input, law.cross**2)


def test_two_layers_by_simulation():
    # One pair, ½(w₂w₁x − y)² about w₂ = w₁ = 1 with x = ±1 and labels ± .2: the variance across
    # the valley, read along (w₁, w₂)/√2, is T. 20 000 runs: standard error 1 %.
    rng, eta, runs = np.random.default_rng(1), 0.02, 20_000
    w1, w2 = np.full(runs, 1.2), np.full(runs, 1 / 1.2)
    for _ in range(300):
        g = w1 * w2 - 1 - 0.2 * rng.choice([-1, 1], runs)
        w1, w2 = w1 - eta * g * w2, w2 - eta * g * w1
    across = (w1 * w2 - 1) / np.hypot(1.2, 1 / 1.2)
    law = two_layer_linear_covariance([1 / 1.2], [1.2], eta, 0.04, 1)
    np.testing.assert_allclose(across.var(), law.temperature, rtol=0.06)


@pytest.mark.parametrize(
    ("sampling", "variance"),
    [("with_replacement", 1.190885e-2), ("without_replacement", 9.464236e-3)],
)
def test_tiny_least_squares(sampling, variance):
    # P = (1−ηh)²P + η²φ{E x⁴ P − h²P + C₀}, six examples, η = .1, S = 2.
    x, y = np.array([1, -1, 2, 0.5, -0.5, 1.5]), np.array([1.0, 0, 1, 1, -1, 2])
    problem = linear_regression(x[:, None], y)
    law = LinearRegressionGaussian.from_sgd(problem, SGD(0.1, noise.Minibatch(2, sampling)))
    np.testing.assert_allclose(law.mean(), 0.8, rtol=1e-6)
    np.testing.assert_allclose(law.covariance(), variance, rtol=1e-6)


def test_least_squares_with_fresh_gaussian_inputs():
    # A p = (η/S) s₂ h, A = diag(2h − ηh² − (η/S)h²) − (η/S) h hᵀ.
    law = LinearRegressionGaussian.gaussian_inputs(np.eye(5), 1.0, 1, 0.1)
    np.testing.assert_allclose(np.diagonal(law.covariance()), 0.0769231, atol=5e-8)
    law = LinearRegressionGaussian.gaussian_inputs(np.diag([2, 1, 0.1]), 1.0, 2, 0.05)
    np.testing.assert_allclose(
        np.diagonal(law.covariance()), [0.0140952, 0.0135460, 0.0130871], atol=6e-8
    )


@pytest.mark.parametrize(
    ("sampling", "c"), [("with_replacement", 0.1), ("without_replacement", 0.0954774)]
)
def test_noise_of_a_batch(sampling, c):
    # Σ₁ = 1, N = 200, S = 10.
    problem = linear_regression(np.ones((200, 1)), np.tile([1.0, -1.0], 100))
    value = noise.Minibatch(10, sampling).covariance(problem, np.zeros(1))
    np.testing.assert_allclose(value, c, rtol=1e-6, atol=5e-8)
