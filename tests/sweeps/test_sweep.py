"""Sweeps in this process: their cells, their store, and what becomes of trouble."""

import dataclasses
import errno
import resource
import signal

import jax
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd.sweeps import IncompleteSweepWarning, StoreError, read
from tests.sweeps.runs import AXES, Troubled, draw, same, starts


def sweep(store, run=draw, cells=AXES, **options):
    return statsgd.sweep(run, cells, store=store, **({"seed": 5, "progress": False} | options))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return sweep(tmp_path_factory.mktemp("sweep") / "store").load()


def test_results_have_the_axes_as_dims(reference):
    results = reference["results"]
    assert results.numbers.dims == ("rate", "word", "place")
    assert results["sum"].sel(rate=0.4, word="bb") == 2.4
    assert results.said.sel(rate=0.1, word="bb") == "bbbb"
    assert results.place.values.tolist() == [2, 4, 8]
    assert {name: str(array.dtype) for name, array in results.data_vars.items()} == {
        "numbers": "float32",
        "sum": "float64",
        "count": "int64",
        "positive": "bool",
        "said": "StringDType()",
    }
    assert reference["cells"].done.all()
    assert (reference["cells"].error == "").all()


def test_random_numbers_are_folded_from_the_seed_and_the_number_of_the_cell(reference):
    key = jax.random.fold_in(jax.random.key(5), 3)  # rate 0.2, word bb
    numbers = np.float32(0.2) * np.asarray(jax.random.normal(key, (3,)))
    np.testing.assert_allclose(reference["results"].numbers.sel(rate=0.2, word="bb"), numbers)
    seeds = reference["cells"].seed
    assert len(np.unique(seeds)) == 6
    assert seeds.identical(reference["cells"].seed)
    np.testing.assert_array_equal(seeds, reference["results"]["count"])


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float
    word: str
    extra: tuple = ()


@pytest.mark.parametrize("kind", [dict, Config])
def test_a_list_of_configs_has_one_dim(tmp_path, reference, kind):
    configs = [kind(rate=rate, word=word) for rate in AXES["rate"] for word in AXES["word"]]
    listed = sweep(tmp_path / "store", cells=configs)["results"]
    assert listed["sum"].dims == ("cell",)
    assert listed.rate.dims == listed.word.dims == ("cell",)
    flat = reference["results"].numbers.values.reshape(6, 3)
    np.testing.assert_array_equal(listed.numbers, flat)


def run_tree(cell):
    return xr.DataTree.from_dict({"one": draw(cell), "one/two": xr.Dataset({"x": cell["rate"]})})


def test_trees_keep_their_groups(tmp_path):
    tree = sweep(tmp_path / "store", run_tree)
    assert set(tree["results"].groups) == {"/results", "/results/one", "/results/one/two"}
    np.testing.assert_array_equal(tree["results/one/two"].x.sel(word="a"), AXES["rate"])


def test_cells_that_raise_are_kept_as_text_and_tried_again(tmp_path, reference):
    for index in (1, 4):
        (tmp_path / f"raise {index}").touch()
    run = Troubled(str(tmp_path))
    with pytest.warns(IncompleteSweepWarning, match=r"2 of 6 cells failed.*no result at 1"):
        broken = sweep(tmp_path / "store", run).load()
    done = broken["cells"].done.values.reshape(-1)
    assert done.tolist() == [True, False, True, True, False, True]
    text = str(broken["cells"].error.values.reshape(-1)[4])
    assert text.startswith("Traceback")
    assert text.endswith("FloatingPointError: no result at 4")
    assert np.isnan(broken["results"]["sum"].values.reshape(-1)[4])
    for index in (1, 4):
        (tmp_path / f"raise {index}").unlink()
    assert same(sweep(tmp_path / "store", run), reference)
    assert starts(tmp_path, 6) == [1, 2, 1, 1, 2, 1]


@pytest.mark.parametrize("at", [0, 3])
def test_an_interrupted_sweep_goes_on(tmp_path, reference, at):
    def stop(cell, _):
        if cell.index == at:
            raise KeyboardInterrupt

    run = Troubled(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "store", run, watch=stop)
    assert read(tmp_path / "store")["cells"].done.sum() == at + 1
    assert same(sweep(tmp_path / "store", run), reference)
    assert starts(tmp_path, 6) == [1] * 6


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 4, 7, 12, 20, 27, 34, 41, 55])
def test_a_sweep_cut_off_at_any_write_opens_and_ends_the_same(
    tmp_path, monkeypatch, reference, after
):
    import zarr.storage

    writes, whole = [], zarr.storage.LocalStore.set

    async def cut(self, *arguments, **named):
        writes.append(None)
        if len(writes) > after:
            raise Stop
        await whole(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", cut)
        with pytest.raises(Stop):
            sweep(tmp_path / "store")
    if (tmp_path / "store" / "zarr.json").exists():
        read(tmp_path / "store").load()
    assert same(sweep(tmp_path / "store"), reference)


def test_a_lost_chunk_is_a_hole(tmp_path, reference):
    run = Troubled(str(tmp_path))
    sweep(tmp_path / "store", run)
    (tmp_path / "store" / "results" / "sum" / "c" / "1" / "0").unlink()
    assert same(sweep(tmp_path / "store", run), reference)
    assert starts(tmp_path, 6) == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "kind", ["missing", pytest.param("cut off", marks=pytest.mark.slow), "of another sweep"]
)
def test_a_file_that_is_not_that_of_the_sweep_is_mended_or_said(tmp_path, reference, kind):
    store, other = tmp_path / "store", tmp_path / "other"
    sweep(store)
    sweep(other, seed=6)
    for file in (file for file in sorted(store.rglob("*")) if file.is_file()):
        inside, before = file.relative_to(store).as_posix(), file.read_bytes()
        if kind == "missing":
            file.unlink()
        elif kind == "cut off":
            file.write_bytes(before[: len(before) // 2])
        else:
            file.write_bytes((other / inside).read_bytes())
        if not file.exists() or file.read_bytes() != before:
            with pytest.raises(ValueError, match=r"store .*(is damaged: |must be the dir)"):
                read(store)
            if "/c/1/0" in inside and inside.split("/")[1] in reference["results"].data_vars:
                assert same(sweep(store), reference)
        file.write_bytes(before)
    assert same(read(store), reference)


def test_one_sweep_at_a_time_writes_to_a_store(tmp_path, monkeypatch, reference):
    monkeypatch.setattr("statsgd.running.writing._PATIENCE", 0.0)

    def intrude(cell, _):
        with pytest.raises(StoreError, match="store is in use by another call"):
            sweep(tmp_path / "store")

    assert same(sweep(tmp_path / "store", watch=intrude), reference)


def test_a_full_disk_is_one_clear_error_and_the_sweep_goes_on(tmp_path, monkeypatch, reference):
    # Really out of room: no file may grow beyond 3 bytes once two cells are done.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(cell, _):
        if cell.index == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3, limits[1]))

    try:
        with pytest.raises(StoreError, match="keeps 2 finished of 6 cells") as caught:
            sweep(tmp_path / "store", watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "store")
    assert same(sweep(tmp_path / "store"), reference)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch):
    import zarr.storage

    async def refuse(self, *arguments, **named):
        raise OSError(errno.EROFS, "Read-only file system")

    def never(cell):
        raise AssertionError("computed before the store was there")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", refuse)
        with pytest.raises(StoreError, match="cannot write to the store: Read-only file system"):
            sweep(tmp_path / "store", never)
    with pytest.raises(StoreError, match="cannot write to the store: "):
        sweep("/proc/sweep/store", never)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 6}, "seed is 5 there and 6 here"),
        ({"cells": {"rate": [0.1], "word": ["a"]}}, r"axes\.rate is"),
        ({"cells": [{"rate": 0.1, "word": "a"}]}, r"axes\.rate is .* and None here"),
        ({"run": run_tree}, r"run\.function is 'tests\.sweeps\.runs\.draw' there"),
    ],
)
def test_the_store_of_another_sweep_is_refused(tmp_path_factory, changes, field):
    path = tmp_path_factory.getbasetemp() / "swept"
    if not path.exists():
        sweep(path)
    before = {item: item.stat().st_mtime_ns for item in path.rglob("*")}
    with pytest.raises(ValueError, match=f"holds another configuration: {field}"):
        sweep(path, **changes)
    assert {item: item.stat().st_mtime_ns for item in path.rglob("*")} == before


def test_what_is_no_sweep_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="store must be a new path or a stored sweep, got"):
        sweep(tmp_path)
    with pytest.raises(ValueError, match="store must be the directory of a sweep"):
        read(tmp_path)
    xr.Dataset({"x": 1}).to_zarr(tmp_path / "zarr", consolidated=False, zarr_format=3)
    with pytest.raises(ValueError, match="store must hold a sweep, got None"):
        read(tmp_path / "zarr")


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (lambda cell: 3.0, "must return an xarray Dataset or DataTree"),
        (lambda cell: xr.Dataset(), "at least one variable"),
        (lambda cell: xr.Dataset({"x": ("rate", [1.0])}), "must not return the dim 'rate'"),
        (lambda cell: xr.Dataset({"word": 1.0}), "must not name a variable 'word'"),
        (lambda cell: xr.Dataset({"x": np.datetime64("2020-01-01", "ns")}), "numbers, truth"),
        (lambda cell: xr.Dataset({"x": ("i", np.ones(cell.index))}), r"shape = \[1\] here and \[0"),
        (lambda cell: xr.Dataset({"x": cell.index or 0.5}), "'int64' here and 'float64'"),
        (
            lambda cell: xr.Dataset({"x": ("i", [1.0])}, {"i": [cell["rate"]]}),
            r"coords\.i\.values = \[0\.2\] here and \[0\.1\] in the cells before",
        ),
    ],
)
def test_results_that_fit_nowhere_are_failures(tmp_path, result, complaint):
    with pytest.warns(IncompleteSweepWarning, match=complaint):
        sweep(tmp_path / "store", result, {"rate": [0.1, 0.2], "word": ["a"]})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cells": {}}, "at least one axis"),
        ({"cells": []}, "at least one config"),
        ({"cells": 3}, "must be a mapping of names to values, or a sequence"),
        ({"cells": [3]}, "must hold dicts or dataclass instances, got 3"),
        ({"cells": {"a": []}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": "abc"}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": [1, "b"]}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": [0.1, np.nan]}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": [1, 1.0]}}, "'a' must not repeat a value"),
        ({"cells": {"a": 1.0}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": ["x", "y\0"]}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": ["\ud800"]}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a": [2**53 + 1, 0.5]}}, "'a' must be a non-empty sequence"),
        ({"cells": {"a/b": [1]}}, "names without '/'"),
        ({"cells": {"a\\b": [1]}}, "names without '/'"),
        ({"cells": {"..": [1]}}, "names without '/'"),
        ({"cells": {"seed": [1, 2]}}, "must not have an axis 'seed'"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"retries": 0.5}, "retries must be an integer of at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batched": ("speed",)}, "batched must name settings of every cell, got 'speed'"),
        ({"batched": "rate"}, "batched must be a sequence of names, got 'rate'"),
        ({"executor": "threads"}, "executor must be None, 'serial', 'processes', the address"),
        ({"run": 3}, "run must be a function of a cell, got 3"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        sweep(tmp_path / "store", **changes)
    assert not (tmp_path / "store").exists()
