"""Diffusions: measured weak order, exact laws of the scheme, and the limit of SGD."""

import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.laws import HeavyBallGaussian, PhaseSpaceGaussian
from statsgd.noise import Anisotropic, Isotropic, LossScaled, Minibatch
from statsgd.problems import landscape, linear_regression

HESSIAN = np.array([[2.0, 0.3], [0.3, 0.7]])
NOISE = np.array([[1.0, 0.6], [0.6, 0.8]])
BOWL = landscape(lambda x: 0.5 * x @ jnp.asarray(HESSIAN, x.dtype) @ x, np.zeros(2))
LINE = landscape(lambda x: 0.5 * jnp.sum(x**2), np.ones(1))
INCREMENTS = ("gaussian", "two_point")


def ensemble(problem, dynamics, steps, replicas, seed=1):
    result = statsgd.simulate(
        problem, dynamics, steps=steps, replicas=replicas, seed=seed, progress=False
    )
    parts = [result[g].params.values for g in ("endpoints", "momentum_buffer") if g in result]
    return np.concatenate(parts, axis=1).astype(np.float64)


def assert_covariance(state, expected, slack=0.0):
    products = state[:, :, None] * state[:, None, :]
    error = products.std(0) / np.sqrt(len(state))
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.all(np.abs(products.mean(0) - expected) < 4 * error + slack * scale)
    assert np.all(4 * np.diag(error) < 0.1 * np.diag(expected))  # a factor 1.1 would show


@pytest.mark.slow
@pytest.mark.parametrize("increments", INCREMENTS)
def test_weak_order_is_one_and_the_calculus_is_itos(increments):
    # dX = −X dt + σX dW, X₀ = 1: E X² = exp((−2 + σ²)t) for Itô; the scheme gives
    # (1 − 2h + h² + σ²h)ⁿ exactly. Stratonovich would give exp((−2 + 2σ²)t).
    sigma, end, replicas = 0.5, 1.0, 2**18
    steps = np.array([0.25, 0.125, 0.0625])
    exact = np.exp(-2 + sigma**2)
    errors = []
    for h in steps:
        diffusion = statsgd.Diffusion(
            lambda x: -x, lambda x: sigma**2 * x**2, time_step=h, increments=increments
        )
        squares = ensemble(LINE, diffusion, round(end / h), replicas)[:, 0] ** 2
        scheme = (1 - 2 * h + h**2 + sigma**2 * h) ** round(end / h)
        assert abs(squares.mean() - scheme) < 4 * squares.std() / np.sqrt(replicas)
        errors.append(exact - squares.mean())
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.8 < order < 1.2


@pytest.mark.parametrize("increments", INCREMENTS)
def test_the_scheme_has_the_exact_law_of_the_chain_it_is(increments):
    # A step of length h with rate A is SGD with learning rate h and noise covariance A/h.
    h = 0.2
    diffusion = statsgd.Diffusion(
        lambda x: -jnp.asarray(HESSIAN, x.dtype) @ x, NOISE, h, increments
    )
    law = HeavyBallGaussian(HESSIAN, NOISE / h, h)
    assert_covariance(ensemble(BOWL, diffusion, 80, 30_000), law.covariance())


@pytest.mark.parametrize(
    ("covariance", "matrix"),
    [
        (0.7, 0.7 * np.eye(2)),
        ([0.7, 1.4], np.diag([0.7, 1.4])),
        pytest.param(NOISE, NOISE, marks=pytest.mark.slow),
        (lambda x: jnp.asarray(NOISE, x.dtype), NOISE),
        pytest.param(lambda x: jnp.asarray(0.7), 0.7 * np.eye(2), marks=pytest.mark.slow),
    ],
)
def test_every_form_of_covariance(covariance, matrix):
    diffusion = statsgd.Diffusion(lambda x: 0 * x, covariance, 0.5)
    assert_covariance(ensemble(BOWL, diffusion, 4, 8000), 2 * matrix)


def test_a_root_may_have_any_number_of_columns():
    root = np.array([[1.0, 0.5, 0.2], [0.0, 0.7, -0.3]])
    diffusion = statsgd.Diffusion(lambda x: 0 * x, time_step=0.5, root=root)
    assert_covariance(ensemble(BOWL, diffusion, 4, 8000), 2 * root @ root.T)


@pytest.mark.slow
def test_two_point_increments_are_signs():
    diffusion = statsgd.Diffusion(lambda x: 0 * x, 1.0, 0.25, "two_point")
    wide = landscape(lambda x: jnp.sum(x**2), np.zeros(70))
    state = ensemble(wide, diffusion, 1, 200)
    np.testing.assert_allclose(np.abs(state), 0.5, rtol=1e-6)
    assert abs(state.mean()) < 4 * 0.5 / np.sqrt(state.size)
    correlation = np.corrcoef(state.T)[np.triu_indices(70, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(200)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("increments", INCREMENTS)
def test_the_limit_of_sgd_has_the_law_of_the_continuous_model(momentum, increments):
    sgd = statsgd.SGD(0.1, Anisotropic(NOISE), momentum, weight_decay=0.1)
    law = PhaseSpaceGaussian(HESSIAN, NOISE, 0.1, momentum, 0.1)
    diffusion = sgd.diffusion_limit(BOWL, 0.01, increments)
    state = ensemble(BOWL, diffusion, 1200, 15_000)
    expected = law.joint if momentum else law.covariance()
    assert_covariance(state, expected, slack=0.02)  # the scheme's own bias at this step


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_and_its_limit_agree_as_the_learning_rate_goes_to_zero(momentum):
    gaps = []
    for rate in (0.02, 0.01):
        chain = HeavyBallGaussian(HESSIAN, NOISE, rate, momentum).covariance()
        limit = PhaseSpaceGaussian(HESSIAN, NOISE, rate, momentum).covariance()
        gaps.append(np.abs(chain / limit - 1).max())
    assert gaps[1] < 0.02
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    sgd = statsgd.SGD(0.02, Anisotropic(NOISE), momentum)
    state = ensemble(BOWL, sgd.diffusion_limit(BOWL), 3000 if momentum else 6000, 6000)
    chain = HeavyBallGaussian(HESSIAN, NOISE, 0.02, momentum).covariance()
    assert_covariance(state[:, :2], chain, slack=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("noise", [Isotropic(0.5), LossScaled(0.5, 0.1), Minibatch(3)])
def test_any_white_noise_has_a_limit(noise, momentum):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(12, 2))
    problem = linear_regression(
        inputs, inputs @ [1.0, -1.0] + rng.normal(size=12), np.array([0.3, 0.2])
    )
    diffusion = statsgd.SGD(0.1, noise, momentum).diffusion_limit(problem, 1e-4)
    moved = ensemble(problem, diffusion, 1, 20_000)
    # One short step from rest: the noise lands on θ, or with momentum on the buffer, at rate
    # ηC or 4C/(η(1+β)²).
    rate = 4 / (0.1 * (1 + momentum) ** 2) if momentum else 0.1
    part = moved[:, 2:] if momentum else moved
    expected = 1e-4 * rate * np.asarray(noise.covariance(problem, jnp.array([0.3, 0.2])))
    assert_covariance(part - part.mean(0), expected)


def test_numbers_are_traced():
    diffusion = statsgd.Diffusion(lambda x: -x, 1.0, 0.1)
    grid = statsgd.grid(diffusion, covariance=[0.5, 2.0], time_step=[0.1, 0.2])
    result = statsgd.simulate(BOWL, grid, steps=100, replicas=4000, seed=0, progress=False)
    variance = result["endpoints"].params.var(("replica", "params_dim_0"))
    # Var = A/(2 − h)
    expected = np.array([[0.5], [2.0]]) / (2 - np.array([0.1, 0.2]))
    np.testing.assert_allclose(variance, expected, rtol=4 * np.sqrt(2 / 8000))


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    def drift(x):
        return -x

    with pytest.raises(ValueError, match="exactly one of covariance and root"):
        statsgd.Diffusion(drift)
    with pytest.raises(ValueError, match="drift must be a function"):
        statsgd.Diffusion(3.0, 1.0)
    with pytest.raises(ValueError, match="time_step must be positive"):
        statsgd.Diffusion(drift, 1.0, 0.0)
    with pytest.raises(ValueError, match="increments must be one of 'gaussian', 'two_point'"):
        statsgd.Diffusion(drift, 1.0, 0.1, "uniform")
    with pytest.raises(ValueError, match="covariance must be non-negative"):
        statsgd.Diffusion(drift, -1.0)
    with pytest.raises(ValueError, match="positive semi-definite"):
        statsgd.Diffusion(drift, [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"covariance must be a number or have shape \(2,\)"):
        statsgd.Diffusion(drift, np.eye(3)).check(BOWL)
    with pytest.raises(ValueError, match="drift must return a pytree like the params"):
        statsgd.Diffusion(lambda x: jnp.sum(x), 1.0).check(BOWL)
    rows = linear_regression(np.ones((4, 1)), np.arange(4.0))
    with pytest.raises(ValueError, match="independent from step to step for a diffusion"):
        statsgd.SGD(0.1, Minibatch(2, "reshuffle")).diffusion_limit(rows)
