"""State-dependent noise: the Itô drift, and the laws of loss-scaled noise and of a valley."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.kernels import StateDependentLangevin, state_dependent
from statsgd.kernels.state_dependent import divergence
from statsgd.laws import FlooredLossScaledLaw
from tests.statistical import assert_mean_within


def full(x):
    root = jnp.array([[1.0, 0.3 * x[1]], [jnp.sin(x[0]), 1.2]])
    return root @ root.T


@pytest.mark.parametrize(
    "diffusion", [lambda x: 1 + x[0] * x[1] ** 2, lambda x: jnp.array([x[1], x[1] ** 3]), full]
)
def test_divergence_is_that_of_the_matrix(diffusion):
    x, step = np.array([0.4, -0.7]), 1e-6

    def matrix(x):
        value = np.asarray(diffusion(jnp.asarray(x)))
        return value * np.eye(2) if value.ndim < 2 else value

    with jax.enable_x64(True):
        shifts = step * np.eye(2)
        expected = sum(
            (matrix(x + shifts[j]) - matrix(x - shifts[j]))[:, j] / (2 * step) for j in range(2)
        )
        np.testing.assert_allclose(divergence(diffusion, jnp.asarray(x)), expected, atol=1e-8)


def endpoints(kernel, law, starts, steps, seed=0):
    @jax.jit
    def go(starts, key):
        bound = kernel.bind(None, potential_fn=lambda z: -law.log_density(z))
        state = bound.init(jax.random.split(key, len(starts)), 0, starts, (), {})
        return jax.lax.fori_loop(0, steps, lambda _, s: bound.sample(s, (), {}), state)

    state = go(jnp.asarray(starts, jnp.float32), jax.random.key(seed))
    assert not np.any(state.diverging)
    return np.asarray(state.z, float)


def floored(ratio):
    """The law of noise C = σ(L + c₀)I, its loss and its D = ηC/2 per learning rate."""
    law = FlooredLossScaledLaw(np.diag([1.0, 4.0]), ratio, 0.5)

    def loss(x):
        return (x[0] ** 2 + 4 * x[1] ** 2) / 2

    return law, loss, lambda x: ratio / 2 * (loss(x) + 0.5)


def test_drift_is_minus_the_gradient_of_the_loss():
    # With D = ηC/2 and the law of that noise, −D∇U + ∇·D = −∇L: one step without noise shows it.
    law, loss, diffusion = floored(0.4)
    with jax.enable_x64(True):
        x = jnp.array([0.7, -0.4])
        drift = diffusion(x) * jax.grad(law.log_density)(x) + divergence(diffusion, x)
        np.testing.assert_allclose(drift, -jax.grad(loss)(x), rtol=1e-10)


def check_floored(kernel, law):
    starts = np.asarray(law.draw(jax.random.key(1), (40000,)))
    draws = endpoints(kernel, law, starts, 120)
    # ν = 2 + 4/ε − d = 10: fourth moments exist. P(L > its .9 quantile) is a tail quantile.
    curvature = np.array([1.0, 4.0])
    assert_mean_within(draws**2, np.diagonal(law.covariance()))
    loss = draws**2 @ curvature / 2
    grid = np.linspace(0, 10, 100001)
    quantile = grid[np.searchsorted(law.loss_cdf(grid), 0.9)]
    assert_mean_within(loss > quantile, 0.1)
    assert_mean_within(loss, law.mean_loss())


@pytest.mark.slow
def test_floored_loss_scaled_law_is_reproduced():
    law, _, diffusion = floored(0.4)
    check_floored(StateDependentLangevin(diffusion=diffusion, step_size=0.01), law)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_a_wrong_ito_term_is_seen(monkeypatch, factor):
    # None at all, and twice.
    law, _, diffusion = floored(0.4)
    right = state_dependent.divergence
    monkeypatch.setattr(state_dependent, "divergence", lambda d, at: factor * right(d, at))
    with pytest.raises(AssertionError):
        check_floored(StateDependentLangevin(diffusion=diffusion, step_size=0.01), law)


@pytest.mark.slow
def test_full_matrix_keeps_a_law_with_temperature():
    # Any D keeps exp(−U/T): a full one on two correlated quadratic modes, T = .5.
    temperature, stiffness = 0.5, np.array([[2.0, 0.5], [0.5, 1.0]])

    class Quadratic:
        def log_density(self, x):
            return -x @ jnp.asarray(stiffness, jnp.float32) @ x / 2

    kernel = StateDependentLangevin(diffusion=full, step_size=0.01, temperature=temperature)
    covariance = temperature * np.linalg.inv(stiffness)
    starts = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 40000)
    draws = endpoints(kernel, Quadratic(), starts, 150)
    for i, j in ((0, 0), (1, 1), (0, 1)):
        assert_mean_within(draws[:, i] * draws[:, j], covariance[i, j], resolve=1.15)


@pytest.mark.slow
def test_noise_across_a_valley_draws_to_the_flat_stretch():
    # Noise ∝ h(x) on the fast coordinate of ½h(x)y² + ½x²; the target keeps p = e^(−U) all the
    # same, with x standard normal and y | x of variance 1/h(x).
    def curvature(x):
        return 2 + jnp.sin(2 * x)

    class Valley:
        def log_density(self, z):
            h = curvature(z[0])
            return -(z[0] ** 2) / 2 - h * z[1] ** 2 / 2 + jnp.log(h) / 2

    kernel = StateDependentLangevin(
        diffusion=lambda z: jnp.array([0.5 + 0.3 * z[1] ** 2, 1 / curvature(z[0])]), step_size=0.01
    )
    random = np.random.default_rng(3)
    x = random.normal(size=40000)
    y = random.normal(size=40000) / np.sqrt(2 + np.sin(2 * x))
    draws = endpoints(kernel, Valley(), np.stack([x, y], axis=1), 250)
    assert_mean_within(draws[:, 0], 0.0)
    assert_mean_within(draws[:, 0] ** 2, 1.0)
    assert_mean_within((2 + np.sin(2 * draws[:, 0])) * draws[:, 1] ** 2, 1.0)
    # E sin(2x) y²h = 0 with E sin 2x = 0: the flat stretches weigh no more than they should.
    assert_mean_within(np.sin(2 * draws[:, 0]), 0.0)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="diffusion must be a function"):
        StateDependentLangevin(diffusion=1.0)
    with pytest.raises(ValueError, match="preconditioner must be left out"):
        StateDependentLangevin(diffusion=lambda x: 1.0, preconditioner=2.0)
