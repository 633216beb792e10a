"""The cells of a sweep: one setting each, with random numbers of its own."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from statsgd.problems.parameters import DIMENSIONS, variable_name

#: Names of what the group of cells holds of its own.
TAKEN = ("seed", "done", "error", "check_sum")

type Axis = tuple[tuple[str, ...], np.ndarray]
"""Dims and values of a coordinate."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one call of `run` is about. `cell["name"]` is the setting of that name.

    >>> cell = Cell(index=0, config={"learning_rate": 0.1}, root_seed=7)
    >>> cell["learning_rate"], cell.key.shape
    (0.1, ())
    """

    index: int
    """Its number in the sweep, the last axis varying fastest."""
    config: Any
    """Its settings: a dict of the values along the axes, or the entry of the list of configs."""
    root_seed: int
    """The seed of the sweep."""

    def __getitem__(self, name: str) -> Any:
        if isinstance(self.config, Mapping):
            return self.config[name]
        return getattr(self.config, name)

    @property
    def key(self) -> PRNGKeyArray:
        """A JAX key of its own: the cell's number folded into the key of the sweep's seed."""
        root = jax.random.key(self.root_seed, impl="threefry2x32")
        return jax.random.fold_in(root, self.index)

    @property
    def seed(self) -> int:
        """A seed of its own for `simulate` and `sample`: 31 bits of `key`."""
        return int(jax.random.key_data(self.key)[0]) >> 1


class Table(NamedTuple):
    """All cells of a sweep, and how they are laid out."""

    axes: dict[str, np.ndarray]
    """Named dims with their coordinates; one dim `cell` for a list of configs."""
    configs: list[Any]
    labels: dict[str, Axis]
    """Further coordinates: the plain fields of configs in a list."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each axis."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def coords(self) -> dict[str, Axis]:
        """All coordinates."""
        return {name: ((name,), values) for name, values in self.axes.items()} | self.labels

    def place(self, index: int) -> tuple[int, ...]:
        """Where the cell of this number is along each axis."""
        return tuple(int(i) for i in np.unravel_index(index, self.shape))


def lay_out(cells: Any) -> Table:
    """The table of `cells`: a mapping of names to values, or a sequence of configs.

    Raises `ValueError` for axes that are empty, repeat a value or hold anything but numbers and
    words, and for configs that are neither mappings nor dataclass instances.
    """
    if isinstance(cells, Mapping):
        return _product(cells)
    if isinstance(cells, Sequence) and not isinstance(cells, str | bytes):
        return _listed(list(cells))
    raise ValueError(
        "cells must be a mapping of names to values, or a sequence of dicts or dataclasses, "
        f"got {cells!r}"
    )


def _product(cells: Mapping[str, Any]) -> Table:
    if not cells:
        raise ValueError("cells must have at least one axis, such as learning_rate=[0.1, 0.2]")
    axes, columns = {}, []
    for name, entries in cells.items():
        if not isinstance(name, str) or not _can_be_stored(name):
            raise ValueError(
                f"cells must have names without '/' that a folder can have, got {name!r}"
            )
        if name in TAKEN:
            raise ValueError(f"cells must not have an axis {name!r}: the store has its own")
        values = _coordinate(entries)
        if values is None or not values.size:
            raise ValueError(
                f"cells {name!r} must be a non-empty sequence of numbers or of words, "
                f"got {entries!r}"
            )
        if len(np.unique(values)) < len(values):
            raise ValueError(f"cells {name!r} must not repeat a value, got {entries!r}")
        axes[name] = values
        columns.append(values.tolist())
    configs = [dict(zip(axes, row, strict=True)) for row in itertools.product(*columns)]
    return Table(axes, configs, {})


def _listed(configs: list[Any]) -> Table:
    if not configs:
        raise ValueError("cells must have at least one config, got an empty sequence")
    for config in configs:
        if not isinstance(config, Mapping) and (
            not dataclasses.is_dataclass(config) or isinstance(config, type)
        ):
            raise ValueError(f"cells must hold dicts or dataclass instances, got {config!r}")
    fields = [_fields(config) for config in configs]
    labels: dict[str, Axis] = {}
    for name in fields[0]:
        own = _can_be_stored(name) and name not in ("cell", *TAKEN)
        if own and all(name in one for one in fields):
            values = _coordinate([one[name] for one in fields])
            if values is not None:
                labels[name] = (("cell",), values)
    return Table({"cell": np.arange(len(configs))}, configs, labels)


def _can_be_stored(name: str) -> bool:
    plain = name in DIMENSIONS or variable_name(name) == name
    return bool(name) and plain and _is_text(name) and "\0" not in name


def _fields(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return {str(name): value for name, value in config.items()}
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def without(config: Any, names: Sequence[str]) -> dict[str, Any]:
    """The settings of `config` that are not among `names`, all of which it must have."""
    fields = _fields(config)
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(
            f"batched must name settings of every cell, got {missing[0]!r}; "
            f"known here: {', '.join(fields)}"
        )
    return {name: value for name, value in fields.items() if name not in names}


def _coordinate(entries: Any) -> np.ndarray | None:
    """`entries` as an array of numbers, truth values or words; None where they are no such thing.

    Integers and floats may be mixed, nothing else, and all must be what they were in the array.
    """
    if isinstance(entries, str | bytes | Mapping) or not isinstance(entries, Iterable):
        return None
    items = [item.item() if isinstance(item, np.generic) else item for item in list(entries)]
    for kinds in (bool, str, int | float):
        if all(isinstance(item, kinds) for item in items):
            if kinds == int | float and any(isinstance(item, bool) for item in items):
                return None
            if kinds == int | float and not all(math.isfinite(item) for item in items):
                return None
            found = np.asarray(items)
            kept = found.dtype.kind in "biufU" and found.tolist() == items
            return found if kept and all(map(_is_text, items)) else None
    return None


def _is_text(item: Any) -> bool:
    """Whether `item`, if it is a word, can be written to a file."""
    return not isinstance(item, str) or item.encode(errors="ignore").decode() == item
