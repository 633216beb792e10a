"""Curvature and noise matrices by products, against explicit sums over examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

from statsgd import noise, problems
from statsgd.measures import (
    block_operator,
    curvature_matrix,
    fisher,
    gauss_newton,
    hessian,
    hessian_operator,
    noise_covariance,
    noise_operator,
    output_gradients,
    over_replicas,
)
from statsgd.measures.curvature import operators
from tests.measures.problem_cases import PARAMS, network, output, square_loss


def test_hessian_by_products_is_the_hessian():
    np.testing.assert_allclose(
        curvature_matrix(network(), PARAMS), hessian(network(), PARAMS), rtol=1e-10, atol=1e-12
    )


def test_empirical_fisher_is_the_second_moment_of_gradients():
    problem = network()
    rows = output_gradients(
        problem, lambda params, example: square_loss(output(params, example), example), PARAMS
    )
    found = fisher(problem, PARAMS)
    np.testing.assert_allclose(found, rows.T @ rows / 12, rtol=1e-10)


def test_gauss_newton_of_a_square_loss():
    # (1/N) Σ a aᵀ of the output gradients.
    features = output_gradients(network(), output, PARAMS)
    found = gauss_newton(network(), PARAMS, output, square_loss)
    np.testing.assert_allclose(found, features.T @ features / 12, rtol=1e-10)


def test_gauss_newton_of_logits_is_the_fisher_matrix_of_the_model():
    # Linear softmax: E over the model's labels of g gᵀ, and the Hessian of the loss.
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(9, 2)), rng.integers(0, 3, 9)

    def logits(params, example):
        return example[0] @ params

    def cross_entropy(value, example):
        return -jax.nn.log_softmax(value)[example[1]]

    at = rng.normal(size=(2, 3))
    problem = problems.empirical_risk(
        lambda params, example: cross_entropy(logits(params, example), example), (x, labels), at
    )
    expected = np.zeros((6, 6))
    for row in x:
        p = np.exp(row @ at) / np.exp(row @ at).sum()
        for label in range(3):
            g = np.outer(row, p - np.eye(3)[label]).reshape(-1)
            expected += p[label] * np.outer(g, g) / 9
    found = gauss_newton(problem, at, logits, cross_entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found, hessian(problem, at), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "gradient_noise",
    [
        noise.Minibatch(3, "without_replacement"),
        noise.LossScaled(2.0, 0.1),
        noise.Anisotropic(np.diag(np.arange(1.0, 11))),
    ],
    ids=lambda case: type(case).__name__,
)
def test_noise_by_products_is_the_noise_covariance(gradient_noise):
    found = curvature_matrix(network(), PARAMS, noise_operator(gradient_noise))
    np.testing.assert_allclose(
        found, noise_covariance(network(), PARAMS, gradient_noise), rtol=1e-5, atol=1e-8
    )


def test_blocks_are_the_diagonal_blocks():
    # Leaves in flattening order: bias (2), hidden (6), out (2).
    found = curvature_matrix(network(), PARAMS, block_operator(hessian_operator, "hidden"))
    np.testing.assert_allclose(found, hessian(network(), PARAMS)[2:8, 2:8], rtol=1e-10, atol=1e-12)


def test_products_of_large_problems(monkeypatch):
    monkeypatch.setattr(operators, "DENSE_LIMIT", 2)
    found = fisher(network(), PARAMS)
    assert isinstance(found, LinearOperator)
    monkeypatch.undo()
    vector = np.arange(10.0)
    np.testing.assert_allclose(found @ vector, fisher(network(), PARAMS) @ vector, rtol=1e-10)
    monkeypatch.setattr(operators, "DENSE_LIMIT", 2)
    with pytest.raises(ValueError, match="allowed up to d = 2, got d = 10"):
        curvature_matrix(network(), PARAMS, noise_operator(noise.Anisotropic(np.eye(10))))


def test_refusals(unchecked):
    with pytest.raises(ValueError, match="problem must have examples for this matrix"):
        fisher(problems.quadratic(np.eye(2)), np.zeros(2))
    with pytest.raises(ValueError, match="output_loss of output must be the loss of the problem"):
        gauss_newton(network(), PARAMS, output, lambda value, example: (value - example[1]) ** 2)
    with pytest.raises(ValueError, match="name must be one of 'bias', 'hidden', 'out'"):
        curvature_matrix(network(), PARAMS, block_operator(hessian_operator, "middle"))


def test_static_parts_of_a_model_reach_the_declared_output():
    model = {"weight": np.array([0.5, -1.0]), "activation": jnp.tanh}

    def predict(params, example):
        return params["activation"](example[0] @ params["weight"])

    x, y = np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([0.3, 0.1])
    problem = problems.empirical_risk(
        lambda params, example: square_loss(predict(params, example), example), (x, y), model
    )
    at = problem.initial_params(jax.random.key(0))
    slope = 1 - np.tanh(x @ model["weight"]) ** 2
    features = slope[:, None] * x
    np.testing.assert_allclose(
        gauss_newton(problem, at, predict, square_loss), features.T @ features / 2, rtol=1e-6
    )


def test_matrices_over_replicas():
    stacked = {name: np.stack([PARAMS[name]] * 2) for name in PARAMS}
    found = over_replicas(gauss_newton, network(), stacked, output=output, output_loss=square_loss)
    one = gauss_newton(network(), PARAMS, output, square_loss)
    np.testing.assert_allclose(found, [one, one], rtol=1e-10, atol=1e-12)
