"""Minima to a stated gradient norm, Hessians as matrices and as products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.sparse.linalg import LinearOperator, eigsh

from statsgd import hessian, minimise, noise, noise_covariance
from statsgd.problems import (
    ConvergenceWarning,
    batch_risk,
    curvature,
    empirical_risk,
    landscape,
    linear_regression,
)
from statsgd.problems import minimum as minimum_module
from statsgd.problems.curvature import dense_hessian

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(40, 5)), RNG.normal(size=40)


def squared_loss(theta, example):
    return 0.5 * (example[0] @ theta - example[1]) ** 2


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_least_squares_is_solved_exactly_whoever_asks(decay):
    expected = np.linalg.solve(INPUTS.T @ INPUTS / 40 + decay * np.eye(5), INPUTS.T @ TARGETS / 40)
    known = minimise(linear_regression(INPUTS, TARGETS), weight_decay=decay)
    general = empirical_risk(squared_loss, (INPUTS, TARGETS), np.zeros(5))
    found = minimise(general, weight_decay=decay)
    np.testing.assert_allclose(known.params, expected, rtol=1e-12)
    np.testing.assert_allclose(found.params, expected, rtol=1e-9)
    assert known.gradient_norm < 1e-13
    assert found.converged
    residual = INPUTS @ expected - TARGETS
    np.testing.assert_allclose(found.loss, 0.5 * np.mean(residual**2), rtol=1e-12)


def test_curved_valley_is_followed_to_its_bottom():
    rosenbrock = landscape(
        lambda p: 100 * (p["y"] - p["x"] ** 2) ** 2 + (1 - p["x"]) ** 2, {"x": -1.2, "y": 1.0}
    )
    minimum = minimise(rosenbrock)
    assert minimum.converged
    np.testing.assert_allclose([minimum.params["x"], minimum.params["y"]], 1, rtol=1e-7)


def test_unreached_minimum_says_so():
    minimum = minimise(landscape(lambda x: jnp.exp(-x), 0.0), max_iterations=5)
    assert not minimum.converged
    assert minimum.gradient_norm > 1e-8
    with pytest.warns(ConvergenceWarning, match=r"ηh: no minimum was found, the gradient norm"):
        minimum.warn_unless_converged("ηh")


def test_many_parameters_come_near_the_minimum_without_hessians(monkeypatch):
    searches = []

    def watched(*given, **options):
        searches.append(scipy.optimize.minimize(*given, **options))
        return searches[-1]

    monkeypatch.setattr(minimum_module, "minimize", watched)
    goal = np.linspace(-1, 1, 201)
    found = minimise(landscape(lambda x: jnp.sum(jnp.cosh(x - goal)), np.full(201, 5.0)))
    assert found.converged
    np.testing.assert_allclose(found.params, goal, atol=1e-7)
    assert len(searches) == 2
    assert searches[1].nhev <= 4  # alone it takes 10


def test_a_dense_hessian_takes_the_memory_of_a_few_gradients():
    # All columns at once would take that of 300 gradients.
    inputs = RNG.normal(size=(64, 8)).astype(np.float32)

    def batch_loss(params, batch):
        return jnp.mean(jnp.tanh(batch @ params["hidden"]) @ params["out"]) ** 2

    begin = {"hidden": np.ones((8, 33), np.float32), "out": np.ones(33, np.float32)}
    problem = batch_risk(batch_loss, inputs, begin, batch_size=32, loss_batches=64)
    params = problem.initial_params(jax.random.key(0))

    def memory(function):
        lowered = jax.jit(lambda at: function(problem, at)).lower(params)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    gradient = memory(lambda problem, at: problem.gradient(at))
    assert gradient > 2**17
    assert memory(dense_hessian) < 60 * gradient


def test_large_problem_uses_gradients_only(monkeypatch):
    monkeypatch.setattr(minimum_module, "_NEWTON_ALONE", 3)
    for module in ("statsgd.problems.minimum", "statsgd.problems.curvature"):
        monkeypatch.setattr(f"{module}.DENSE_LIMIT", 3)
    minimum = minimise(empirical_risk(squared_loss, (INPUTS, TARGETS), np.zeros(5)), tolerance=1e-7)
    assert minimum.converged
    expected = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
    np.testing.assert_allclose(minimum.params, expected, atol=1e-6)


def test_hessian_of_a_pytree_problem():
    problem = landscape(
        lambda p: p["a"] ** 2 * jnp.sum(p["b"]) + p["a"] ** 3, {"a": 1.0, "b": np.array([1.0, 2.0])}
    )
    # Flat order (a, b₁, b₂) at a = 1, b = (1, 2): ∂aa = 2(b₁+b₂) + 6a, ∂ab = 2a.
    expected = np.array([[12, 2, 2], [2, 0, 0], [2, 0, 0]])
    at = problem.initial_params(jax.random.key(0))
    np.testing.assert_allclose(hessian(problem, at), expected, rtol=1e-12, atol=1e-12)


def test_products_above_the_dense_limit_agree_with_the_matrix(monkeypatch):
    problem = empirical_risk(squared_loss, (INPUTS, TARGETS), np.zeros(5))
    at, minibatch = np.ones(5), noise.Minibatch(4)
    dense = hessian(problem, at), noise_covariance(problem, at, minibatch)
    monkeypatch.setattr(curvature, "DENSE_LIMIT", 3)
    monkeypatch.setattr("statsgd.dynamics.noise.covariance.DENSE_LIMIT", 3)
    products = hessian(problem, at), noise_covariance(problem, at, minibatch)
    for matrix, operator in zip(dense, products, strict=True):
        assert isinstance(operator, LinearOperator)
        np.testing.assert_allclose(operator @ np.eye(5), matrix, rtol=1e-10, atol=1e-12)
        top = eigsh(operator, k=1, return_eigenvectors=False)
        np.testing.assert_allclose(top, np.linalg.eigvalsh(matrix)[-1], rtol=1e-8)


@pytest.mark.parametrize(
    ("scheme", "factor"), [("with_replacement", 1 / 4), ("without_replacement", 36 / (4 * 39))]
)
def test_noise_covariance_is_centred_and_scaled(scheme, factor):
    problem = linear_regression(INPUTS, TARGETS)
    theta = np.full(5, 0.3)
    gradients = (INPUTS @ theta - TARGETS)[:, None] * INPUTS
    expected = factor * np.cov(gradients.T, bias=True)
    measured = noise_covariance(problem, theta, noise.Minibatch(4, scheme))
    np.testing.assert_allclose(measured, expected, rtol=1e-10)
