import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, simulate
from statsgd.problems import (
    diagonal_linear_network,
    linear_network,
    multilayer_perceptron,
    perceptron,
)

X, Y = np.array([-1.5, -0.5, 0.5, 1, 2]), np.array([-1, 0.2, 0.3, 0.6, 1.4])
IMAGES = np.random.default_rng(0).normal(size=(12, 3))


def test_diagonal_network_has_the_loss_of_its_slope():
    # f = Σᵢ Πⱼ uᵢⱼ = 1·2·3 − 0.5·1·2 = 5, so L = mean (5x − y)².
    problem = diagonal_linear_network(X, Y, num_layers=3, width=2)
    params = jnp.array([[1.0, 2, 3], [-0.5, 1, 2]])
    assert problem.slope(params) == 5
    np.testing.assert_allclose(problem.loss(params), np.mean((5 * X - Y) ** 2), rtol=1e-6)
    assert problem.dimension == 6
    start = problem.initial_params(jax.random.key(0))
    np.testing.assert_allclose(problem.slope(start), 1, rtol=1e-6)


def test_loss_factor_scales_the_loss():
    params = jnp.array([[1.2, 0.4]])
    whole, half = (diagonal_linear_network(X, Y, loss_factor=c).loss(params) for c in (1, 0.5))
    np.testing.assert_allclose(half, 0.5 * whole, rtol=1e-6)


def test_linear_network_computes_the_product_of_its_layers():
    targets = IMAGES @ np.ones((3, 2))
    problem = linear_network(IMAGES, targets, hidden=(5, 4))
    params = problem.initial_params(jax.random.key(1))
    assert [w.shape for w in params["weights"]] == [(5, 3), (4, 5), (2, 4)]
    residual = IMAGES @ np.asarray(problem.product(params)).T - targets
    np.testing.assert_allclose(
        problem.loss(params), np.mean(np.sum(residual**2, axis=1)), rtol=1e-5
    )


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_perceptron_losses(activation):
    labels = np.arange(12) % 3
    problem = multilayer_perceptron(
        IMAGES, labels, (4,), activation=activation, loss="cross_entropy"
    )
    params = problem.initial_params(jax.random.key(2))
    outputs = np.stack([perceptron(params, jnp.asarray(x), activation) for x in IMAGES])
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    np.testing.assert_allclose(
        problem.loss(params), -np.mean(np.log(p[np.arange(12), labels])), rtol=1e-5
    )
    regression = multilayer_perceptron(IMAGES, IMAGES[:, 0], (4, 4), activation=activation)
    assert regression.initial_params(jax.random.key(0))["weights"][-1].shape == (1, 4)


def test_relu_neurons_rescale_without_changing_the_loss():
    problem = multilayer_perceptron(IMAGES, IMAGES[:, :2], (4,))
    params = problem.initial_params(jax.random.key(3))
    rho = 3.0
    scaled = {
        "weights": [rho * params["weights"][0], params["weights"][1] / rho],
        "biases": [rho * params["biases"][0], params["biases"][1]],
    }
    np.testing.assert_allclose(problem.loss(scaled), problem.loss(params), rtol=1e-5)


@pytest.mark.slow
def test_training_reduces_the_loss():
    problem = multilayer_perceptron(IMAGES, IMAGES[:, 0], (6,), activation="tanh")
    run = simulate(
        problem, SGD(0.05, noise.Minibatch(4)), steps=300, replicas=3, seed=0, progress=False
    )
    assert float(run["run"]["loss"].max()) < 0.1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: diagonal_linear_network(X, Y[:-1]), "one shape"),
        (lambda: diagonal_linear_network(X, Y, width=0), "width must be at least 1"),
        (lambda: diagonal_linear_network(X, Y, initial_params=np.ones(2)), "must have shape"),
        (lambda: linear_network(X, Y, ()), "inputs must have 2 axes"),
        (lambda: multilayer_perceptron(IMAGES, Y, (3,), activation="sine"), "activation must be"),
        (
            lambda: multilayer_perceptron(IMAGES, IMAGES[:, 0], (3,), loss="cross_entropy"),
            "integer labels",
        ),
        (
            lambda: multilayer_perceptron(
                IMAGES, np.arange(12), (3,), loss="cross_entropy", num_classes=3
            ),
            r"labels in \[0, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("unchecked")
def test_perceptrons_take_one_input_of_their_width():
    params = {"weights": [np.eye(2)]}
    for inputs in (np.ones(3), np.ones((4, 2))):
        with pytest.raises(ValueError, match=r"of one example, of shape \(2,\), got"):
            perceptron(params, inputs)
    with pytest.raises(ValueError, match="activation must be one of 'relu', 'tanh', got 'gelu'"):
        perceptron(params, np.ones(2), "gelu")


def test_a_matrix_is_not_its_transpose():
    problem = multilayer_perceptron(np.ones((4, 3)), np.ones((4, 2)), hidden=[], biases=False)
    with pytest.raises(ValueError, match=r"of shapes \[\(2, 3\)\], got \[\(3, 2\)\]"):
        problem.loss({"weights": [np.ones((3, 2))]})
