"""Parameters of data trees are joined in the order of the problem's leaves."""

import numpy as np
import pytest
import xarray as xr

from statsgd.comparison.samples import read_ensemble
from statsgd.ensembles import ORDER, endpoint_trajectories, trajectories

A, B = np.arange(6.0).reshape(3, 2), 10 + np.arange(3.0)


def tree(order=None):
    """Endpoints of three replicas, listed as a store may: not in the order of the leaves."""
    ends = xr.Dataset({"b": ("replica", B), "a": (("replica", "a_dim_0"), A)})
    if order is not None:
        ends.attrs[ORDER] = order
    buffers = (-ends).assign_attrs(ends.attrs)
    return xr.DataTree.from_dict({"endpoints": ends, "momentum_buffer": buffers})


def test_parameters_are_joined_in_the_order_that_is_known():
    right = np.concatenate([A, B[:, None]], axis=1)[:, None]
    np.testing.assert_array_equal(endpoint_trajectories(tree(), ["a", "b"]).params, right)
    np.testing.assert_array_equal(endpoint_trajectories(tree(["a", "b"])).params, right)
    np.testing.assert_array_equal(read_ensemble(tree(["a", "b"]))["params"], right)
    # Whoever asks knows better.
    found = endpoint_trajectories(tree(["b", "a"]), ["a", "b"])
    np.testing.assert_array_equal(found.params, right)
    np.testing.assert_array_equal(found.momentum_buffer, -right)


def test_several_parameters_without_an_order_are_refused():
    for read in (endpoint_trajectories, read_ensemble):
        with pytest.raises(ValueError, match=r"\['a', 'b'\] in no known one.*problem.names"):
            read(tree())
    alone = tree()["endpoints"].to_dataset()[["b"]]
    found = endpoint_trajectories(xr.DataTree.from_dict({"endpoints": alone})).params
    np.testing.assert_array_equal(found[:, 0, 0], B)
    as_text = alone.assign_attrs({ORDER: "b"})  # as NetCDF gives a list of one
    found = endpoint_trajectories(xr.DataTree.from_dict({"endpoints": as_text})).params
    np.testing.assert_array_equal(found[:, 0, 0], B)


def test_bad_input():
    with pytest.raises(ValueError, match=r"params must be \['a', 'c'\], got \['a', 'b'\]"):
        endpoint_trajectories(tree(), ["a", "c"])
    with pytest.raises(ValueError, match="simulated with keep=…, with the group 'snapshots'"):
        trajectories(tree())
    swept = tree()["endpoints"].to_dataset().expand_dims(learning_rate=[0.1])
    with pytest.raises(ValueError, match=r"one cell of a grid, got the axes \['learning_rate'\]"):
        endpoint_trajectories(xr.DataTree.from_dict({"endpoints": swept}))
    run = xr.Dataset({"diverged": ("replica", [False, True, False])})
    damaged = xr.DataTree.from_dict({"endpoints": tree()["endpoints"].to_dataset(), "run": run})
    with pytest.raises(ValueError, match="1 of 3 replicas diverged"):
        endpoint_trajectories(damaged)
    alive = endpoint_trajectories(damaged, ["b", "a"], condition_on_survival=True)
    np.testing.assert_array_equal(alive.params[:, 0, 0], B[[0, 2]])
