"""Two processes under `jax.distributed` give what one gives, bit for bit."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.kernels import MALA
from statsgd.laws import Gibbs
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression, quartic_wells
from statsgd.running.processes import share_of
from tests.running.cases import same

ROOT = Path(__file__).parents[2]


def run(store=None, **changes):
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(24, 3))
    problem = linear_regression(inputs, inputs @ [1.0, -1.0, 0.5] + rng.normal(size=24))
    sgd = statsgd.SGD(0.05, Minibatch(4, "reshuffle"), 0.5)
    grid = statsgd.grid(sgd, learning_rate=[0.02, 0.05, 0.1])
    options = {"steps": 90, "replicas": 21, "seed": 3, "block_size": 8, "keep": [0, 40, 80]}
    observe = {"norm": jnp.linalg.norm}
    return statsgd.simulate(
        problem, grid, store=store, observe=observe, progress=False, **(options | changes)
    )


def draw():
    law = Gibbs(quartic_wells(), 0.5)
    return statsgd.sample(
        law, MALA(), draws=40, warmup=30, chains=6, seed=1, diagnose=False,
        grid={"temperature": [0.5, 1.0]}, progress=False,
    )  # fmt: skip


TOGETHER = """
import sys
import jax
import numpy as np
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
import tests.conftest  # the same type checker, so that functions are the same
from tests.running.test_processes import draw, run
assert jax.process_count() == 2
for name, found in {
    "ensemble": run(folder + "/ensemble.zarr"),
    "draws": draw(),
}.items():
    for group in found.children:
        arrays = found[group].to_dataset()
        np.savez(
            f"{folder}/{name} {rank} {group}",
            **{str(k): v.values for k, v in arrays.variables.items()},
        )
try:
    run(folder + "/ensemble.zarr", seed=4)
except (ValueError, RuntimeError) as error:
    print(rank, type(error).__name__, error, flush=True)
alone = run(devices=[jax.local_devices()[0]], seed=rank)
print(rank, float(alone["endpoints"].params.sum()), flush=True)
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(rank), port, str(tmp_path)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = []
    for process in processes:
        with process:
            outputs.append(process.communicate(timeout=300))
        assert process.returncode == 0, outputs[-1][1]
    one = {"ensemble": run(), "draws": draw()}
    for name, tree in one.items():
        for group in tree.children:
            for rank in range(2):
                with np.load(tmp_path / f"{name} {rank} {group}.npz") as found:
                    variables = tree[group].to_dataset().variables
                    assert set(found) == set(variables)
                    for key, value in variables.items():
                        np.testing.assert_array_equal(found[key], value.values, err_msg=name)
    # What two processes wrote is a store like any other, and one process reads it.
    assert same(run(tmp_path / "ensemble.zarr"), one["ensemble"])
    # A store of another run is refused in both, and neither waits for the other.
    assert "0 ValueError store" in outputs[0][0]
    assert "seed is 3 there and 4 here" in outputs[0][0]
    assert "1 RuntimeError the first process could not use the store" in outputs[1][0]
    # Devices of one process make a run of its own.
    for rank in range(2):
        alone = float(run(seed=rank)["endpoints"].params.sum())
        assert f"{rank} {alone}" in outputs[rank][0]


def test_devices_are_of_one_process_or_of_all(monkeypatch):
    class Device:
        def __init__(self, process_index):
            self.process_index = process_index

    first, second, third = Device(0), Device(1), Device(2)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    assert share_of.__wrapped__([first, first]) == ([first, first], 1)
    assert share_of.__wrapped__([first, second, third]) == ([first], 3)
    for some in ([first, second], [first, first, second, third]):
        with pytest.raises(ValueError, match="those of one process, or as many of each process"):
            share_of.__wrapped__(some)
