"""Stores and devices: the same draws as in memory on one device, from any interruption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from statsgd import sample
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian
from statsgd.running import chunks

LAW = HeavyBallGaussian([[2.0, 0.1], [0.1, 1.0]], [[0.3, 0.0], [0.0, 0.2]], 0.5, 0.5)
HERE = Path(__file__)


def run(store=None, law=LAW, kernel=None, **changes):
    options = {"warmup": 150, "draws": 300, "chains": 3, "seed": 5, "thinning": 2}
    kernel = MALA(step_size=0.4) if kernel is None else kernel
    return sample(law, kernel, store=store, progress=False, diagnose=False, **(options | changes))


def same(one, other):
    return set(one.children) == set(other.children) and all(
        one[group].to_dataset().equals(other[group].to_dataset()) for group in one.children
    )


@pytest.fixture(scope="module")
def reference():
    return run()


def test_a_store_holds_what_memory_would(tmp_path, reference):
    stored = run(tmp_path / "store")
    assert same(stored, reference)
    assert stored.attrs == reference.attrs
    assert same(run(str(tmp_path / "store")), reference)  # finished: only read
    fixed = {"kernel": MALA(adapt_step_size=False), "grid": {"step_size": [0.1, 0.4]}}
    assert same(run(tmp_path / "grid", **fixed), run(**fixed))


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("where", ["_flush", "_save"])
def test_a_run_interrupted_inside_a_checkpoint_ends_the_same(
    tmp_path, monkeypatch, reference, after, where
):
    from statsgd.running.storage import ZarrStore

    monkeypatch.setattr("statsgd.running.storage._SHARE_OF_TIME", np.inf)  # at every chunk
    monkeypatch.setattr(chunks, "_SECONDS_PER_CHUNK", 0.0)  # chunks of one step or draw
    monkeypatch.setattr(chunks, "_FIRST_CHUNK", 120)
    calls, whole = [], getattr(ZarrStore, where)

    def cut(self, *arguments):
        calls.append(None)
        if len(calls) > after:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ZarrStore, where, cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "store")
    monkeypatch.undo()
    assert same(run(tmp_path / "store"), reference)


KILLED = """
import tests.conftest  # the same type checker, so that functions are the same
import sys
from statsgd.running import chunks
chunks._SECONDS_PER_CHUNK = 0.01
from tests.kernels.test_runner_storage import run
run(sys.argv[1], draws=20_000)
"""


@pytest.mark.slow
def test_a_run_killed_at_random_times_ends_the_same(tmp_path):
    path = tmp_path / "store"
    clock = np.random.default_rng(4)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            cwd=HERE.parents[2],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        state = path / "checkpoint" / "state" / "c" / "0"
        deadline = time.monotonic() + 60
        while not state.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(clock.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert same(run(path, draws=20_000), run(draws=20_000))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 6}, "seed is 5 there and 6 here"),
        ({"draws": 301}, "draws is 300 there and 301 here"),
        ({"warmup": 0}, "warmup is 150 there and 0 here"),
        ({"thinning": 1}, "thinning is 2 there and 1 here"),
        ({"chains": 4}, "chains is 3 there and 4 here"),
        ({"kernel": MALA(step_size=0.5)}, r"kernel_settings\.parameters\.step_size is 0\.4"),
        (
            {"kernel": MALA(step_size=0.4, temperature=2.0)},
            r"kernel_settings\.parameters\.temperature is",
        ),
        ({"kernel": MALA(step_size=0.4, target_accept_prob=0.5)}, "kernel_settings.structure is"),
        ({"grid": {"temperature": [1.0]}}, "grid.temperature is None there"),
        (
            {"law": HeavyBallGaussian(LAW.hessian, LAW.noise_covariance, 0.4, 0.5)},
            r"law\.arguments\.learning_rate is 0\.5 there and 0\.4 here",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_store_of_another_configuration_is_refused(tmp_path_factory, changes, field):
    path = tmp_path_factory.getbasetemp() / "configured draws"
    if not path.exists():
        run(path)
    before = {item: item.stat().st_mtime_ns for item in path.rglob("*")}
    with pytest.raises(ValueError, match=f"holds another configuration: {field}"):
        run(path, **changes)
    assert {item: item.stat().st_mtime_ns for item in path.rglob("*")} == before


def test_what_is_no_store_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="store must be a new path or stored draws, got file"):
        run(tmp_path / "file")


SHARDED = """
import tests.conftest
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from tests.kernels.test_runner_storage import run
one = run(chains=5, devices=jax.devices()[:1])
two = run(chains=5, devices=jax.devices())
assert len(jax.devices()) == 2
for group in one.children:
    assert one[group].to_dataset().equals(two[group].to_dataset()), group
"""


@pytest.mark.slow
def test_two_devices_give_the_draws_of_one():
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        cwd=HERE.parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
