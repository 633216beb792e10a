"""Order in the step size of every unadjusted kernel, without noise, off quadratics.

On a circle the functions of position and velocity are trigonometric times Hermite polynomials. How
one step moves such functions, averaged over its noise by Gauss's rule, is a small matrix, made from
the kernel's own step; the law that it keeps is found to ten digits, and so is its bias.
"""

import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.kernels import (
    BAOAB,
    SGHMC,
    SGLD,
    ULA,
    MeanFieldLangevin,
    StateDependentLangevin,
    state_dependent,
)

TEMPERATURE = 0.8
WAVES, HERMITE, NOISE = 16, 14, 20
VELOCITY = (BAOAB, SGHMC)


def potential(x):
    return jnp.sum(jnp.cos(x) + 0.4 * jnp.sin(2 * x))


def diffusion(x):
    return 1.2 + jnp.sin(x)


def functions(x, v):
    """All basis functions at points `(n,)`, `(n, functions)`, the constant one first."""
    waves = np.arange(1, WAVES + 1)
    around = np.concatenate(
        [np.ones((len(x), 1)), np.cos(np.outer(x, waves)), np.sin(np.outer(x, waves))], axis=1
    )
    if v is None:
        return around
    scaled = v / np.sqrt(TEMPERATURE)
    rows = [np.ones_like(v), scaled]
    for n in range(1, HERMITE - 1):
        rows.append((scaled * rows[n] - np.sqrt(n) * rows[n - 1]) / np.sqrt(n + 1))
    return (around[:, :, None] * np.stack(rows, axis=1)[:, None, :]).reshape(len(x), -1)


def stationary_mean(kernel, observable):
    """E of `observable(x)` under the law that the kernel's step keeps."""
    fast = isinstance(kernel, VELOCITY)
    numbers = jax.tree.map(jnp.asarray, kernel.parameters)
    x = 2 * np.pi * np.arange(2 * WAVES + 1) / (2 * WAVES + 1)
    v = np.sqrt(TEMPERATURE) * np.polynomial.hermite_e.hermegauss(HERMITE)[0] if fast else [0.0]
    x, v = (grid.ravel() for grid in np.meshgrid(x, v, indexing="ij"))
    noise, weights = np.polynomial.hermite_e.hermegauss(NOISE)

    def move(x, v, noise):
        state = kernel.core_init(x[None], potential, numbers)
        state = state._replace(velocity=v[None]) if fast else state
        module = sys.modules[kernel.core_step.__module__]
        with mock.patch.object(module, "random_like", return_value=noise[None]):
            moved, _ = kernel.core_step(jax.random.key(0), state, potential, numbers)
        return moved.position[0], moved.velocity[0] if fast else v

    over_noise = jax.vmap(move, (None, None, 0))
    ends = jax.jit(jax.vmap(over_noise, (0, 0, None)))(x, v, noise)
    after = [np.asarray(end).ravel() for end in ends]
    here = functions(x, v if fast else None)
    there = functions(after[0], after[1] if fast else None)
    there = np.einsum("k,nkf->nf", weights / weights.sum(), there.reshape(len(x), NOISE, -1))
    # Weights of the points with which every function keeps its mean, and 1 has the mean 1.
    kept = (there - here).T
    kept[0] = 1.0
    masses = np.linalg.solve(kept, np.eye(len(kept))[0])
    return masses @ observable(x)


def bias(kernel):
    def observable(x):
        return np.cos(x) + 0.5 * np.sin(x) - 0.3 * np.cos(2 * x)

    x = np.linspace(0, 2 * np.pi, 2001)[:-1]
    weight = np.exp(-(np.cos(x) + 0.4 * np.sin(2 * x)) / TEMPERATURE)
    with jax.enable_x64(True):
        found = stationary_mean(kernel, observable)
    return found - np.sum(weight * observable(x)) / weight.sum()


def orders(build, step_size):
    biases = [bias(build(step_size=step_size / 2**k, temperature=TEMPERATURE)) for k in range(3)]
    return np.log2(np.divide(biases[:-1], biases[1:]))


@pytest.mark.parametrize(
    ("kernel", "options", "step_size", "order"),
    [
        (ULA, {}, 0.1, 1),
        pytest.param(SGLD, {}, 0.1, 1, marks=pytest.mark.slow),
        pytest.param(MeanFieldLangevin, {}, 0.1, 1, marks=pytest.mark.slow),
        (StateDependentLangevin, {"diffusion": diffusion}, 0.02, 1),
        (BAOAB, {"friction": 1.5}, 0.5, 2),
        # With the exact gradient positions are those of the BBK integrator.
        (SGHMC, {"friction": 1.5}, 0.2, 2),
    ],
)
def test_bias_falls_with_the_stated_power_of_the_step(kernel, options, step_size, order):
    first, second = orders(lambda **numbers: kernel(**options, **numbers), step_size)
    assert abs(second - order) < 0.1
    assert abs(second - order) < max(abs(first - order), 0.02)
    if kernel is not SGHMC:
        assert kernel.bias_order == order


def test_without_the_ito_term_the_bias_does_not_fall(monkeypatch):
    monkeypatch.setattr(state_dependent, "divergence", lambda diffusion, at: jnp.zeros_like(at))

    def kernel(**numbers):
        return StateDependentLangevin(diffusion=diffusion, **numbers)

    assert np.all(np.abs(orders(kernel, 0.02)) < 0.2)
