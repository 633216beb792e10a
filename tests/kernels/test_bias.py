"""The step-halving report against biases known in closed form, and the order of each kernel."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import BAOAB, MALA, SGLD, ULA, StateDependentLangevin, step_size_bias
from statsgd.laws import HeavyBallGaussian, ImproperLawError
from statsgd.problems import linear_regression


def test_ula_on_a_quadratic_has_the_known_bias():
    # Var = T/(λ(1 − hλ/2)); here T = 2, λ = (1, 4), h = .05.
    curvature = np.array([1.0, 4.0])
    report = step_size_bias(
        lambda z: jnp.sum(jnp.asarray(curvature) * z["x"] ** 2) / 2,
        ULA(step_size=0.1, temperature=2.0),
        start={"x": jnp.zeros(2)},
        draws=40000,
        seed=0,
    )
    bias = 2 / (curvature * (1 - 0.1 * curvature / 2)) - 2 / curvature
    off = np.diagonal(report.covariance) - bias
    # Extrapolation leaves a relative (hλ)²/16 of the bias.
    allowed = 4 * np.diagonal(report.covariance_error) + bias * (0.1 * curvature) ** 2 / 8
    assert np.all(np.abs(off) < allowed)
    assert abs(off[1]) < 0.1 * bias[1]
    assert 4 * report.covariance_error[1, 1] < 0.2 * bias[1]
    assert np.all(np.abs(report.mean) < 4 * report.mean_error)
    assert abs(report.covariance[0, 1]) < 4 * report.covariance_error[0, 1]
    assert abs(report.order - 1.15) < 4 * report.order_error + 0.15
    assert "order 1" in report.summary()
    assert not report.noise_dominates


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "order"),
    [
        (ULA(step_size=0.25), 1),
        (StateDependentLangevin(diffusion=lambda x: 1.2 + jnp.sin(x), step_size=0.1), 1),
    ],
)
def test_order_in_the_step_size_is_the_stated_one(kernel, order):
    assert kernel.bias_order == order
    report = step_size_bias(
        lambda x: jnp.sum(x**2 / 2 + 0.4 * jnp.cos(2 * x)),
        kernel,
        start=jnp.zeros(1),
        warmup=100,
        draws=2000,
        chains=4096,
        seed=1,
    )
    assert report.divergent == 0
    assert not report.noise_dominates
    assert report.stated_order == order
    assert report.order_error < 0.3
    assert abs(report.order - order) < 4 * report.order_error + 0.25


@pytest.mark.slow
def test_a_law_is_looked_at_in_its_own_params_and_noise_is_said_to_dominate():
    law = HeavyBallGaussian([[2.0]], [[0.3]], 0.1, 0.5, location=[3.0])
    # BAOAB has no bias in position on a quadratic.
    kernel = BAOAB(step_size=0.05, preconditioner=1.0)
    report = step_size_bias(law, kernel, warmup=500, draws=500, chains=16, seed=0)
    assert report.noise_dominates
    assert np.isnan(report.order)
    assert "noise dominates" in report.summary()
    assert report.mean.shape == (1,)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    law = HeavyBallGaussian.examples()[0]
    for target, kernel, options, message in (
        (law, MALA(), {}, "kernel must be one without acceptance test"),
        (law, ULA(adapt_preconditioner="dense"), {}, "adapt_preconditioner must be None"),
        (law, ULA(), {"chains": 3}, "chains must be at least 8"),
        (jnp.sum, ULA(), {}, "start must be given"),
        (3.0, ULA(), {}, "target must be a law or a potential"),
    ):
        with pytest.raises(ValueError, match=message):
            step_size_bias(target, kernel, seed=0, **options)
    with pytest.raises(ImproperLawError):
        step_size_bias(HeavyBallGaussian.improper_examples()[0], ULA(), seed=0)


def test_stochastic_gradients_run_as_they_are():
    # One example a step: θ' = θ − hN x(xᵀθ − y) + √(2h) ξ, whose covariance V solves
    # V = ⟨M V M⟩ + h²N²⟨x xᵀ r²⟩ + 2h, M = 1 − hN x xᵀ, r the residual at the mean.
    rng = np.random.default_rng(0)
    number, step_size = 40, 2e-3
    inputs = rng.normal(size=(number, 2))
    targets = inputs @ [1.0, -1.0] + rng.normal(size=number)
    posterior = np.linalg.inv(inputs.T @ inputs)
    residual = inputs @ posterior @ inputs.T @ targets - targets
    outer = inputs[:, :, None] * inputs[:, None, :]
    steps = np.eye(2) - step_size * number * outer
    kicks = (step_size * number) ** 2 * np.mean(outer * residual[:, None, None] ** 2, axis=0)
    kicks += 2 * step_size * np.eye(2)
    moved = np.mean([np.kron(step, step) for step in steps], axis=0)
    expected = np.linalg.solve(np.eye(4) - moved, kicks.ravel()).reshape(2, 2) - posterior
    kernel = SGLD.from_problem(
        linear_regression(inputs, targets),
        Minibatch(1, "with_replacement"),
        step_size=step_size,
    )
    report = step_size_bias(None, kernel, warmup=200, draws=3000, chains=64, seed=0)
    assert not report.noise_dominates
    # Richardson's next order is a few per cent of the bias.
    off = np.abs(np.diagonal(report.covariance - expected))
    allowed = 4 * np.diagonal(report.covariance_error) + 0.06 * np.diagonal(expected)
    assert np.all(off < allowed)
    assert np.all(4 * np.diagonal(report.covariance_error) < 0.5 * np.diagonal(expected))
