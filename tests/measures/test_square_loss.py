"""Residual measures of any model against the matrix formulas on its output gradients."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import (
    loss_scaled_alignment,
    mean_square_threshold,
    output_gradients,
    over_replicas,
    square_loss_alignment,
    square_loss_stability,
    stability_bounds,
)
from tests.measures.problem_cases import PARAMS, interpolating, network, output, residual

FEATURES = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 1.0]])


def linear_residual(params, example):
    return jnp.dot(example[0], params) - example[1]


def test_alignment_over_replicas_is_that_of_each():
    problem = problems.linear_regression(FEATURES, np.zeros(4))
    points = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 0.0]])
    found = over_replicas(square_loss_alignment, problem, points, residual=linear_residual)
    for i in (0, 1):
        expected = loss_scaled_alignment(FEATURES, FEATURES @ points[i])
        np.testing.assert_allclose([part[i] for part in found], expected, rtol=1e-10)
    assert not np.isfinite(found.factor[2])
    with pytest.raises(ValueError, match="undefined at an exact interpolating point"):
        square_loss_alignment(problem, points[2], linear_residual)


def test_alignment_of_a_network():
    problem = network()
    gradients = output_gradients(problem, output, PARAMS)
    errors = output_gradients(problem, residual, PARAMS)
    np.testing.assert_allclose(gradients, errors)
    x, y = problem.examples
    e = np.tanh(x @ PARAMS["hidden"] + PARAMS["bias"]) @ PARAMS["out"] - y
    np.testing.assert_allclose(
        square_loss_alignment(problem, PARAMS, residual),
        loss_scaled_alignment(gradients, e),
        rtol=1e-6,
    )


def test_stability_over_replicas_is_that_of_each():
    problem, sampling = interpolating(), "without_replacement"
    shifted = {name: np.stack([PARAMS[name], PARAMS[name] + 0.3]) for name in PARAMS}
    found = over_replicas(
        square_loss_stability, problem, shifted, residual=residual, batch_size=2, sampling=sampling
    )
    assert found.largest_residual[0] < 1e-6 < found.largest_residual[1]
    for i in range(2):
        at = {name: shifted[name][i] for name in PARAMS}
        gradients = output_gradients(problem, output, at)
        assert found.threshold[i] == pytest.approx(
            mean_square_threshold(gradients, 2, sampling), rel=1e-5
        )
        bounds = stability_bounds(gradients, 2, sampling)
        expected = (bounds.isotropic, bounds.trace, bounds.full_batch)
        given = (found.isotropic[i], found.trace[i], found.full_batch[i])
        assert given == pytest.approx(expected, rel=1e-5)


def test_stability_ignores_directions_without_curvature():
    wide = np.concatenate([FEATURES, np.zeros((4, 3))], axis=1)
    problem = problems.linear_regression(wide, np.zeros(4))
    found = square_loss_stability(problem, np.zeros(5), linear_residual, 1)
    assert found.threshold == pytest.approx(0.64401005, rel=1e-7)
    with pytest.raises(ValueError, match="does not cover sampling='reshuffle'"):
        square_loss_stability(problem, np.zeros(5), linear_residual, 1, "reshuffle")
