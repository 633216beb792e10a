"""A sweep on disk: a Zarr store with one region for each cell, readable at any moment.

A cell's arrays are written first, each one chunk, and then its entry in the mask `done`, which
Zarr replaces in one move. So a store that was cut off says at most too little, never too much.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from statsgd.ensembles import ORDER
from statsgd.running.store_identity import open_store
from statsgd.sweeps.cells import Cell, Table
from statsgd.sweeps.records import Failure, Group, Record, require_alike

_CELLS = "cells"
_RESULTS = "results"
_STRUCTURE = "structure"


class StoreError(OSError):
    """A store cannot be written: its disk is full, say, or may only be read."""


def read(store: str | Path) -> xr.DataTree:
    """What the sweep in the directory `store` holds so far, finished or not.

    It may be running at this moment. The group `cells` has, for every cell, `done`, `error` (the
    text of what it raised, "" for nothing) and its `seed`; `results` the variables that `run`
    returned, with the axes of the sweep as leading dims. Where `done` is false they mean nothing:
    NaN, 0 or "". Arrays are read when they are used.

    Raises `ValueError` if there is no sweep in `store`.
    """
    root = Path(store) / "zarr.json"
    try:
        attributes = json.loads(root.read_text()).get("attributes", {})
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"store must be the directory of a sweep, got {str(store)!r}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"store {store} is damaged: zarr.json: {error}") from None
    if attributes.get("kind") != "sweep":
        raise ValueError(f"store must hold a sweep, got {attributes.get('kind')!r} in {store}")
    tree = xr.DataTree()
    tree.attrs = attributes
    if not _is_complete(Path(store)):
        return tree
    cells = xr.open_dataset(str(store), group=_CELLS, engine="zarr", consolidated=False)
    complete = cells.attrs.pop(_STRUCTURE, None) is not None
    tree[_CELLS] = xr.DataTree(cells)
    if complete:
        tree[_RESULTS] = xr.open_datatree(
            str(store), group=_RESULTS, engine="zarr", consolidated=False
        )
    return tree


def _is_complete(path: Path) -> bool:
    """Whether the group of cells is: its mask is made last."""
    return (path / _CELLS / "done" / "zarr.json").exists()


class SweepStore:
    """The store of one sweep at `path`, made or opened again.

    Raises `ValueError` if `path` holds anything else, and `StoreError` where it cannot be written.
    """

    def __init__(self, path: str | Path, table: Table, attributes: dict):
        self.path, self.table = Path(path), table
        with self._writing():
            self.root = open_store(self.path, attributes)
            if not _is_complete(self.path):
                self._create_cells(int(attributes["seed"]))
        self.structure: dict | None = None
        held = self.root[_CELLS].attrs.get(_STRUCTURE)
        if held is not None:
            self.structure = json.loads(held)
        self.done = self.root[f"{_CELLS}/done"][...]
        self.failed = np.asarray(self.root[f"{_CELLS}/error"][...]) != ""
        if self.structure is not None:
            self._look_for_lost_chunks(self.structure)

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
                self._create_results(outcome)
                self.structure = structure
            for path, group in outcome.groups.items():
                for name, (_, values) in group.variables.items():
                    self.root[_inside(path)][name][place] = values
            if self.failed[place]:
                self.root[f"{_CELLS}/error"][place] = ""
                self.failed[place] = False
            self.root[f"{_CELLS}/done"][place] = True
            self.done[place] = True
        return outcome

    def tree(self) -> xr.DataTree:
        """The whole store."""
        return read(self.path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        import zarr

        try:
            # Empty chunks too, so that a chunk that is lost can be told from one of zeros.
            with zarr.config.set({"array.write_empty_chunks": True}):
                yield
        except OSError as error:
            kept = int(self.done.sum()) if hasattr(self, "done") else 0
            raise StoreError(
                error.errno,
                f"cannot write to the store: {error.strerror or error}; it keeps {kept} finished "
                f"of {len(self.table.configs)} cells, and the same call goes on from there",
                str(self.path),
            ) from error

    def _create_cells(self, root_seed: int) -> None:
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
        group.create_array("done", chunks=self.table.shape, dtype=bool, fill_value=False, **layout)

    def _create_results(self, record: Record) -> None:
        self.root.create_group(_RESULTS, overwrite=True)
        for path, group in record.groups.items():
            own = {name: coord for name, coord in group.coords.items() if not self._is_label(name)}
            coords = self.table.coords | own
            attributes = {ORDER: list(group.order)} if group.order else {}
            _write(xr.Dataset(coords=coords, attrs=attributes), self.path, _inside(path))
            self._create_arrays(_inside(path), group)
        self.root[_CELLS].attrs[_STRUCTURE] = json.dumps(record.structure())

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

    def _look_for_lost_chunks(self, structure: dict) -> None:
        arrays = [
            (self.path / _inside(path) / name / "c", ["0"] * len(variable["shape"]))
            for path, group in structure.items()
            for name, variable in group["variables"].items()
            if 0 not in variable["shape"]
        ]
        for index in np.flatnonzero(self.done):
            place = self.table.place(int(index))
            names = [str(i) for i in place]
            if not all(folder.joinpath(*names, *rest).exists() for folder, rest in arrays):
                self.done[place] = False


def _blank(dtype: np.dtype) -> Any:
    return np.nan if np.issubdtype(dtype, np.inexact) else 0


def _inside(path: str) -> str:
    return f"{_RESULTS}/{path}" if path else _RESULTS


def _write(dataset: xr.Dataset, path: Path, group: str) -> None:
    dataset.to_zarr(str(path), group=group, mode="w", consolidated=False, zarr_format=3)
