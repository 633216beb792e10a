"""Measures over ensembles equal the measures at each point, and are labelled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd import noise
from statsgd.measures import over_blocks, over_endpoints, over_replicas, trace
from statsgd.problems import quadratic
from tests.measures.problem_cases import PARAMS, network


def _tree(lead, **coords):
    """Endpoints scattered about `PARAMS`, with the dims `lead` before those of the params."""
    rng = np.random.default_rng(0)
    shape = tuple(len(coords[dim]) for dim in lead)
    variables = {
        name: (
            (*lead, *(f"{name}_dim_{i}" for i in range(value.ndim))),
            value + 0.1 * rng.normal(size=shape + value.shape),
        )
        for name, value in PARAMS.items()
    }
    return xr.Dataset(variables, coords=coords)


@pytest.fixture(scope="module")
def ensemble():
    endpoints = _tree(("replica",), replica=np.arange(3))
    run = xr.Dataset({"diverged": ("replica", [False, True, False])})
    return xr.DataTree.from_dict({"endpoints": endpoints, "run": run})


def test_endpoints_are_measured_as_single_points_are(ensemble):
    found = over_endpoints(trace, network(), ensemble, replicas_at_once=2)
    assert found["value"].dims == ("replica",)
    endpoints = ensemble["endpoints"]
    for replica in (0, 2):
        at = {name: endpoints[name].values[replica] for name in PARAMS}
        np.testing.assert_allclose(found["value"][replica], trace(network(), at).value)
    assert not found["standard_error"].any()
    # A replica that diverged is measured where it froze, and flagged.
    assert list(found["diverged"].values) == [False, True, False]
    assert np.isfinite(found["value"][1])
    assert found.attrs["measure"] == "trace"


def test_any_function_that_jax_can_trace_is_a_measure_and_is_traced_once(ensemble):
    calls = []

    def gradient(problem, params, power):
        calls.append(1)
        return problem.flatten(problem.gradient(params)) ** power

    found = over_endpoints(gradient, network(), ensemble, power=2)
    assert found["gradient"].dims == ("replica", "gradient_dim_0")
    assert found["gradient"].shape == (3, 10)
    assert len(calls) == 1


def test_snapshots_of_grids_keep_their_axes():
    axes = {"learning_rate": [0.01, 0.05], "replica": [0, 1, 2], "step": [2, 4]}
    tree = xr.DataTree.from_dict({"snapshots": _tree(tuple(axes), **axes)})

    def norms(problem, params):
        return jax.tree.map(lambda leaf: jnp.sum(leaf**2), params)

    found = over_endpoints(norms, network(), tree, group="snapshots")
    for name in PARAMS:
        assert found[name].dims == tuple(axes)
        inner = [dim for dim in tree["snapshots"][name].dims if dim not in axes]
        np.testing.assert_allclose(found[name], (tree["snapshots"][name] ** 2).sum(inner))
    np.testing.assert_allclose(found.coords["learning_rate"], [0.01, 0.05])
    assert list(found.coords["step"]) == [2, 4]


@pytest.mark.slow
def test_ensembles_of_sgd_are_measured_block_by_block():
    dynamics = statsgd.grid(statsgd.SGD(0.05, noise.Minibatch(3)), {"learning_rate": [0.01, 0.05]})
    swept = statsgd.simulate(
        network(), dynamics, steps=4, replicas=3, seed=0, keep=[2, 4], start=PARAMS, progress=False
    )
    found = over_endpoints(over_blocks, network(), swept, group="snapshots", measure=trace)
    assert found["out.value"].dims == ("learning_rate", "replica", "step")
    ends = over_endpoints(trace, network(), swept)
    assert not ends["diverged"].any()
    total = sum(found[f"{name}.value"].isel(step=1) for name in PARAMS)
    np.testing.assert_allclose(total, ends["value"], rtol=1e-10)


def test_replicas_draw_their_own_random_numbers():
    problem = quadratic([[2.0, 1.0], [1.0, 2.0]])
    points = np.zeros((4, 2))
    shared = over_replicas(trace, problem, points, samples=16).value
    own = over_replicas(trace, problem, points, seed=1, samples=16)
    assert np.ptp(shared) == 0 < np.ptp(own.value)
    assert np.all(np.abs(own.value - 4) < 4 * own.standard_error)


def test_refusals(ensemble, unchecked):
    with pytest.raises(ValueError, match="with the group 'snapshot'"):
        over_endpoints(trace, network(), ensemble, group="snapshot")
    with pytest.raises(ValueError, match="must hold the params"):
        over_endpoints(trace, quadratic(np.eye(2)), ensemble)
    with pytest.raises(ValueError, match="behind one leading axis of replicas"):
        over_replicas(trace, network(), PARAMS)
    with pytest.raises(ValueError, match="replicas_at_once"):
        over_endpoints(trace, network(), ensemble, replicas_at_once=0)
