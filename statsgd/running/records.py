"""What lanes leave on their way, and how it becomes labelled groups."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.ensembles import ORDER
from statsgd.problems.parameters import leaf_names


class Layout:
    """Axes that every array of records begins with: those of the grid, then the lanes.

    `lane` and `record` are the dims of lanes and of their records. `orders` are the names of
    parameters, and of what else has an order, which every group of them says.
    """

    def __init__(
        self,
        axes: Mapping[str, Any],
        lanes: int,
        *,
        lane: str,
        record: str,
        orders: Sequence[Sequence[str]] = (),
    ):
        self.coords: dict[str, Any] = {**axes, lane: np.arange(lanes)}
        self.shape = (*(len(values) for values in axes.values()), lanes)
        self.dims = tuple(self.coords)
        self.record = record
        self.orders = [list(names) for names in orders]

    def variables(self, tree: PyTree, *, recorded: bool = False) -> dict[str, tuple]:
        """Name to (dims, array) for every leaf of `tree`, whose leading axis is one of lanes.

        With `recorded` the second axis of every leaf is one of records.
        """
        lead = (*self.dims, self.record) if recorded else self.dims
        found = {}
        for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True):
            array = np.asarray(leaf)
            if array.dtype.kind == "V":  # half precision that files do not know, such as bfloat16
                array = array.astype(np.float32)
            array = array.reshape(*self.shape, *array.shape[1:])
            rest = [f"{name}_dim_{i}" for i in range(array.ndim - len(lead))]
            found[name] = ((*lead, *rest), array)
        return found

    def dataset(self, tree: PyTree, labels: Sequence[int] | None = None) -> xr.Dataset:
        """A dataset of every leaf of `tree`; `labels` are those of its records, if it has any."""
        coords = self.coords if labels is None else {**self.coords, self.record: np.asarray(labels)}
        variables = self.variables(tree, recorded=labels is not None)
        return xr.Dataset(variables, coords=coords, attrs=self.order(variables))

    def require_names(self, group: str, template: PyTree) -> None:
        """Raise `ValueError` where a variable would have the name of a dim or of an axis."""
        names = leaf_names(template)
        pairs = zip(names, jax.tree.leaves(template), strict=True)
        own = [f"{name}_dim_{i}" for name, leaf in pairs for i in range(len(leaf.shape))]
        clash = sorted(set(names) & {*self.dims, self.record, *own})
        if clash:
            raise ValueError(f"{group} must not hold the name {clash[0]!r}, which is that of a dim")

    def order(self, names: Iterable[str]) -> dict[str, list[str]]:
        """The attributes of a group of variables with these names."""
        listed = list(names)
        return {ORDER: listed} if listed in self.orders else {}


class Records(NamedTuple):
    """Consecutive records of one group."""

    first: int
    """Number of the first of them in the group."""
    number: int
    """How many there are."""
    values: PyTree
    """Leaves have leading axes (lane, record), or (block, lane, record) on devices."""


@runtime_checkable
class Recorder(Protocol):
    """Where records go during a run."""

    def resume(self, state: PyTree) -> tuple[int, PyTree]:
        """Steps done and the state of the lanes then; −1 and `state` if none were."""

    def record(self, records: Mapping[str, Records]) -> None:
        """Keep records, by group."""

    def checkpoint(self, step: int, state: PyTree, *, last: bool) -> None:
        """Everything up to `step` has been recorded, and the blocks of lanes are in `state`."""

    def finish(self, groups: Mapping[str, xr.Dataset], attributes: dict) -> xr.DataTree:
        """The result: `groups`, and one group for each kind of record."""

    def close(self) -> None:
        """Nothing more is to come."""


class InMemory:
    """Records kept in memory, for runs without a store.

    `schedules` has, for every group, the labels of its records.
    """

    def __init__(self, layout: Layout, schedules: Mapping[str, Sequence[int]]):
        self.layout = layout
        self.schedules = schedules
        self.kept: list[Mapping[str, Records]] = []

    def resume(self, state: PyTree) -> tuple[int, PyTree]:
        """The beginning: what was in memory is lost with its process."""
        return -1, state

    def record(self, records: Mapping[str, Records]) -> None:
        """Append `records`, all groups at once, so that Ctrl-C cannot come in between."""
        self.kept.append(records)

    def checkpoint(self, step: int, state: PyTree, *, last: bool) -> None:
        """Nothing."""

    def finish(self, groups: Mapping[str, xr.Dataset], attributes: dict) -> xr.DataTree:
        """One tree with all groups; records that an interrupted run did not reach are not in it."""
        recorded = {}
        for group, labels in self.schedules.items():
            values = [records[group].values for records in self.kept if group in records]
            if values:
                joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *values)
                number = jax.tree.leaves(joined)[0].shape[1]
                recorded[group] = self.layout.dataset(joined, labels[:number])
        result = xr.DataTree.from_dict({**groups, **recorded})
        result.attrs = attributes
        return result

    def close(self) -> None:
        """Nothing."""
