"""The linear twin: the problem itself where that is quadratic, its second order elsewhere."""

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


@pytest.mark.usefixtures("unchecked")
def test_what_has_no_twin_is_named():
    bowl = problems.landscape(lambda x: x @ x, np.zeros(2))
    with pytest.raises(ValueError, match="must have a data set, got Landscape"):
        linear_twin(bowl, np.zeros(2))
    problem = problems.linear_regression(INPUTS, TARGETS)
    with pytest.raises(ValueError, match="shapes"):
        linear_twin(problem, np.zeros(4))
