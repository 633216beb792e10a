"""What an ensemble records on its way, and how arrays of replicas become labelled groups."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.arguments import count
from statsgd.dynamics.advance import Observable
from statsgd.problems import Problem
from statsgd.problems.parameters import leaf_names

_DEFAULT_OBSERVATIONS = 128


class Layout:
    """Axes that every array of records begins with: those of the grid, then the lanes.

    A lane is a replica of an ensemble, whose records are one a step, unless named otherwise.
    """

    def __init__(
        self, axes: Mapping[str, Any], lanes: int, *, lane: str = "replica", record: str = "step"
    ):
        self.coords: dict[str, Any] = {**axes, lane: np.arange(lanes)}
        self.shape = (*(len(values) for values in axes.values()), lanes)
        self.dims = tuple(self.coords)
        self.record = record

    def variables(self, tree: PyTree, *, stepped: bool = False) -> dict[str, tuple]:
        """Name to (dims, array) for every leaf of `tree`, whose leading axis is one of lanes.

        With `stepped` the second axis of every leaf is one of records.
        """
        lead = (*self.dims, self.record) if stepped else self.dims
        found = {}
        for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True):
            array = np.asarray(leaf)
            array = array.reshape(*self.shape, *array.shape[1:])
            rest = [f"{name}_dim_{i}" for i in range(array.ndim - len(lead))]
            found[name] = ((*lead, *rest), array)
        return found

    def dataset(self, tree: PyTree, steps: Sequence[int] | None = None) -> xr.Dataset:
        """A dataset of every leaf of `tree`, recorded at `steps` if they are given."""
        coords = self.coords if steps is None else {**self.coords, self.record: np.asarray(steps)}
        return xr.Dataset(self.variables(tree, stepped=steps is not None), coords=coords)


class Recorder(Protocol):
    """Where records go while an ensemble runs."""

    def record(self, group: str, index: int, tree: PyTree) -> None:
        """Keep `tree`, the record number `index` of `group`; leaves have a leading lane axis."""

    def checkpoint(self, step: int, state: PyTree, *, last: bool) -> None:
        """Everything up to `step` has been recorded, and the lanes are in `state`."""

    def finish(self, groups: Mapping[str, xr.Dataset], attributes: dict) -> xr.DataTree:
        """The result: `groups`, and one group for each kind of record."""


class InMemory:
    """Records kept in memory, for `simulate` without a store."""

    def __init__(self, layout: Layout, schedules: Mapping[str, Sequence[int]]):
        self.layout = layout
        self.schedules = schedules
        self.trees: dict[str, list[PyTree]] = {group: [] for group in schedules}

    def record(self, group: str, index: int, tree: PyTree) -> None:
        """Append `tree`."""
        self.trees[group].append(tree)

    def checkpoint(self, step: int, state: PyTree, *, last: bool) -> None:
        """Nothing: what is in memory is lost with the process."""

    def finish(self, groups: Mapping[str, xr.Dataset], attributes: dict) -> xr.DataTree:
        """One tree with all groups; records that an interrupted run did not reach are not in it."""
        recorded = {
            group: self.layout.dataset(
                jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *trees),
                self.schedules[group][: len(trees)],
            )
            for group, trees in self.trees.items()
            if trees
        }
        result = xr.DataTree.from_dict({**groups, **recorded})
        result.attrs = attributes
        return result


def check_observables(problem: Problem, observe: Any) -> dict[str, Observable]:
    """`observe` as a dict of functions that accept this problem's params."""
    observables = dict(observe or {})
    for name, function in observables.items():
        if not (isinstance(name, str) and callable(function)):
            raise ValueError(f"observe must map names to functions of params, got {name!r}")
        jax.eval_shape(function, problem.template)
    return observables


def schedule(name: str, at: int | Sequence[int] | None, last: int) -> list[int]:
    """The steps, up to `last`, that `at` asks for: every so many, the ones listed, or 128."""
    if at is None:
        spaced = np.linspace(0, last, _DEFAULT_OBSERVATIONS + 1)[1:]
        at = np.unique(np.ceil(spaced).astype(int)).tolist()
    if isinstance(at, int | np.integer):
        every = count(name, at)
        return list(range(every, last + 1, every)) or [last]
    chosen = sorted({count(name, item, at_least=0) for item in at})
    if not chosen or chosen[-1] > last:
        raise ValueError(f"{name} must be steps between 0 and {last}, got {list(at)}")
    return chosen


def kept(state: Any) -> dict[str, PyTree]:
    """The parts of a state that results hold, by name."""
    parts = {"params": state.params}
    if hasattr(state, "momentum_buffer"):
        parts["momentum_buffer"] = state.momentum_buffer
    return parts
