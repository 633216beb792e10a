"""A sweep on disk: a Zarr store with one region for each cell, readable at any moment.

A cell's arrays are written first, each one chunk, then their check sum, and then its entry in the
mask `done`, each of which Zarr replaces in one move. So a store that was cut off says at most too
little, never too much. What is the same for all cells has its check sums in the attributes of the
group of cells.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from statsgd.ensembles import ORDER
from statsgd.running.integrity import Damaged, require_intact, sum_of_files, sums_of_folders
from statsgd.running.store_identity import attributes_of, open_store, run_of
from statsgd.running.writing import writing
from statsgd.sweeps.cells import Cell, Table
from statsgd.sweeps.records import Failure, Group, Record, require_alike

_CELLS = "cells"
_RESULTS = "results"
_SUM = "check_sum"
_MENDED = "the same sweep computes again what is not whole"
_BOOK = ("run", "structure", "files")
"""Attributes of the group of cells: whose they are, what a result is made of, and check sums."""


def read(store: str | Path) -> xr.DataTree:
    """What the sweep in the directory `store` holds so far, finished or not.

    It may be running at this moment. The group `cells` has, for every cell, `done`, `error` (the
    text of what it raised, "" for nothing) and its `seed`; `results` the variables that `run`
    returned, with the axes of the sweep as leading dims. Where `done` is false they mean nothing:
    NaN, 0 or "". Arrays are read when they are used; before, files are held against their check
    sums.

    Raises `ValueError` if there is no sweep in `store`, or files that are not what it wrote.

    >>> import tempfile, xarray
    >>> from statsgd import sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = sweep(
    ...         lambda cell: xarray.Dataset({"square": cell["x"] ** 2}), {"x": [1.0, 2.0]},
    ...         store=f"{folder}/s", seed=0, progress=False, identity="squares 1",
    ...     )
    ...     found = read(f"{folder}/s")
    ...     found["cells"]["done"].values.tolist()
    [True, True]
    """
    path = Path(store)
    try:
        attributes = attributes_of(path, "zarr.json")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"store must be the directory of a sweep, got {str(store)!r}") from None
    if attributes.get("kind") != "sweep":
        raise ValueError(f"store must hold a sweep, got {attributes.get('kind')!r} in {store}")
    tree = xr.DataTree()
    tree.attrs = attributes
    book = _book(path, attributes)
    if book is None:
        return tree
    cells = _opened(path, _CELLS).to_dataset().drop_vars(_SUM)
    cells.attrs = {name: value for name, value in cells.attrs.items() if name not in _BOOK}
    summed = _loaded(path, _SUM) != 0
    done = _loaded(path, "done")
    _loaded(path, "error")
    if "structure" not in book and done.any():  # the first result came meanwhile
        book = _book(path, attributes) or book
    if np.sum(summed & ~done) > 1:  # a cell is marked right after its check sum is there
        raise Damaged(path, f"{_CELLS}/done", "it lacks cells that were finished", _MENDED)
    if "structure" not in book:
        if done.any():
            raise Damaged(path, f"{_CELLS}/zarr.json", "it knows of no results")
    else:
        broken = done & ~_whole(path, book["structure"], done)
        if broken.any():
            number = int(np.flatnonzero(broken)[0])
            raise Damaged(path, _RESULTS, f"cell {number} is not what was written", _MENDED)
        tree[_RESULTS] = _opened(path, _RESULTS)
    tree[_CELLS] = xr.DataTree(cells)
    return tree


def _opened(path: Path, group: str) -> xr.DataTree:
    return xr.open_datatree(str(path), group=group, engine="zarr", consolidated=False)


def _loaded(path: Path, name: str) -> np.ndarray:
    """What the array `name` of the group of cells holds."""
    import zarr

    try:
        return np.asarray(zarr.open_array(str(path / _CELLS / name), mode="r")[...])
    except Exception as error:  # Zarr and its codecs have one each for what is broken
        raise Damaged(path, f"{_CELLS}/{name}", error) from None


def _book(path: Path, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """The attributes of the group of cells, None where it was not made yet. Raises `Damaged`."""
    name = f"{_CELLS}/zarr.json"
    if not (path / name).exists():
        if (path / _RESULTS).exists():
            raise Damaged(path, name, "it is missing")
        return None
    book = attributes_of(path, name)
    if "files" not in book:
        return None
    if book.get("run") != run_of(attributes):
        raise Damaged(path, name, "it is that of another sweep")
    require_intact(path, book["files"])
    return book


def _whole(path: Path, structure: Mapping[str, Any], done: np.ndarray) -> np.ndarray:
    """Which of the cells that are done have the files that were written."""
    sums = _loaded(path, _SUM)
    whole = np.zeros_like(done)
    for place in map(tuple, np.argwhere(done).tolist()):
        whole[place] = sum_of_files(_files(path, structure, place)) == sums[place]
    return whole


def _files(path: Path, structure: Mapping[str, Any], place: Sequence[int]) -> list[Path]:
    """The chunks of one cell."""
    here = [str(i) for i in place]
    found = [path.joinpath(_CELLS, "error", "c", *here)]
    for inside, group in structure.items():
        for name, variable in group["variables"].items():
            rest = ["0"] * len(variable["shape"])
            found.append(path.joinpath(_inside(inside), name, "c", *here, *rest))
    return found


class SweepStore:
    """The store of one sweep at `path`, made or opened again, until it is closed.

    Raises `ValueError` if `path` holds anything else or is damaged where no cell can mend it, and
    `StoreError` where it cannot be written or is in use.
    """

    def __init__(self, path: str | Path, table: Table, attributes: dict):
        self.path, self.table = Path(path), table
        self.done = np.zeros(table.shape, dtype=bool)
        self.failed, self.sums = self.done.copy(), np.zeros(table.shape, dtype=np.uint32)
        self.structure: dict | None = None
        with contextlib.ExitStack() as held:
            with self._writing():
                self.root = held.enter_context(open_store(self.path, attributes))
                book = _book(self.path, attributes)
                if book is None:
                    self._create_cells(int(attributes["seed"]), run_of(attributes))
                else:
                    self._open_cells(book)
            self.held = held.pop_all()

    def close(self) -> None:
        """Let others write to the store."""
        self.held.close()

    def _open_cells(self, book: Mapping[str, Any]) -> None:
        self.structure = book.get("structure")
        marked = _loaded(self.path, "done")
        if self.structure is not None:
            self.done = marked & _whole(self.path, self.structure, marked)
            self.sums = np.where(self.done, _loaded(self.path, _SUM), 0).astype(np.uint32)
        for place in map(tuple, np.argwhere(marked & ~self.done).tolist()):
            # Whatever is broken there, blank is what can be read.
            self.root[f"{_CELLS}/error"][place] = ""
        self.failed = _loaded(self.path, "error") != ""

    def holes(self) -> list[int]:
        """Numbers of the cells without a result."""
        return np.flatnonzero(~self.done).tolist()

    def keep(self, index: int, outcome: Record | Failure) -> Record | Failure:
        """Write what a cell left; returns it, or the failure to fit in with the other cells."""
        place = self.table.place(index)
        if isinstance(outcome, Record):
            try:
                structure = outcome.structure()
                if self.structure is not None:
                    require_alike(structure, self.structure)
            except ValueError as error:
                outcome = Failure(f"ValueError: {error}")
        with self._writing():
            if isinstance(outcome, Failure):
                self.root[f"{_CELLS}/error"][place] = outcome.error
                self.failed[place] = True
                return outcome
            if self.structure is None:
                self._create_results(outcome, structure)
                self.structure = structure
            for path, group in outcome.groups.items():
                for name, (_, values) in group.variables.items():
                    self.root[_inside(path)][name][place] = values
            if self.failed[place]:
                self.root[f"{_CELLS}/error"][place] = ""
                self.failed[place] = False
            self.sums[place] = sum_of_files(_files(self.path, structure, place))
            self.root[f"{_CELLS}/{_SUM}"][...] = self.sums
            done = self.done.copy()
            done[place] = True
            self.root[f"{_CELLS}/done"][...] = done
            self.done = done
        return outcome

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        import zarr

        def kept() -> str:
            return f"{int(self.done.sum())} finished of {len(self.table.configs)} cells"

        # Empty chunks too, so that a chunk that is lost can be told from one of zeros.
        with writing(self.path, kept), zarr.config.set({"array.write_empty_chunks": True}):
            yield

    def _create_cells(self, root_seed: int, run: str) -> None:
        seeds = [Cell(i, c, root_seed).seed for i, c in enumerate(self.table.configs)]
        cells = xr.Dataset(
            {"seed": (self.table.dims, np.reshape(seeds, self.table.shape))},
            coords=self.table.coords,
        )
        _write(cells, self.path, _CELLS)
        group = self.root[_CELLS]
        ones = (1,) * len(self.table.shape)
        layout = {"shape": self.table.shape, "dimension_names": self.table.dims}
        group.create_array("error", chunks=ones, dtype="string", fill_value="", **layout)
        whole = {"chunks": self.table.shape, **layout}
        group.create_array(_SUM, dtype=np.uint32, fill_value=0, **whole)
        group.create_array("done", dtype=bool, fill_value=False, **whole)
        name = f"{_CELLS}/zarr.json"
        files = sums_of_folders(self.path, [_CELLS])
        group.attrs.update({"run": run, "files": {n: s for n, s in files.items() if n != name}})

    def _create_results(self, record: Record, structure: dict) -> None:
        self.root.create_group(_RESULTS, overwrite=True)
        for path, group in record.groups.items():
            own = {name: coord for name, coord in group.coords.items() if not self._is_label(name)}
            coords = self.table.coords | own
            attributes = {ORDER: list(group.order)} if group.order else {}
            _write(xr.Dataset(coords=coords, attrs=attributes), self.path, _inside(path))
            self._create_arrays(_inside(path), group)
        files = self.root[_CELLS].attrs["files"] | sums_of_folders(self.path, [_RESULTS])
        self.root[_CELLS].attrs.update({"structure": structure, "files": files})

    def _is_label(self, name: str) -> bool:
        return name in self.table.coords

    def _create_arrays(self, inside: str, group: Group) -> None:
        for name, (dims, values) in group.variables.items():
            words = values.dtype == object
            self.root[inside].create_array(
                name,
                shape=(*self.table.shape, *values.shape),
                chunks=(*(1,) * len(self.table.shape), *(max(1, n) for n in values.shape)),
                dtype="string" if words else values.dtype,
                dimension_names=(*self.table.dims, *dims),
                fill_value="" if words else _blank(values.dtype),
            )


def _blank(dtype: np.dtype) -> Any:
    return np.nan if np.issubdtype(dtype, np.inexact) else 0


def _inside(path: str) -> str:
    return f"{_RESULTS}/{path}" if path else _RESULTS


def _write(dataset: xr.Dataset, path: Path, group: str) -> None:
    dataset.to_zarr(str(path), group=group, mode="w", consolidated=False, zarr_format=3)
