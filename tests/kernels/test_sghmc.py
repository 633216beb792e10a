"""SGHMC: its stationary covariance against the Lyapunov equation of its discrete chain."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import SGHMC
from tests.kernels.stochastic import mean_problem, normal_scores, walk
from tests.statistical import assert_mean_within, assert_variance_within


def lyapunov(h, friction, curvature, noise, temperature, mass=1.0):
    """Covariance of (x, v): v' = (1−hζ)v − hP(λx + ξ) + √(2hζTP) n, x' = x + hv'."""
    keep = 1 - h * friction
    matrix = np.array([[1 - h**2 * mass * curvature, h * keep], [-h * mass * curvature, keep]])
    entry = np.array([h, 1.0])
    driven = (h * mass) ** 2 * noise + 2 * h * friction * temperature * mass
    return solve_discrete_lyapunov(matrix, driven * np.outer(entry, entry))


def test_closed_form_solves_the_lyapunov_equation():
    h, friction, curvature, noise, temperature = 0.3, 1.7, 2.5, 4.0, 0.6
    beta = 1 - h * friction
    heat = temperature + h * noise / (2 * friction)
    stiff = 2 * (1 + beta) - h**2 * curvature
    solved = lyapunov(h, friction, curvature, noise, temperature)
    np.testing.assert_allclose(solved[0, 0], heat * 2 * (1 + beta) / (curvature * stiff))
    np.testing.assert_allclose(solved[1, 1], heat * 4 / stiff)


def test_covariance_with_minibatch_noise():
    # N = 10, S = 2, population variance 1: λ = 10, C = N²/S = 50, additive; P = .5, T = .8.
    problem = mean_problem(normal_scores(10, 0))
    h, friction, mass, temperature = 0.15, 2.0, 0.5, 0.8
    kernel = SGHMC.from_problem(
        problem,
        Minibatch(2),
        step_size=h,
        friction=friction,
        preconditioner=mass,
        temperature=temperature,
    )
    expected = lyapunov(h, friction, 10.0, 50.0, temperature, mass)
    # The minibatches' share of the heat is a factor, not a detail.
    assert expected[0, 0] > 1.5 * temperature / 10
    end = walk(kernel, {"x": np.zeros(20000)}, 80)
    x, v = np.asarray(end.z["x"], float), np.asarray(end.core.velocity["x"], float)
    assert_variance_within(x, expected[0, 0])
    assert_variance_within(v, expected[1, 1])
    assert_mean_within(x * v, expected[0, 1], resolve=2.0)


@pytest.mark.usefixtures("unchecked")
def test_bad_friction_is_named():
    for friction in (0.0, -1.0):
        with pytest.raises(ValueError, match="friction must be positive"):
            SGHMC(friction=friction)
    with pytest.raises(ValueError, match="step_size\\*friction must be below 2, got 3"):
        SGHMC(step_size=0.5, friction=6.0)


@pytest.mark.slow
def test_plain_potential_at_small_steps_has_the_law():
    # Exact gradients: Var x = T/λ to O(h²) here, from the closed form with C = 0.
    kernel = SGHMC(potential_fn=lambda z: jnp.sum(z**2), step_size=0.1, friction=1.5)
    end = walk(kernel, np.zeros((10000, 2)), 100)
    assert_variance_within(end.z[:, 0], lyapunov(0.1, 1.5, 2.0, 0.0, 1.0)[0, 0])
