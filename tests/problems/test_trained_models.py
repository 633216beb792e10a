"""Whole trained models, of Equinox and of Flax NNX, handed to a diagnosis and to a law of modes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import statsgd
from statsgd.laws import ModeLaw
from statsgd.noise import Minibatch
from statsgd.problems import empirical_risk

N, S, DECAY = 60, 6, 0.2
RNG = np.random.default_rng(4)
X = RNG.normal(size=(N, 2)) * [2.0, 0.7]
Y = X @ [1.0, -0.5] + 0.4 + RNG.normal(size=N)
FEATURES = np.column_stack([np.ones(N), X])  # in the order of the parameters: bias, weights
CURVATURE = 2 * FEATURES.T @ FEATURES / N
# Where the gradient with weight decay is zero.
SOLUTION = np.linalg.solve(CURVATURE + DECAY * np.eye(3), 2 * FEATURES.T @ Y / N)


class EquinoxModel(eqx.Module):
    """A line, whose rate of dropout and table are no parameters."""

    bias: jax.Array
    weight: jax.Array
    rate: float
    table: jax.Array

    def __call__(self, x):
        return self.weight @ x + self.bias[0] + self.table[0]


class NNXModel(nnx.Module):
    def __init__(self, rngs):
        self.line = nnx.Linear(2, 1, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.line(x))[0]


def equinox_model(numbers):
    return EquinoxModel(jnp.asarray(numbers[:1]), jnp.asarray(numbers[1:]), 0.5, jnp.arange(3))


def nnx_model(numbers):
    model = NNXModel(nnx.Rngs(0))
    model.line.bias[...], model.line.kernel[...] = numbers[:1], numbers[1:, None]
    model.eval()
    return model


def error(model, example):
    return (model(example[0]) - example[1]) ** 2


@pytest.mark.parametrize("make", [equinox_model, nnx_model])
def test_a_trained_model_is_diagnosed_and_has_a_law_of_its_modes(make):
    problem = empirical_risk(error, (X, Y), make(np.ones(3)))
    trained, sgd = make(SOLUTION), statsgd.SGD(0.02, Minibatch(S), 0.5, DECAY)
    np.testing.assert_allclose(problem.flatten(trained), SOLUTION, rtol=1e-6)
    values, vectors = np.linalg.eigh(CURVATURE)
    top = vectors[:, -1]
    gradients = 2 * (FEATURES @ SOLUTION - Y)[:, None] * FEATURES
    noise = top @ np.cov(gradients.T, bias=True) @ top / S
    law = ModeLaw.from_checkpoint(problem, sgd, trained, 1, 20)
    np.testing.assert_allclose(law.curvatures, values[-1:] + DECAY, rtol=1e-6)
    np.testing.assert_allclose(law.noise_covariance, [[noise]], rtol=1e-5)
    np.testing.assert_allclose(law.checkpoint, SOLUTION, rtol=1e-6)
    ask = {"modes": 1, "replicas": 8, "steps": 20, "learning_coefficient": False}
    tree = statsgd.diagnose(problem, trained, sgd, seed=1, progress=False, **ask)
    np.testing.assert_allclose(tree["curvature"]["curvature"], values[-1:] + DECAY, rtol=1e-6)
    np.testing.assert_allclose(tree["curvature"]["noise"], [noise], rtol=1e-5)
    loss = np.mean((FEATURES @ SOLUTION - Y) ** 2)
    np.testing.assert_allclose(tree["standing"]["loss"], loss, rtol=1e-5)
    # One mode under a heavy ball: position and buffer from rest, 20 steps of white noise.
    rate, momentum, curvature = 0.02, 0.5, values[-1] + DECAY
    step = np.array([[1 - rate * curvature, -rate * momentum], [curvature, momentum]])
    push, covariance = np.array([-rate, 1.0]), np.zeros((2, 2))
    for _ in range(20):
        covariance = step @ covariance @ step.T + noise * np.outer(push, push)
    predicted = tree["spread"]["predicted_variance"].isel(step=-1)
    np.testing.assert_allclose(predicted, covariance[:1, 0], rtol=1e-5)
