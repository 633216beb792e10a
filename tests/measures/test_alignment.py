"""Alignment of noise with curvature against known values, bounds, and one real step of SGD."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import (
    alignment_coefficient,
    alignment_range,
    gaussian_loss_scaled_alignment,
    isotropic_ratio,
    isotropic_ratio_bound,
    loss_scaled_alignment,
    output_gradients,
)
from statsgd.measures.noise.alignment import AlignmentWarning
from tests.statistical import assert_printed

SHARP = np.diag([10.0, 1.0, 0.1])
FEATURES = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 1.0]])
ORTHOGONAL = np.diag(np.sqrt([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize(
    ("covariance", "ratio", "coefficient"),
    [
        (1.3 * SHARP / 11.1, "2.459459", 1),
        (1.3 / 3 * np.eye(3), "1", 0.37),
        (np.diag([1.3, 0, 0]), "2.702703", 1.11),
    ],
)
def test_ratio_and_coefficient(covariance, ratio, coefficient):
    # d Tr(HC)/(Tr H Tr C), and u₁ᵀCu₁ Tr H/(h₁ Tr C).
    assert_printed(isotropic_ratio(SHARP, covariance), ratio)
    assert alignment_coefficient(SHARP, covariance) == pytest.approx(coefficient, rel=1e-9)


def test_ratio_of_a_pair_that_does_not_commute():
    hessian, covariance = [[3, 1], [1, 2]], [[0.5, -0.2], [-0.2, 1]]
    assert_printed(isotropic_ratio(hessian, covariance), ".826667")
    assert_printed(alignment_coefficient(hessian, covariance), ".423168")


@pytest.mark.parametrize(
    ("dimension", "decay", "trace", "ratio", "bound", "highest"),
    [
        (1000, 0.75, "15.567179", "41.394025", "4.126484", "64.237714"),
        (1000, 1.0, "10.99", "82.803293", "8.279510", "90.991811"),
    ],
)
def test_bound_of_an_ill_conditioned_hessian(dimension, decay, trace, ratio, bound, highest):
    # Ten eigenvalues 1, the rest d^{−ρ}, C = H: ratio ≥ â d h₁²/(Tr H)².
    values = np.full(dimension, dimension**-decay)
    values[:10] = 1
    hessian = np.diag(values)
    assert_printed(values.sum(), trace)
    assert_printed(isotropic_ratio(hessian, hessian), ratio)
    assert_printed(isotropic_ratio_bound(hessian, hessian), bound)
    assert_printed(dimension / values.sum(), highest)


def test_bound_holds_for_random_pairs():
    rng = np.random.default_rng(0)
    for _ in range(300):
        d = rng.integers(2, 7)
        a, b = rng.normal(size=(d, d)), rng.normal(size=(d, rng.integers(1, d + 1)))
        hessian, covariance = a @ a.T, b @ b.T
        assert isotropic_ratio(hessian, covariance) >= (1 - 1e-9) * isotropic_ratio_bound(
            hessian, covariance
        )


def test_bound_warns_of_saddles():
    with pytest.warns(AlignmentWarning, match="assumes H ⪰ 0; min eigenvalue -0.1"):
        isotropic_ratio_bound(np.diag([1.0, -0.1]), np.eye(2))


def test_loss_scaled_alignment():
    residuals = FEATURES @ [1.0, -1.0]
    found = loss_scaled_alignment(FEATURES, residuals)
    for value, text in zip(found, (".7333333", ".9742943", ".7526816"), strict=True):
        assert_printed(value, text)
    lowest, highest = alignment_range(FEATURES)
    assert_printed(lowest, ".4222222")
    assert_printed(highest, ".8888889")
    assert lowest <= found.factor <= highest
    np.testing.assert_allclose(alignment_range(ORTHOGONAL), (0.1, 1.6), rtol=1e-12)
    assert_printed(
        gaussian_loss_scaled_alignment(np.diag([4, 1, 0.25]), [1.0, -2.0, 3.0]), "1.3896185"
    )


@pytest.mark.parametrize(("size", "printed"), [(1, ".73125"), (2, ".68484375")])
def test_mean_loss_after_one_step(size, printed):
    # L(θ − η∇L) + η² b μ ‖G‖² L, against all batches with replacement.
    theta, rate = np.array([1.0, -1.0]), 0.2
    residuals = FEATURES @ theta
    losses = []
    for batch in itertools.product(range(4), repeat=size):
        gradient = np.mean([residuals[i] * FEATURES[i] for i in batch], axis=0)
        losses.append(0.5 * np.mean((FEATURES @ (theta - rate * gradient)) ** 2))
    curvature = FEATURES.T @ FEATURES / 4
    assert_printed(np.linalg.norm(curvature), "1.6770510")
    descended = theta - rate * curvature @ theta
    factor = loss_scaled_alignment(FEATURES, residuals).factor
    predicted = 0.5 * descended @ curvature @ descended
    predicted += rate**2 / size * factor * np.sum(curvature**2) * 0.5 * np.mean(residuals**2)
    assert np.mean(losses) == pytest.approx(predicted, rel=1e-12)
    assert_printed(predicted, printed)


def test_output_gradients_of_any_model():
    problem = problems.linear_regression(FEATURES, np.zeros(4))
    found = output_gradients(problem, lambda theta, example: jnp.dot(example[0], theta), np.ones(2))
    np.testing.assert_allclose(found, FEATURES)


def test_refusals(unchecked):
    with pytest.raises(ValueError, match="the trace of noise_covariance must be"):
        isotropic_ratio(np.eye(2), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="undefined at an exact interpolating point"):
        loss_scaled_alignment(FEATURES, np.zeros(4))
    with pytest.raises(ValueError, match="must not all vanish"):
        alignment_range(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="residuals must have shape"):
        loss_scaled_alignment(FEATURES, np.zeros(3))
