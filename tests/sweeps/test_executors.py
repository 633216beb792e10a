"""Executors: bitwise what the serial one gives, whatever becomes of workers."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import statsgd
from statsgd.sweeps import IncompleteSweepWarning, Processes, read, workers
from statsgd.sweeps.executors import executor_for
from statsgd.sweeps.work import Work, numerics
from tests.sweeps.runs import AXES, Troubled, draw, same, starts, where

ROOT = Path(__file__).parents[2]


def sweep(store, run=draw, **options):
    return statsgd.sweep(run, AXES, store=store, seed=5, progress=False, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("sweep") / "store").load()


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    # Not the default client, so that nothing here depends on there being one.
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def troubled(folder, *files):
    for name in files:
        (folder / name).touch()
    return Troubled(str(folder))


@pytest.mark.slow
def test_processes_equal_serial_and_survive_their_workers(tmp_path, reference):
    run = troubled(tmp_path, "die 2")
    assert same(sweep(tmp_path / "store", run, executor=Processes(workers=2)), reference)
    assert starts(tmp_path, 6) == [1, 1, 2, 1, 1, 1]


@pytest.mark.slow
def test_a_cell_that_kills_every_worker_fails_alone(tmp_path):
    run = troubled(tmp_path, "always die 2", "raise 4")
    with pytest.warns(IncompleteSweepWarning, match="2 of 6 cells failed.*exit code -9"):
        tree = sweep(tmp_path / "store", run, executor=Processes(workers=1), retries=1)
    assert starts(tmp_path, 6) == [1, 1, 2, 1, 1, 1]
    assert tree["cells"].done.values.reshape(-1).tolist() == [True, True, False, True, False, True]
    errors = tree["cells"].error.values.reshape(-1)
    assert errors[2].startswith("worker died 2 times")
    assert errors[4].endswith("FloatingPointError: no result at 4")


def test_what_processes_cannot_import_is_said(tmp_path):
    with pytest.raises(ValueError, match="run must be importable for executor 'processes', got"):
        sweep(tmp_path / "store", lambda cell: draw(cell), executor="processes")


def test_two_dask_workers_equal_serial(tmp_path, client, reference):
    assert same(sweep(tmp_path / "store", executor=client), reference)


def test_dask_workers_share_the_cells(tmp_path, client):
    axes = {"number": list(range(12))}
    tree = statsgd.sweep(
        where, axes, store=tmp_path / "store", seed=5, progress=False, executor=client
    )
    _, shares = np.unique(tree["results"]["process"], return_counts=True)
    assert len(shares) == 2
    assert min(shares) >= 2


@pytest.mark.slow
def test_an_address_is_enough_and_errors_come_back(tmp_path, client, reference):
    address = client.scheduler.address
    run = troubled(tmp_path, "raise 3")
    with pytest.warns(IncompleteSweepWarning, match="1 of 6 cells failed.*no result at 3"):
        tree = sweep(tmp_path / "store", run, executor=address)
    assert str(tree["cells"].error.sel(rate=0.2, word="bb").values).startswith("Traceback")
    (tmp_path / "raise 3").unlink()
    assert same(sweep(tmp_path / "store", run, executor=address), reference)
    assert starts(tmp_path, 6) == [1, 1, 1, 2, 1, 1]


def test_a_killed_dask_worker_loses_and_doubles_nothing(tmp_path, client, reference):
    run = troubled(tmp_path, "die 2")
    assert same(sweep(tmp_path / "store", run, executor=client), reference)
    begun = starts(tmp_path, 6)
    assert begun[2] == 2
    # A result that waited on the worker that died is computed again, to the same bits.
    assert max(begun) <= 2


def test_an_address_without_a_scheduler_is_said(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("statsgd.sweeps.distributed._TIMEOUT", "0.5s")
    with pytest.raises(ConnectionError, match="address of a running dask scheduler, got 'tcp:"):
        sweep(tmp_path / "store", executor="tcp://127.0.0.1:9")


SWEPT = """
import signal
import sys
import statsgd
from tests.sweeps.runs import AXES, Troubled
if __name__ == "__main__":
    # A shell that runs these tests in its background has had Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    executor = statsgd.sweeps.Processes(workers=2)
    statsgd.sweep(
        Troubled(sys.argv[1]), AXES, store=sys.argv[1] + "/store", seed=5, executor=executor
    )
"""


@pytest.mark.slow
def test_control_c_leaves_a_store_that_resumes(tmp_path, reference):
    (tmp_path / "script.py").write_text(SWEPT)
    # However slowly the store is read meanwhile, these do not end.
    held = [f"hold {index}" for index in range(2, 6)]
    run = troubled(tmp_path, *held)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ValueError):  # there is no store yet
            tree = read(tmp_path / "store")
            if "cells" in tree.children and tree["cells"].done.sum() >= 2:
                break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: all of the group
    with process:
        _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "KeyboardInterrupt" in said
    done = int(read(tmp_path / "store")["cells"].done.sum())
    assert done == 2
    for name in held:
        (tmp_path / name).unlink()
    assert same(sweep(tmp_path / "store", run), reference)
    assert sum(starts(tmp_path, 6)) <= 6 + 2


def test_a_worker_has_the_stated_threads_and_the_numerics_of_the_caller(monkeypatch):
    monkeypatch.setenv("NPROC", "9")
    monkeypatch.setattr(workers, "_claimed", {})
    monkeypatch.setattr(workers, "gpus", lambda: [])
    updates = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: updates.append(setting))
    work = Work(draw, (), False, numerics() | {"jax_enable_x64": True})
    workers.prepare(work, threads=3)
    assert os.environ["NPROC"] == "3"
    assert ("jax_enable_x64", True) in updates
    workers.prepare(work, threads=4)
    assert os.environ["NPROC"] == "3"


@pytest.mark.slow
def test_a_lost_scheduler_is_said_and_the_sweep_goes_on(tmp_path, monkeypatch, reference):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setattr(workers, "_claimed", {})
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        (tmp_path / "slow").touch()
        with pytest.raises(ConnectionError, match="executor lost its dask scheduler"):
            sweep(
                tmp_path / "store",
                Troubled(str(tmp_path)),
                executor=client,
                watch=lambda *_: cluster.close(),
            )
    (tmp_path / "slow").unlink()
    done = int(read(tmp_path / "store")["cells"].done.sum())
    assert 1 <= done < 6
    assert same(sweep(tmp_path / "store", Troubled(str(tmp_path))), reference)


@pytest.mark.filterwarnings("default")  # what it warns of is not ours
def test_the_recipe_for_slurm_prints_its_job_script():
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(
        queue="gpu", walltime="02:00:00", cores=8, processes=4, memory="32GB",
        job_extra_directives=["--gpus=4"],
    ) as cluster:  # fmt: skip
        script = cluster.job_script()
    print(script)
    for line in ("#SBATCH -p gpu", "#SBATCH -t 02:00:00", "#SBATCH --gpus=4"):
        assert line in script
    # Four workers a job with two threads each: every one takes a GPU of its own.
    assert "--nworkers 4" in script
    assert "--nthreads 2" in script


def test_every_worker_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(workers, "_claimed", {})
    # Locks belong to the open file, so that two claims here are as those of two processes.
    assert [workers.claim(["0", "1"]) for _ in range(2)] == ["0", "1"]
    with pytest.raises(RuntimeError, match="a GPU for every worker, and other workers hold all"):
        workers.claim(["0", "1"])
    for lock in workers._claimed.values():
        lock.close()
    monkeypatch.setattr("statsgd.sweeps.processes.gpus", lambda: ["0", "1"])
    assert Processes()._number() == 2
    with pytest.raises(ValueError, match="workers must be at most the number of GPUs, 2, got 3"):
        Processes(workers=3)._number()


def test_gpus_are_those_that_are_visible(monkeypatch):
    class Plugin:
        name = "xla_cuda12"

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    monkeypatch.setattr(workers.metadata, "entry_points", lambda group: [Plugin()])
    assert workers.gpus() == ["3", "GPU-5"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert workers.gpus() == []


def test_executors_are_checked():
    assert executor_for(Processes(workers=2)).workers == 2
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Processes(threads=0)
