"""Stores: the same result as in memory, from any interruption, or a refusal."""

import errno
import resource
import signal
import time

import jax
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd.ensembles import endpoint_trajectories
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression
from statsgd.running.storage import ZarrStore
from statsgd.running.writing import StoreError, sole_writer
from tests.running.cases import CASES, INPUTS, LAW, SGD, norm, same, start


@pytest.fixture(scope="module", params=CASES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def case(name):
    return CASES[name]


@pytest.fixture(scope="module")
def reference(case):
    return case.run()


@pytest.mark.parametrize("grid", [False, True], ids=["one", "grid"])
def test_a_store_holds_what_memory_would(tmp_path, case, grid):
    options = case.grid if grid else {}
    path = tmp_path / "store"
    stored, expected = case.run(path, **options), case.run(**options)
    assert same(stored, expected)
    assert stored.attrs == expected.attrs
    with xr.open_datatree(path, engine="zarr", consolidated=False) as opened:
        assert same(opened.drop_nodes("checkpoint"), stored)
    assert same(case.run(str(path), **options), stored)  # finished: only read


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("after", "error"),
    [
        pytest.param(0, KeyboardInterrupt, marks=pytest.mark.slow),
        (1, Stop),
        (3, KeyboardInterrupt),
        pytest.param(7, Stop, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("where", ["_flush", "_save"])
def test_a_run_cut_off_inside_a_checkpoint_ends_the_same(
    tmp_path, monkeypatch, case, reference, after, error, where
):
    calls, whole = [], getattr(ZarrStore, where)

    def cut(self, *arguments):
        calls.append(None)
        if len(calls) > after:
            raise error
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("statsgd.running.storage._SHARE_OF_TIME", np.inf)  # at every chunk
        patch.setattr("statsgd.running.chunks._SECONDS_PER_CHUNK", 0.0)  # chunks of one unit
        patch.setattr("statsgd.running.chunks._FIRST_CHUNK", 120)
        patch.setattr(ZarrStore, where, cut)
        with pytest.raises(error):
            case.run(tmp_path / "store")
    assert same(case.run(tmp_path / "store"), reference)


KILLED = """
import sys
from statsgd.running import chunks
chunks._SECONDS_PER_CHUNK = 0.01
from tests.running.cases import CASES
case = CASES[sys.argv[1]]
case.run(sys.argv[2], **case.long)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "seconds", "times"),
    [(".", 3.0, 12), ("checkpoint/state/c/0", 0.5, 4)],
    ids=["before or after the first checkpoint", "after it"],
)
def test_a_run_killed_at_random_times_ends_the_same(tmp_path, name, case, begun, seconds, times):
    path = tmp_path / "store"
    clock = np.random.default_rng(12)
    for _ in range(times):
        process = start(KILLED, name, str(path))
        deadline = time.monotonic() + 120
        while (
            not (path / begun).exists() and time.monotonic() < deadline and process.poll() is None
        ):
            time.sleep(0.01)
        time.sleep(clock.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert same(case.run(path, **case.long), case.run(**case.long))


REFUSED = [
    ("ensemble", {"seed": 4}, "seed is 3 there and 4 here"),
    ("ensemble", {"steps": 96}, "steps is 90 there and 96 here"),
    ("ensemble", {"replicas": 7}, "replicas is 6 there and 7 here"),
    ("ensemble", {"phases": 3}, "phases is 6 there and 3 here"),
    ("ensemble", {"keep": [40]}, "schedules.snapshots is"),
    ("ensemble", {"observe": {"other": norm}}, "observe.norm is"),
    (
        "ensemble",
        {"observe": {"norm": lambda params: (params**3).sum()}},
        r"observe\.norm\.function is",
    ),
    ("ensemble", {"start": np.ones(3)}, "start is None there"),
    (
        "ensemble",
        {"dynamics": statsgd.SGD(0.06, SGD.noise, 0.5)},
        r"dynamics\.learning_rate is 0\.05",
    ),
    (
        "ensemble",
        {"dynamics": statsgd.SGD(0.05, Minibatch(6), 0.5)},
        r"dynamics\.noise\.batch_size is 4",
    ),
    ("ensemble", {"dynamics": statsgd.grid(SGD, momentum=[0.5])}, r"dynamics\.momentum is 0\.5"),
    ("ensemble", {"problem": linear_regression(INPUTS, np.ones(24))}, r"problem\.examples\.1 is"),
    ("draws", {"seed": 6}, "seed is 5 there and 6 here"),
    ("draws", {"draws": 301}, "draws is 300 there and 301 here"),
    ("draws", {"warmup": 0}, "warmup is 150 there and 0 here"),
    ("draws", {"thinning": 1}, "thinning is 2 there and 1 here"),
    ("draws", {"chains": 4}, "chains is 3 there and 4 here"),
    (
        "draws",
        {"kernel": MALA(step_size=0.5)},
        r"kernel_settings\.parameters\.step_size is 0\.4",
    ),
    (
        "draws",
        {"kernel": MALA(step_size=0.4, temperature=2.0)},
        r"kernel_settings\.parameters\.temperature is",
    ),
    (
        "draws",
        {"kernel": MALA(step_size=0.4, target_accept_prob=0.5)},
        r"kernel_settings\.structure\.0\.target_accept_prob is 0\.574 there and 0\.5",
    ),
    ("draws", {"grid": {"temperature": [1.0]}}, "grid.temperature is None there"),
    (
        "draws",
        {"law": HeavyBallGaussian(LAW.hessian, LAW.noise_covariance, 0.4, 0.5)},
        r"law\.arguments\.learning_rate is 0\.5 there and 0\.4 here",
    ),
]


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    REFUSED,
    ids=[f"{kind} {next(iter(changes))} {i}" for i, (kind, changes, _) in enumerate(REFUSED)],
)
def test_a_store_of_another_configuration_is_refused(tmp_path_factory, kind, changes, field):
    path = tmp_path_factory.getbasetemp() / f"configured {kind}"
    run = CASES[kind].run
    if not path.exists():
        run(path)
    before = {item: item.stat().st_mtime_ns for item in path.rglob("*")}
    with pytest.raises(ValueError, match=f"holds another configuration: {field}"):
        run(path, **changes)
    assert {item: item.stat().st_mtime_ns for item in path.rglob("*")} == before


def test_what_is_no_store_is_left_alone(tmp_path, case):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=f"store must be a new path or {case.stored}, got file"):
        case.run(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="which holds other files"):
        case.run(tmp_path / "folder")
    xr.Dataset({"x": 1}).to_zarr(tmp_path / "zarr", consolidated=False, zarr_format=3)
    with pytest.raises(ValueError, match="which holds 'something else'"):
        case.run(tmp_path / "zarr")
    assert [item.name for item in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_damage_is_said(tmp_path, case, reference, share):
    path = tmp_path / "store"
    case.run(path)
    chunk = path / "checkpoint" / "state" / "c" / "0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is damaged: checkpoint"):
        case.run(path)
    chunk.unlink()
    assert same(case.run(path), reference)
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:40])
    with pytest.raises(ValueError, match=r"is damaged: zarr\.json"):
        case.run(path)


@pytest.mark.parametrize("kind", ["missing", "cut off", "of another run"])
def test_records_that_are_not_those_of_the_run_are_said(tmp_path, name, case, kind):
    store, other = tmp_path / "store", tmp_path / "other"
    case.run(store)
    if kind == "of another run":
        case.run(other, seed=77)
    # Records, the labels of records and what says how they are laid out.
    group = "observables" if name == "ensemble" else "posterior"
    for file in (file for file in sorted((store / group).rglob("*")) if file.is_file()):
        before = file.read_bytes()
        if kind == "missing":
            file.unlink()
        elif kind == "cut off":
            file.write_bytes(before[: len(before) // 2])
        else:
            file.write_bytes((other / file.relative_to(store)).read_bytes())
        if not file.exists() or file.read_bytes() != before:
            with pytest.raises(ValueError, match=f"is damaged: {group}"):
                case.run(store)
        file.write_bytes(before)
    case.run(store)


def test_a_finished_store_is_only_read(tmp_path, case, reference):
    path = tmp_path / "store"
    case.run(path)
    before = {item: item.stat().st_mtime_ns for item in path.rglob("*")}
    case.run(path)
    assert {item: item.stat().st_mtime_ns for item in path.rglob("*")} == before


def test_what_follows_from_the_last_checkpoint_is_mended(tmp_path):
    path = tmp_path / "store"
    whole = CASES["ensemble"].run(path).load()
    (path / "endpoints" / "params" / "c" / "0" / "0").unlink()
    assert same(CASES["ensemble"].run(path), whole)


def test_one_call_at_a_time_writes_to_a_store(tmp_path, monkeypatch, case, reference):
    path = tmp_path / "store"
    path.mkdir()
    monkeypatch.setattr("statsgd.running.writing._PATIENCE", 0.0)
    with sole_writer(path), pytest.raises(StoreError, match="store is in use by another call"):
        case.run(path)
    assert list(path.iterdir()) == []
    assert same(case.run(path), reference)


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on(tmp_path, monkeypatch, case, reference):
    # Really out of room: no file may grow beyond 3 bytes from the third checkpoint on.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    calls, whole = [], ZarrStore._save

    def fill(self, *arguments):
        calls.append(None)
        if len(calls) > 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3, limits[1]))
        return whole(self, *arguments)

    try:
        with monkeypatch.context() as patch:
            patch.setattr("statsgd.running.storage._SHARE_OF_TIME", np.inf)
            patch.setattr("statsgd.running.chunks._FIRST_CHUNK", 20)
            patch.setattr(ZarrStore, "_save", fill)
            with pytest.raises(
                StoreError, match=r"keeps what was there after step [1-9]"
            ) as caught:
                case.run(tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert same(case.run(tmp_path / "store"), reference)


def test_leaves_of_no_numbers_and_of_odd_names_are_stored(tmp_path):
    start = {"none": np.zeros((0, 2)), "a\\b": 1.0, "x.partial": np.ones(2), "a": {"b": 2.0}}
    problem = statsgd.problems.landscape(
        lambda params: sum((leaf**2).sum() for leaf in jax.tree.leaves(params)), start
    )
    options = {"steps": 2, "replicas": 2, "seed": 0, "keep": 1, "progress": False}
    sgd = statsgd.SGD(0.1, statsgd.noise.NoNoise())
    memory = statsgd.simulate(problem, sgd, **options)
    for _ in range(2):
        stored = statsgd.simulate(problem, sgd, store=tmp_path / "store", **options)
        assert same(stored, memory)
    assert set(stored["snapshots"].data_vars) == {"none", "a%5Cb", "x.partial", "a.b"}
    ends = endpoint_trajectories(stored, problem.names).params
    # 0.8² of the start, in the order of the leaves.
    np.testing.assert_allclose(ends[0, 0], [1.28, 0.64, 0.64, 0.64], rtol=1e-6)
