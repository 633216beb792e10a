"""Cells that differ in traced numbers only: one compiled call, and not a bit of difference."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import empirical_risk
from statsgd.sweeps import IncompleteSweepWarning

RNG = np.random.default_rng(2)
EXAMPLES = {"x": RNG.normal(size=(24, 3)), "y": RNG.normal(size=24)}
CELLS = {"learning_rate": [0.02, 0.05, 0.1], "batch_size": [2, 4], "momentum": [0.0, 0.9]}
TRACED = ("learning_rate", "momentum")
traces = []


def loss(params, example):
    traces.append(None)
    return 0.5 * (jnp.sum(example["x"] * params) - example["y"]) ** 2


PROBLEM = empirical_risk(loss, EXAMPLES, np.zeros(3))
OPTIONS = {"steps": 20, "replicas": 4, "progress": False}


def sgd(cell):
    noise = Minibatch(cell["batch_size"])
    return statsgd.SGD(cell["learning_rate"], noise, cell["momentum"])


def run(cell):
    return statsgd.simulate(PROBLEM, sgd(cell), seed=cell.seed, **OPTIONS)["endpoints"].to_dataset()


calls: list[list[int]] = []


def run_together(cells):
    calls.append([cell.index for cell in cells])
    together = statsgd.batch([sgd(cell) for cell in cells])
    seeds = [cell.seed for cell in cells]
    endpoints = statsgd.simulate(PROBLEM, together, seed=seeds, **OPTIONS)["endpoints"]
    return [endpoints.to_dataset().isel(cell=i) for i in range(len(cells))]


def sweep(run, store, cells=CELLS, **options):
    return statsgd.sweep(run, cells, store=store, seed=1, progress=False, **options)


@pytest.mark.slow
def test_batches_equal_single_cells_and_compile_once_a_program(tmp_path):
    before = len(traces)
    together = sweep(run_together, tmp_path / "batched", batched=TRACED)
    in_batches = len(traces) - before
    # One program for each batch size, whatever the rates and momenta.
    assert sorted(map(sorted, calls)) == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]
    alone = sweep(run, tmp_path / "alone")
    assert together["results"].to_dataset().identical(alone["results"].to_dataset())
    calls.clear()
    before = len(traces)
    rates = CELLS | {"learning_rate": [0.03, 0.04, 0.06]}
    sweep(run_together, tmp_path / "other", rates, batched=TRACED)
    assert len(traces) == before
    assert in_batches > 0
    calls.clear()
    parts = sweep(run_together, tmp_path / "parts", batched=TRACED, batch_size=3)
    assert [len(call) for call in calls] == [3] * 4
    assert parts["results"].to_dataset().identical(alone["results"].to_dataset())


def shaky(cells):
    calls.append([cell.index for cell in cells])
    if any(cell["a"] == 2 for cell in cells):
        raise ArithmeticError("two")
    return [xr.Dataset({"x": cell["a"]}) for cell in cells]


def test_one_bad_cell_does_not_take_its_batch_along(tmp_path):
    calls.clear()
    with pytest.warns(IncompleteSweepWarning, match="1 of 3 cells failed.*ArithmeticError: two"):
        tree = sweep(shaky, tmp_path / "store", {"a": [1, 2, 3]}, batched=["a"])
    assert calls == [[0, 1, 2], [0], [1], [2]]
    assert tree["cells"].done.values.tolist() == [True, False, True]
    with pytest.warns(IncompleteSweepWarning, match="must return a list of 1 results, got <class"):
        sweep(lambda cells: xr.Dataset({"x": 1}), tmp_path / "one", {"a": [1]}, batched=["a"])
