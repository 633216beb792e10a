import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws.loss_noise.multiplicative_walk import (
    LogMultiplicativeWalk,
    batch_curvature,
    collapse_window,
    moment_threshold,
    momentum_growth_rate,
)
from statsgd.problems import population_risk

MAXIMUM = [1.0, -1.2]  # E h = −0.1


@pytest.mark.parametrize(("a", "window"), [(-0.2, (0.1666667, 1.3770146)), (-1, (0.5, 1.2807764))])
def test_collapse_window(a, window):
    assert_allclose(collapse_window(a), window, atol=5.1e-8)
    # Λ vanishes at both ends
    for edge in collapse_window(a):
        assert_allclose(LogMultiplicativeWalk([1.0, a - 1], edge, 1).growth_rate(), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("learning_rate", "rate"),
    [(0.3, -0.024595), (0.5, -0.111572), (0.9, -0.785109), (1.4, 0.034763)],
)
def test_growth_rate(learning_rate, rate):
    law = LogMultiplicativeWalk(MAXIMUM, learning_rate, 10)
    assert_allclose(law.growth_rate(), rate, atol=5.1e-7)


def test_moments_grow_as_their_mean_factor():
    # 16 000 walks of three steps: E w⁴ = (E(1 − ηh)⁴)³, h = 1, −1.2; errors of 2 %.
    law = LogMultiplicativeWalk(MAXIMUM, 0.5, 3)
    assert law.moment_growth_rate(4) == pytest.approx(np.log((0.5**4 + 1.6**4) / 2))
    factors = np.random.default_rng(0).choice([0.5, 1.6], (16_000, 3))
    fourth = np.prod(factors, axis=1) ** 4
    error = fourth.std() / np.sqrt(16_000)
    assert abs(fourth.mean() - np.exp(3 * law.moment_growth_rate(4))) < 4 * error
    # Small orders decay where w → 0 in probability.
    assert law.moment_growth_rate(0.1) < 0 < law.moment_growth_rate(1)
    assert LogMultiplicativeWalk([1.0], 1.0, 3).moment_growth_rate(2) == -np.inf


def test_moment_thresholds():
    # Second moments: 2 E h/E h². Fourth: the positive root of the cubic (E(1 − ηh)⁴ − 1)/η.
    h, weights = np.array([0.2, 1.0, 3.0]), np.array([0.5, 0.3, 0.2])
    powers = [weights @ h**k for k in range(5)]
    found = moment_threshold(h, 2, probabilities=weights)
    assert found == pytest.approx(2 * powers[1] / powers[2], rel=1e-12)
    roots = np.roots([powers[4], -4 * powers[3], 6 * powers[2], -4 * powers[1]])
    (expected,) = roots[np.abs(roots.imag) < 1e-12].real
    fourth = moment_threshold(h, 4, probabilities=weights)
    assert fourth == pytest.approx(expected, rel=1e-10)
    assert fourth < found
    law = LogMultiplicativeWalk(h, fourth, 1, probabilities=weights)
    assert law.moment_growth_rate(4) == pytest.approx(0, abs=1e-9)
    assert moment_threshold([0.5], 4, weight_decay=0.5) == pytest.approx(2)
    assert moment_threshold(MAXIMUM, 2) == 0


@pytest.mark.parametrize(
    ("batch_size", "rate"),
    [(1, -0.11157), (2, -0.03139), (3, -0.00291), (4, 0.01098), (8, 0.03074)],
)
def test_larger_batches_remove_the_collapse(batch_size, rate):
    law = LogMultiplicativeWalk.of_batches(MAXIMUM, 0.5, 10, batch_size)
    assert_allclose(law.growth_rate(), rate, atol=5.1e-6)


def test_weight_decay_and_sharp_against_flat():
    rate = LogMultiplicativeWalk(MAXIMUM, 0.3, 10, weight_decay=0.1).growth_rate()
    assert_allclose(rate, -0.057649, atol=5.1e-7)
    flat = LogMultiplicativeWalk([-2.0, 3.0], 0.6, 10).growth_rate()
    assert_allclose(flat, 0.28266, atol=5.1e-6)
    assert_allclose(np.log(abs(1 - 0.6 * 1.5)), -2.30259, atol=5.1e-6)


def test_probability_of_collapse():
    law = LogMultiplicativeWalk(MAXIMUM, 0.5, 100)
    assert_allclose(law.probability_below(1e-3), 0.7675, atol=5.1e-5)  # Φ((ln e − kΛ)/√(kV))


def test_batches_without_replacement_are_subsets():
    h = np.array([1.0, 1.0, -0.5, 2.0])
    values = [np.mean(h[list(pair)]) for pair in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]]
    batches = batch_curvature(h, 2, "without_replacement")
    assert_allclose(batches.probabilities.sum(), 1)
    assert_allclose(batches.values @ batches.probabilities, np.mean(values))
    assert_allclose(batches.values**2 @ batches.probabilities, np.mean(np.square(values)))
    drawn = batch_curvature(h, 3)
    assert_allclose(drawn.probabilities.sum(), 1)
    spread = drawn.values**2 @ drawn.probabilities - np.mean(h) ** 2
    assert_allclose(spread, np.var(h) / 3)


def test_momentum():
    # Simulated −0.0736 ± 0.0010 at η = 0.25, β = 0.5; without momentum Λ is known.
    estimate = momentum_growth_rate(MAXIMUM, 0.25, 0.5, steps=1000, seed=0)
    assert abs(estimate.rate + 0.0736) < 4 * np.hypot(estimate.standard_error, 0.0010)
    plain = momentum_growth_rate(MAXIMUM, 0.5, 0.0, steps=1000, seed=1)
    assert abs(plain.rate + 0.111572) < 4 * plain.standard_error


@pytest.mark.slow
def test_sgd_collapses_onto_a_maximum():
    # 4000 chains, 100 steps: mean of log|w|/k within 4√(V/(kN)).
    def draw_curvature(key):
        return jax.numpy.where(jax.random.bernoulli(key), MAXIMUM[0], MAXIMUM[1])

    problem = population_risk(lambda p, h: h * p[0] ** 2 / 2, draw_curvature, np.ones(1))
    sgd = SGD(0.5, noise.Minibatch(1, "fresh"))
    runs = simulate(problem, sgd, steps=100, replicas=4000, seed=0, progress=False)
    logs = np.log(np.abs(runs["endpoints"]["params"].values[:, 0]))
    law = LogMultiplicativeWalk(MAXIMUM, 0.5, 100)
    assert abs(logs.mean() - law.mean()[0]) < 4 * np.sqrt(law.covariance()[0, 0] / 4000)
    assert_allclose(logs.var(), law.covariance()[0, 0], rtol=4 * np.sqrt(2 / 4000))
    assert abs(np.mean(logs < np.log(1e-3)) - 0.762) < 0.03
    draws = np.asarray(law.draw(jax.random.key(0), (4000,)))[:, 0]
    assert abs(draws.mean() - law.mean()[0]) < 4 * np.sqrt(law.covariance()[0, 0] / 4000)


def test_refusals():
    with pytest.raises(ImproperLawError, match="exact annihilation in one step"):
        LogMultiplicativeWalk(MAXIMUM, 1.0, 10).growth_rate()
    with pytest.raises(ImproperLawError, match="the walk does not spread"):
        LogMultiplicativeWalk([1.0], 0.5, 10).mean()
    with pytest.raises(ValueError, match="probabilities must have shape"):
        LogMultiplicativeWalk(MAXIMUM, 0.5, 10, probabilities=[1.0])
    with pytest.raises(ValueError, match="a must be negative"):
        collapse_window(0.5)
