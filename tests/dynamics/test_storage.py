"""Stores: the same result as in memory, from any interruption, or a refusal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
PROBLEM = linear_regression(INPUTS, INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24))
SGD = statsgd.SGD(0.05, Minibatch(4, "reshuffle"), 0.5)


def norm(params):
    return jnp.sum(params**2)


def run(store=None, problem=PROBLEM, dynamics=SGD, **changes):
    options = {
        "steps": 90,
        "replicas": 6,
        "seed": 3,
        "progress": False,
        "phases": 6,
        "observe": {"norm": norm},
        "observe_at": 5,
        "keep": [0, 40, 80],
    }
    return statsgd.simulate(problem, dynamics, store=store, **(options | changes))


def same(one, other):
    return set(one.children) == set(other.children) and all(
        one[group].to_dataset().equals(other[group].to_dataset()) for group in one.children
    )


@pytest.fixture(scope="module")
def reference():
    return run()


@pytest.mark.parametrize(
    "dynamics", [SGD, statsgd.grid(SGD, momentum=[0.0, 0.5])], ids=["one", "grid"]
)
def test_a_store_holds_what_memory_would(tmp_path, dynamics):
    path = tmp_path / "store"
    stored = run(path, dynamics=dynamics)
    assert same(stored, run(dynamics=dynamics))
    assert stored.attrs["seed"] == 3
    with xr.open_datatree(path, engine="zarr", consolidated=False) as opened:
        assert same(opened.drop_nodes("checkpoint"), stored)
    assert same(run(str(path), dynamics=dynamics, block_size=2), stored)  # finished: only read


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 7])
@pytest.mark.parametrize("where", ["_flush", "_save"])
def test_a_run_cut_off_inside_a_checkpoint_ends_the_same(
    tmp_path, monkeypatch, reference, after, where
):
    monkeypatch.setattr("statsgd.running.storage._SHARE_OF_TIME", np.inf)  # at every chunk
    from statsgd.running.storage import ZarrStore

    calls, whole = [], getattr(ZarrStore, where)

    def cut(self, *arguments):
        calls.append(None)
        if len(calls) > after:
            raise Stop
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ZarrStore, where, cut)
        with pytest.raises(Stop):
            run(tmp_path / "store")
    assert same(run(tmp_path / "store", block_size=4), reference)


KILLED = """
import tests.conftest  # the same type checker, so that functions are the same
import sys
from statsgd.running import chunks
chunks._SECONDS_PER_CHUNK = 0.01
from tests.dynamics.test_storage import run
run(sys.argv[2], steps=60_006, observe_at=1000, keep=None)
"""


@pytest.mark.slow
def test_a_run_killed_at_random_times_ends_the_same(tmp_path):
    here = Path(__file__).parent
    path = tmp_path / "store"
    clock = np.random.default_rng(12)
    command = [sys.executable, "-c", KILLED, str(here), str(path)]
    for _ in range(12):
        process = subprocess.Popen(
            command, cwd=here.parents[1], env={**os.environ, "JAX_PLATFORMS": "cpu"}
        )
        deadline = time.monotonic() + 120
        while not path.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(clock.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    long = {"steps": 60_006, "observe_at": 1000, "keep": None}
    assert same(run(path, **long), run(**long))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"steps": 96}, "steps is 90 there and 96 here"),
        ({"replicas": 7}, "replicas is 6 there and 7 here"),
        ({"phases": 3}, "phases is 6 there and 3 here"),
        ({"keep": [40]}, "schedules.snapshots is"),
        ({"observe": {"other": norm}}, "observe.norm is"),
        ({"observe": {"norm": lambda params: jnp.sum(params**3)}}, r"observe\.norm\.function is"),
        ({"start": np.ones(3)}, "start is None there"),
        ({"dynamics": statsgd.SGD(0.06, SGD.noise, 0.5)}, r"dynamics\.learning_rate is 0\.05"),
        ({"dynamics": statsgd.SGD(0.05, Minibatch(6), 0.5)}, r"dynamics\.noise\.batch_size is 4"),
        ({"dynamics": statsgd.grid(SGD, momentum=[0.5])}, r"dynamics\.momentum is 0\.5"),
        ({"problem": linear_regression(INPUTS, np.ones(24))}, r"problem\.examples is"),
    ],
)
def test_a_store_of_another_configuration_is_refused(tmp_path_factory, changes, field):
    path = tmp_path_factory.getbasetemp() / "configured"
    if not path.exists():
        run(path)
    before = {item: item.stat().st_mtime_ns for item in path.rglob("*")}
    with pytest.raises(ValueError, match=f"holds another configuration: {field}"):
        run(path, **changes)
    assert {item: item.stat().st_mtime_ns for item in path.rglob("*")} == before


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="store must be a new path or a stored ensemble, got file"):
        run(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="which holds other files"):
        run(tmp_path / "folder")
    xr.Dataset({"x": 1}).to_zarr(tmp_path / "zarr", consolidated=False, zarr_format=3)
    with pytest.raises(ValueError, match="which holds 'something else'"):
        run(tmp_path / "zarr")
    assert [item.name for item in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_damage_is_said(tmp_path, reference, share):
    path = tmp_path / "store"
    run(path)
    chunk = path / "checkpoint" / "state" / "c" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is damaged: checkpoint"):
        run(path)
    chunk.unlink()
    assert same(run(path), reference)
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:40])
    with pytest.raises(ValueError, match=r"is damaged: zarr\.json"):
        run(path)
