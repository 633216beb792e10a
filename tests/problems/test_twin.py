"""The linear twin: the problem itself where that is quadratic, its second order elsewhere."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, problems, simulate
from statsgd.problems import linear_twin
from tests.measures import problem_cases
from tests.measures.problem_cases import PARAMS, network

INPUTS = np.random.default_rng(1).normal(size=(24, 3))
TARGETS = np.random.default_rng(2).normal(size=24)
DATA = problem_cases.INPUTS, problem_cases.TARGETS


@pytest.mark.parametrize("sampling", ["with_replacement", "reshuffle"])
def test_the_twin_of_least_squares_runs_as_the_problem(sampling):
    problem, origin = problems.linear_regression(INPUTS, TARGETS), np.array([0.3, -0.2, 0.5])
    sgd = SGD(0.05, noise.Minibatch(4, sampling), 0.8, 0.02)
    ask = {"steps": 40, "replicas": 6, "seed": 3, "start": origin, "progress": False}
    real = simulate(problem, sgd, **ask)
    twin = simulate(linear_twin(problem, origin), sgd, **ask)
    for group in ("endpoints", "momentum_buffer"):
        pair = [tree[group]["params"].values for tree in (twin, real)]
        np.testing.assert_allclose(*pair, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(twin["run"]["loss"], real["run"]["loss"], rtol=1e-4)


def test_the_twin_of_a_network_is_its_second_order():
    problem = network()
    twin, flat = linear_twin(problem, PARAMS), np.asarray(problem.flatten(PARAMS))
    hessian = np.asarray(problems.hessian(problem, PARAMS))
    away = 0.3 * np.random.default_rng(0).normal(size=10)
    at = problem.unflatten(flat + away)
    here = np.asarray(problem.flatten(problem.gradient(PARAMS)))
    expected = here + hessian @ away
    np.testing.assert_allclose(twin.flatten(twin.gradient(at)), expected, rtol=1e-4, atol=1e-5)
    # A batch has gradients of its own: the same problem with these three examples alone.
    chosen = np.array([1, 1, 5])
    few = problems.empirical_risk(problem.per_example, (DATA[0][chosen], DATA[1][chosen]), PARAMS)
    slope = np.asarray(few.flatten(few.gradient(PARAMS)))
    expected = slope + np.asarray(problems.hessian(few, PARAMS)) @ away
    found = twin.flatten(twin.minibatch_gradient(at, jnp.asarray(chosen)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert twin.loss(PARAMS) == pytest.approx(float(problem.loss(PARAMS)), rel=1e-6)
    rise = float(twin.loss(at) - twin.loss(PARAMS))
    assert rise == pytest.approx(here @ away + away @ hessian @ away / 2, rel=1e-4)


def spread_loss(theta, batch):
    """(θ₁ · variance of the batch − θ₂)² + |θ|²: no mean over examples, and quadratic."""
    return (theta[0] * jnp.var(batch) - theta[1]) ** 2 + jnp.sum(theta**2)


def scattered_loss(theta, batch, key):
    """The same, of a batch that random numbers have moved."""
    return spread_loss(theta, batch + jax.random.normal(key, batch.shape))


def dropped_loss(theta, example, key):
    """Least squares with a random mask of the parameters."""
    kept = jax.random.bernoulli(key, 0.75, (3,)) / 0.75
    return 0.5 * (example[0] @ (kept * theta) - example[1]) ** 2


@pytest.mark.parametrize("loss", [spread_loss, scattered_loss, dropped_loss])
def test_the_twin_of_quadratic_losses_of_batches_and_keys_runs_as_the_problem(loss):
    if loss is dropped_loss:
        problem: Any = problems.empirical_risk(loss, (INPUTS, TARGETS), np.zeros(3))
    else:
        problem = problems.batch_risk(loss, INPUTS[:, 0], np.zeros(2), batch_size=5)
    origin = np.array([0.3, -0.2, 0.5])[: problem.dimension]
    sgd = SGD(0.05, noise.Minibatch(5, "reshuffle", drop_last=loss is spread_loss), 0.8, 0.02)
    ask = {"steps": 40, "replicas": 6, "seed": 3, "start": origin + 1, "progress": False}
    real = simulate(problem, sgd, **ask)
    twin = simulate(linear_twin(problem, origin), sgd, **ask)
    for group in ("endpoints", "momentum_buffer"):
        pair = [tree[group]["params"].values for tree in (twin, real)]
        assert np.all(np.std(pair[1], axis=0) > 1e-3)  # every replica has its own batches and keys
        np.testing.assert_allclose(*pair, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(twin["run"]["loss"], real["run"]["loss"], rtol=1e-4, atol=1e-6)
    errors = [of.loss_estimate(origin + 1).standard_error for of in (linear_twin(problem, origin),
              problem)]  # fmt: skip
    np.testing.assert_allclose(*errors, rtol=1e-4)


def normalised(params, batch, key):
    """A network whose hidden neurons are normalised over the batch, some of them dropped."""
    hidden = batch[0] @ params["hidden"].T
    hidden = jnp.tanh((hidden - hidden.mean(0)) / jnp.sqrt(hidden.var(0) + 0.1))
    kept = jax.random.bernoulli(key, 0.7, (4,)) / 0.7
    return jnp.mean(((hidden * kept) @ params["out"] - batch[1]) ** 2) / 2


def test_the_twin_of_a_normalising_network_is_the_second_order_of_every_batch():
    rng = np.random.default_rng(4)
    begin = {"hidden": rng.normal(size=(4, 3)), "out": rng.normal(size=4)}
    problem = problems.batch_risk(normalised, (INPUTS, TARGETS), begin, batch_size=6)
    twin, away = linear_twin(problem, begin), 0.3 * rng.normal(size=16)
    flat = np.asarray(problem.flatten(begin)) + away
    chosen, key = jnp.array([0, 4, 7, 9, 20, 3]), jax.random.key(5)

    def alone(at):
        return problem.batch_loss(problem.unflatten(at), problem.take(chosen), key)

    base = problem.flatten(begin)
    slope, curvature = np.asarray(jax.grad(alone)(base)), np.asarray(jax.hessian(alone)(base))
    found = twin.stochastic_gradient(key, problem.unflatten(flat), chosen)
    expected = slope + curvature @ away
    np.testing.assert_allclose(twin.flatten(found), expected, rtol=1e-4, atol=1e-5)
    other = twin.stochastic_gradient(jax.random.key(6), problem.unflatten(flat), chosen)
    assert np.linalg.norm(twin.flatten(other) - expected) > 0.05 * np.linalg.norm(expected)
    rise = twin.batch_loss(problem.unflatten(flat), problem.take(chosen), key) - alone(base)
    assert float(rise) == pytest.approx(slope @ away + away @ curvature @ away / 2, rel=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_what_has_no_twin_is_named():
    bowl = problems.landscape(lambda x: x @ x, np.zeros(2))
    with pytest.raises(ValueError, match="must have a data set, got Landscape"):
        linear_twin(bowl, np.zeros(2))
    problem = problems.linear_regression(INPUTS, TARGETS)
    with pytest.raises(ValueError, match="shapes"):
        linear_twin(problem, np.zeros(4))
