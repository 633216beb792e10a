"""Widths, volumes and tube means against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

from statsgd import problems
from statsgd.laws.loss_noise import flatness_weight
from statsgd.laws.networks import log_loss_flatness
from statsgd.measures import basin_volume, flatness_width, over_replicas, top_eigenpairs, tube_mean
from tests.statistical import assert_printed

CURVATURES = np.array([1.0, 4.0, 9.0])


def above(curvatures, floor):
    """A quadratic over a positive floor."""
    h = np.asarray(curvatures)
    return problems.landscape(lambda x: floor + 0.5 * jnp.sum(h * x**2), np.zeros(len(h)))


def test_width_of_a_quadratic():
    # 2√(2(e−1)L₀/h): .262166 at L₀ = .01, h = 2.
    found = flatness_width(above([2.0, 8.0], 0.01), np.zeros(2), np.eye(2))
    assert_printed(found.width[0], ".262166")
    np.testing.assert_allclose(found.width, log_loss_flatness(0.01, np.array([2.0, 8.0])))
    np.testing.assert_allclose(found.left, found.right)
    # Along the eigenvectors of each point's own Hessian, sharpest first.
    tilted = problems.landscape(
        lambda x: 0.01 + (x[0] + x[1]) ** 2 / 2 + 2 * (x[0] - x[1]) ** 2, np.zeros(2)
    )  # curvatures 2 and 8
    own = over_replicas(
        flatness_width,
        tilted,
        np.zeros((2, 2)),
        directions=lambda params: top_eigenpairs(tilted, params, 2).vectors,
    )
    np.testing.assert_allclose(own.width, np.stack([found.width[::-1]] * 2), rtol=1e-9)


def test_width_on_either_side():
    # L = 1 + (e−1)t for t > 0, 1 for −2 < t < 0, infinite beyond: right 1, left 2; y never rises.
    def loss(x):
        wall = jnp.where(x[0] < -2, jnp.nan, 0.0)
        return 1 + (np.e - 1) * jnp.maximum(x[0], 0.0) + wall

    found = flatness_width(problems.landscape(loss, np.zeros(2)), np.zeros(2), np.eye(2))
    assert (found.left[0], found.right[0]) == pytest.approx((2, 1))
    assert np.isinf(found.width[1])


def test_volume_of_a_quadratic():
    # |ball| (2s)^(d/2) det(H)^(−1/2); exactly so along rays scaled by H^(−1/2).
    d, rise = 3, 0.5
    expected = d / 2 * np.log(2 * np.pi * rise) - gammaln(d / 2 + 1) - np.log(CURVATURES).sum() / 2
    problem = above(CURVATURES, 0.0)
    exact = basin_volume(problem, np.zeros(3), rise, directions=4, shape=np.diag(CURVATURES**-0.5))
    assert exact[:2] == pytest.approx((expected, 0), abs=1e-9)
    found = basin_volume(problem, np.zeros(3), rise, directions=8000)
    assert 4 * found.standard_error < 0.1
    assert abs(found.value - expected) < 4 * found.standard_error


@pytest.mark.parametrize(
    ("curvatures", "exponent", "distance", "printed"),
    [((1, 4, 9), 0.5, 0.3, "0.5086446"), ((1, 8, 8), 1.0, 0.0, "0.2271777")],
)
def test_tube_mean_of_a_quadratic(curvatures, exponent, distance, printed):
    # A_α(H), at any distance; from products at distance zero.
    found = tube_mean(
        above(curvatures, 0.0),
        np.zeros(3),
        exponent,
        distance,
        normals=np.eye(3),
        samples=8192,
        seed=2,
    )
    assert 4 * found.standard_error < 0.1 * found.value
    assert abs(found.value - float(printed)) < 4 * found.standard_error
    assert_printed(flatness_weight(curvatures, exponent), printed)


def test_tube_around_a_circle_of_minima():
    # L = (|θ|²−1)²/8 at |θ| = 1 ± δ: 2(L)/δ² = (1 ± δ/2)², one normal direction at each point.
    ring = problems.landscape(lambda x: (x @ x - 1) ** 2 / 8, np.array([1.0, 0.0]))
    angles = np.linspace(0, 6, 5)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    options = {"exponent": 0.4, "distance": 0.2, "samples": 4}
    declared = over_replicas(
        tube_mean, ring, points, normals=lambda params: params[None], **options
    )
    expected = (0.9**-0.8 + 1.1**-0.8) / 2
    np.testing.assert_allclose(declared.value, expected, rtol=1e-9)
    sharpest = over_replicas(tube_mean, ring, points, codimension=1, **options)
    np.testing.assert_allclose(sharpest.value, expected, rtol=1e-9)


def test_refusals(unchecked):
    problem = above(CURVATURES, 0.0)
    with pytest.raises(ValueError, match="loss at params must be positive, got 0"):
        flatness_width(problem, np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="exactly one of normals and codimension"):
        tube_mean(problem, np.zeros(3), 0.5, 0.1)
    with pytest.raises(ValueError, match="normals must be orthonormal"):
        tube_mean(problem, np.zeros(3), 0.5, 0.1, normals=2 * np.eye(3))
    with pytest.raises(ValueError, match="does not rise along a normal"):
        tube_mean(above([1.0, -1.0], 0.0), np.zeros(2), 0.5, 0.1, normals=np.eye(2))
    with pytest.raises(ValueError, match="shape must be a"):
        basin_volume(problem, np.zeros(3), 1.0, shape=np.eye(2))
