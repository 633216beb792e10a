"""What one cell leaves: plain arrays by group and name, or the text of its error."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from statsgd.description import describe
from statsgd.ensembles import ORDER, order
from statsgd.problems.parameters import quoted
from statsgd.provenance import first_difference

type Labelled = tuple[tuple[str, ...], np.ndarray]
"""Dims and values."""


class Failure(NamedTuple):
    """A cell without a result."""

    error: str


class Group(NamedTuple):
    """One dataset as plain arrays, which travel between processes."""

    variables: dict[str, Labelled]
    coords: dict[str, Labelled]
    order: tuple[str, ...] = ()
    """Names of parameters in order, where the dataset says it."""


class Record(NamedTuple):
    """The result of one cell: datasets by path, "" for that of the root."""

    groups: dict[str, Group]

    def structure(self) -> dict[str, Any]:
        """Everything that must be the same in all cells, as plain JSON values."""
        return json.loads(json.dumps({path: _structure(g) for path, g in self.groups.items()}))


def as_record(result: Any, dims: Sequence[str]) -> Record:
    """The arrays of `result`, a dataset or a tree of them, for a sweep along `dims`.

    Coordinates without dims, which selecting from a larger dataset leaves behind, are dropped.

    Raises `ValueError` for anything that a sweep cannot put beside the results of other cells.
    """
    if isinstance(result, xr.DataTree):
        nodes = {node.path.strip("/"): node.to_dataset() for node in result.subtree}
        datasets = {path: one for path, one in nodes.items() if one.data_vars}
    elif isinstance(result, xr.Dataset):
        datasets = {"": result}
    else:
        raise ValueError(f"run must return an xarray Dataset or DataTree, got {type(result)}")
    if not any(dataset.data_vars for dataset in datasets.values()):
        raise ValueError("run must return at least one variable, got none")
    return Record({path: _group(dataset, dims) for path, dataset in datasets.items()})


def _group(dataset: xr.Dataset, dims: Sequence[str]) -> Group:
    taken = sorted(set(map(str, dataset.sizes)) & set(dims))
    if taken:
        raise ValueError(f"run must not return the dim {taken[0]!r}, which is an axis of the sweep")
    clash = sorted(set(map(str, dataset.data_vars)) & set(dims))
    if clash:
        raise ValueError(f"run must not name a variable {clash[0]!r}, which is an axis")
    return Group(
        {quoted(str(name)): _plain(name, array) for name, array in dataset.data_vars.items()},
        {str(name): _plain(name, array) for name, array in dataset.coords.items() if array.dims},
        tuple(order(dataset)),
    )


def _plain(name: Any, array: xr.DataArray) -> Labelled:
    values = array.to_numpy()
    if values.dtype.kind not in "biufc":
        words = values.dtype.kind in "UT" or all(isinstance(item, str) for item in values.flat)
        if not words:
            raise ValueError(
                f"run must return numbers, truth values or words, got {name!r} of dtype "
                f"{values.dtype}"
            )
        values = values.astype(object)
    return tuple(map(str, array.dims)), values


def _structure(group: Group) -> dict[str, Any]:
    return {
        "variables": {
            name: {"dims": list(dims), "shape": list(values.shape), "dtype": str(values.dtype)}
            for name, (dims, values) in group.variables.items()
        },
        "coords": {
            name: {"dims": list(dims), "values": describe(_comparable(values))}
            for name, (dims, values) in group.coords.items()
        },
        ORDER: list(group.order),
    }


def _comparable(values: np.ndarray) -> Any:
    return values.tolist() if values.dtype == object else values


def require_alike(structure: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a cell's result could not stand beside those of other cells."""
    if json.dumps(structure, sort_keys=True) == json.dumps(others, sort_keys=True):
        return
    found = first_difference(dict(structure), dict(others))
    if found:
        name, here, there = found
        raise ValueError(
            f"run must return the same variables, shapes and coordinates for all cells, got "
            f"{name} = {here!r} here and {there!r} in the cells before"
        )
