"""PreconditionedSGLD: the laws with and without the correction, at short and long memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.kernels import PreconditionedSGLD
from tests.kernels.stochastic import walk
from tests.statistical import assert_mean_within

GRID = np.linspace(-12, 12, 200001)


def square(log_density):
    weight = np.exp(log_density - log_density.max())
    return np.sum(weight * GRID**2) / weight.sum()


@pytest.mark.parametrize(
    ("decay", "correction"),
    [
        pytest.param(0.0, False, marks=pytest.mark.slow),
        pytest.param(0.0, True, marks=pytest.mark.slow),
        (0.9, True),
        pytest.param(0.9, False, marks=pytest.mark.slow),
    ],
)
def test_law_with_and_without_the_correction(decay, correction):
    # U = x²/2, G = 1/(κ + |x|): with Γ the law is exp(−U/T), without exp(−U/T)/G.
    temperature, damping = 0.7, 1.0
    kernel = PreconditionedSGLD(
        potential_fn=lambda z: jnp.sum(z["x"] ** 2) / 2,
        step_size=0.02,
        temperature=temperature,
        decay=decay,
        damping=damping,
        correction=correction,
    )
    end = walk(kernel, {"x": np.zeros((20000, 1))}, 600)
    target = -(GRID**2) / (2 * temperature)
    law = target if correction else target + np.log(damping + np.abs(GRID))
    x = np.asarray(end.z["x"][:, 0], float)
    error = 0.03 if decay == 0 else 0.06  # O(h), and the memory of 1/(1−α) steps
    assert abs(np.mean(x**2) / square(law) - 1) < error + 4 * np.sqrt(2 / len(x))
    assert square(target + np.log(damping + np.abs(GRID))) > 1.3 * square(target)


@pytest.mark.slow
def test_long_memory_leaves_the_target_without_the_correction():
    # 1/(1−α) = 2000 steps against a relaxation of about (κ + 1)/h = 40 steps.
    kernel = PreconditionedSGLD(
        potential_fn=lambda z: jnp.sum(z["x"] ** 2) / 2, step_size=0.05, decay=0.9995
    )
    start = np.random.default_rng(0).standard_normal((500, 40))
    end = walk(kernel, {"x": start}, 4000)
    # Bias of Euler's scheme hG/2 with G ≈ ½: 1.2 %.
    assert_mean_within(np.mean(np.asarray(end.z["x"], float) ** 2, axis=1), 1 / (1 - 0.0125))


def test_probe_is_unbiased_for_the_diagonal_of_the_hessian():
    from statsgd.kernels.preconditioned_sgld import curvature, init

    matrix = jnp.array([[2.0, 0.8], [0.8, 1.0]])

    def potential(z):
        return z @ matrix @ z / 2

    state = init(jnp.ones(2), potential, {})
    keys = jax.random.split(jax.random.key(0), 4000)
    probes = jax.vmap(lambda key: curvature(key, state, potential))(keys)
    assert_mean_within(np.asarray(probes), np.array([2.0, 1.0]))


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        PreconditionedSGLD(decay=1.0)
    with pytest.raises(ValueError, match="damping must be positive"):
        PreconditionedSGLD(damping=0.0)
    with pytest.raises(ValueError, match="preconditioner must be left out"):
        PreconditionedSGLD(preconditioner=2.0)
