import itertools

import numpy as np
import pytest

from statsgd import ImproperLawError
from statsgd.laws import EpochNoiseGaussian
from statsgd.laws.minimum import (
    crossover_curvature,
    reshuffle_effective_loss,
    reshuffle_mean_shift,
    single_shuffle_variance,
)
from statsgd.laws.minimum.reshuffling import momentum_shift_factor
from statsgd.problems import linear_regression, minimise

XQ = np.array([[1, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])
YQ = np.array([1, -1, 0.5, 2, 0, -1.5])
Q = linear_regression(XQ, YQ)
X6, Y6 = np.array([1, -1, 2, 0.5, -0.5, 1.5]), np.array([1.0, 0, 1, 1, -1, 2])


def epoch_maps(x, y, size, eta):
    """The affine map θ → Aθ + b of one epoch, for every order of the examples."""
    d = x.shape[1]
    for order in itertools.permutations(range(len(y))):
        a, b = np.eye(d), np.zeros(d)
        for start in range(0, len(y), size):
            batch = list(order[start : start + size])
            h = x[batch].T @ x[batch] / size
            g = x[batch].T @ y[batch] / size
            step = np.eye(d) - eta * h
            a, b = step @ a, step @ b + eta * g
        yield a, b


def epoch_end_mean(x, y, size, eta):
    maps = list(epoch_maps(x, y, size, eta))
    a, b = np.mean([m[0] for m in maps], 0), np.mean([m[1] for m in maps], 0)
    return np.linalg.solve(np.eye(x.shape[1]) - a, b)


@pytest.mark.parametrize(
    ("eta", "h", "beta", "batches", "variance"),
    [
        (0.1, 1, 0, 20, 1.810562e-2),
        (0.1, 0.1, 0, 20, 1.766455e-2),
        (0.02, 0.5, 0.9, 20, 5.823479e-3),
        (0.05, 0.3, 0.5, 7, 2.169282e-3),
    ],
)
def test_one_fixed_permutation(eta, h, beta, batches, variance):
    # c (M/(M−1)) Σ_l A_l (1+r_l^M)/(1−r_l^M) − c/((M−1)h²)
    value = single_shuffle_variance(h, 1.0, eta, batches, beta)
    np.testing.assert_allclose(value, variance, rtol=3e-7)


def test_one_fixed_permutation_by_enumeration():
    # The periodic orbit of x ← (1−ηh)x − ηξ, over all orders of five noise values.
    values, eta, h = np.array([1.0, -2, 0.5, 1.5, -1]), 0.2, 0.7
    a, m = 1 - eta * h, len(values)
    weights = -eta * a ** np.arange(m - 1, -1, -1)
    orbit = [weights @ np.array(p) / (1 - a**m) for p in itertools.permutations(values)]
    exact = single_shuffle_variance([h, h], np.mean(values**2), eta, m)
    np.testing.assert_allclose(exact, np.var(orbit), rtol=1e-10)
    flat = single_shuffle_variance(1e-4, 1.0, 0.1, 30)
    np.testing.assert_allclose(flat, 0.01 * 31 / 12, rtol=1e-4)
    with pytest.raises(ImproperLawError):
        single_shuffle_variance(30.0, 1.0, 0.1, 30)


def test_crossover_curvature():
    np.testing.assert_allclose(crossover_curvature(0.1, 1200), 0.0249792, atol=5e-8)


@pytest.mark.parametrize(
    ("size", "eta", "minimum", "exact"),
    [
        (2, 0.1, (0.606215498, -0.721682987), (0.606328364, -0.722539886)),
        (1, 0.05, (0.606349031, -0.722997795), (0.606446200, -0.723981864)),
    ],
)
def test_effective_loss(size, eta, minimum, exact):
    found = minimise(reshuffle_effective_loss(Q, eta, size)).params
    np.testing.assert_allclose(found, minimum, atol=6e-9)
    if size == 2:
        np.testing.assert_allclose(epoch_end_mean(XQ, YQ, size, eta), exact, atol=6e-10)
    # Right to O(η²): the residual in θ₂ is about −.086 η² at S = 2.
    np.testing.assert_allclose(found, exact, atol=0.4 * eta**2)
    off = np.asarray(Q.minimiser()) - exact
    assert abs(off[1]) > 4 * abs(found[1] - exact[1])


@pytest.mark.slow
def test_effective_loss_is_second_order():
    residual = [
        minimise(reshuffle_effective_loss(Q, eta, 2)).params - epoch_end_mean(XQ, YQ, 2, eta)
        for eta in (0.1, 0.05)
    ]
    np.testing.assert_allclose(residual[0][1] / residual[1][1], 4, rtol=0.2)


def test_epoch_end_covariance_of_data():
    # Exact second moment over all orders; the additive law is its order in η.
    eta, size = 0.1, 2
    maps = list(epoch_maps(XQ, YQ, size, eta))
    mean = epoch_end_mean(XQ, YQ, size, eta)
    kron = np.mean([np.kron(a, a) for a, _ in maps], 0)
    shifts = [a @ mean + b - mean for a, b in maps]
    source = np.mean([np.outer(s, s) for s in shifts], 0)
    exact = np.linalg.solve(np.eye(4) - kron, source.ravel()).reshape(2, 2)
    np.testing.assert_allclose(
        [exact[0, 0], exact[0, 1], exact[1, 1]],
        [9.790897e-5, -1.150805e-5, 7.688959e-5],
        rtol=3e-7,
    )
    gradients = (XQ @ Q.minimiser() - YQ)[:, None] * XQ
    c = np.cov(gradients.T, bias=True) * 4 / (2 * 5)
    law = EpochNoiseGaussian(Q.hessian_matrix(), c, eta, 3)
    assert np.all(np.abs(np.diagonal(law.covariance()) / np.diagonal(exact) - 1) < 0.35)


@pytest.mark.parametrize(
    ("beta", "shift"), [(0.0, (0.00578829, -0.05352492)), (0.5, (0.00675301, -0.06244574))]
)
def test_mean_shift(beta, shift):
    per_rate = reshuffle_mean_shift(Q, Q.minimiser(), 1.0, 2, beta)
    np.testing.assert_allclose(per_rate, shift, atol=6e-9)


def test_mean_shift_of_a_tiny_data_set():
    # −(η/2) H⁻¹ Q with Q = .17; all orders of the six examples give −6.235007e-3.
    problem = linear_regression(X6[:, None], Y6)
    shift = reshuffle_mean_shift(problem, problem.minimiser(), 0.1, 2)
    np.testing.assert_allclose(shift, -5.829e-3, atol=5e-7)
    np.testing.assert_allclose(shift, -0.1 / 2 * 0.17 / 1.4583333, rtol=1e-6)
    maps = list(epoch_maps(X6[:, None], Y6, 2, 0.1))
    a, b = (np.array([m[i].item() for m in maps]) for i in (0, 1))
    b = b + (a - 1) * 0.8  # about w* = .8
    mean = b.mean() / (1 - a.mean())
    square = (np.mean(b**2) + 2 * np.mean(a * b) * mean) / (1 - np.mean(a**2))
    np.testing.assert_allclose(mean, -6.235007e-3, rtol=3e-7)
    np.testing.assert_allclose(square, 2.908262e-4, rtol=3e-7)
    np.testing.assert_allclose(square - mean**2, 2.519509e-4, rtol=3e-7)


def test_momentum_factor():
    np.testing.assert_allclose(momentum_shift_factor(3, 0.5), 1.16666667, atol=5e-9)
    assert momentum_shift_factor(2, 0.7) == pytest.approx(1)
    assert momentum_shift_factor(5000, 0.9) == pytest.approx(10, rel=0.01)


def test_weight_decay_belongs_to_every_batch():
    # With λ the shift is that of the regularised problem: H + λI, and Σ₁ at its own minimum.
    decay, eta = 0.2, 1e-3
    at = Q.minimiser(decay)
    shift = reshuffle_mean_shift(Q, at, eta, 2, weight_decay=decay)
    found = minimise(reshuffle_effective_loss(Q, eta, 2, decay)).params
    np.testing.assert_allclose(found - at, shift, rtol=0.01)


def test_a_single_batch_shifts_nothing():
    np.testing.assert_array_equal(reshuffle_mean_shift(Q, Q.minimiser(), 0.1, 6, 0.5), [0.0, 0.0])
    found = minimise(reshuffle_effective_loss(Q, 0.1, 6)).params
    np.testing.assert_allclose(found, Q.minimiser(), rtol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="needs S"):
        reshuffle_mean_shift(Q, Q.minimiser(), 0.1, 4)
    with pytest.raises(ValueError, match="batch_size must be at most"):
        reshuffle_effective_loss(Q, 0.1, 7)
