"""Measures over ensembles equal the measures at each point, and are labelled."""

import numpy as np
import pytest

import statsgd
from statsgd import noise
from statsgd.measures import hessian, over_blocks, over_endpoints, over_replicas, trace
from statsgd.problems import quadratic
from tests.measures.problem_cases import PARAMS, network


@pytest.fixture(scope="module")
def swept():
    dynamics = statsgd.grid(statsgd.SGD(0.05, noise.Minibatch(3)), {"learning_rate": [0.01, 0.05]})
    return statsgd.simulate(
        network(), dynamics, steps=4, replicas=3, seed=0, keep=[2, 4], start=PARAMS, progress=False
    )


@pytest.fixture(scope="module")
def ensemble(swept):
    return swept.isel(learning_rate=1)


def _at(ensemble, replica):
    endpoints = ensemble["endpoints"]
    return {name: endpoints[name].values[replica] for name in PARAMS}


def test_endpoints_are_measured_as_single_points_are(ensemble):
    found = over_endpoints(trace, network(), ensemble)
    assert found["value"].dims == ("replica",)
    expected = [np.trace(hessian(network(), _at(ensemble, i))) for i in range(3)]
    np.testing.assert_allclose(found["value"], expected, rtol=1e-7)
    assert not found["standard_error"].any()
    assert not found["diverged"].any()
    assert found.attrs["measure"] == "trace"
    # How many replicas are computed at once does not matter.
    twice = over_endpoints(trace, network(), ensemble, replicas_at_once=2)
    np.testing.assert_allclose(twice["value"], found["value"], rtol=1e-12)


def test_any_function_that_jax_can_trace_is_a_measure_and_is_traced_once(ensemble):
    calls = []

    def gradient(problem, params, power):
        calls.append(1)
        return problem.flatten(problem.gradient(params)) ** power

    found = over_endpoints(gradient, network(), ensemble, power=2)
    assert found["gradient"].dims == ("replica", "gradient_dim_0")
    assert found["gradient"].shape == (3, 10)
    assert len(calls) == 1


def test_snapshots_and_grids_keep_their_axes(swept, ensemble):
    found = over_endpoints(over_blocks, network(), swept, group="snapshots", measure=trace)
    assert found["out.value"].dims == ("learning_rate", "replica", "step")
    np.testing.assert_allclose(found.coords["learning_rate"], [0.01, 0.05])
    assert list(found.coords["step"]) == [2, 4]
    ends = over_endpoints(trace, network(), ensemble)["value"]
    total = sum(found[f"{name}.value"].isel(learning_rate=1, step=1) for name in PARAMS)
    np.testing.assert_allclose(total, ends, rtol=1e-10)


def test_replicas_draw_their_own_random_numbers():
    problem = quadratic([[2.0, 1.0], [1.0, 2.0]])
    points = np.zeros((4, 2))
    shared = over_replicas(trace, problem, points, samples=20).value
    own = over_replicas(trace, problem, points, seed=1, samples=20)
    assert np.ptp(shared) == 0 < np.ptp(own.value)
    assert np.all(np.abs(own.value - 4) < 4 * own.standard_error)
    assert shared[0] == pytest.approx(trace(problem, points[0], samples=20).value, rel=1e-12)


def test_refusals(ensemble, unchecked):
    with pytest.raises(ValueError, match="with the group 'snapshot'"):
        over_endpoints(trace, network(), ensemble, group="snapshot")
    with pytest.raises(ValueError, match="must hold the params"):
        over_endpoints(trace, quadratic(np.eye(2)), ensemble)
    with pytest.raises(ValueError, match="behind one leading axis of replicas"):
        over_replicas(trace, network(), PARAMS)
    with pytest.raises(ValueError, match="replicas_at_once"):
        over_endpoints(trace, network(), ensemble, replicas_at_once=0)
