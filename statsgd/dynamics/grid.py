"""Grids of settings: one dynamics for every combination of values along named axes."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from statsgd.display import html, number
from statsgd.dynamics.dynamics import Dynamics
from statsgd.problems import Problem
from statsgd.running.stacked import Stacked, alike, axis_values


class SettingsGrid(NamedTuple):
    """A dynamics some of whose settings hold one value for every cell: a `grid` or a `batch`."""

    dynamics: Dynamics
    axes: dict[str, Any]
    varies: Any = False
    """Truth values in the shape of the dynamics: which settings do so."""

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}={number(values)}" for name, values in self.axes.items())
        return f"SettingsGrid({self.cells} cells; {axes}; {self.dynamics!r})"

    def _repr_html_(self) -> str:
        return html({"cells": self.cells} | self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each axis."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def cells(self) -> int:
        """Number of combinations; the last axis varies fastest."""
        return math.prod(self.shape)

    def stacked(self) -> Stacked:
        """The settings of all cells.

        All single numbers are stacked, even those that do not vary, so that a cell is computed by
        the program that a run of its own would compile: others round differently.
        """
        varied, shared = eqx.partition(self.dynamics, self.varies)
        single, shared = eqx.partition(shared, _is_single_number)
        repeated = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), self.cells), single)
        return Stacked(eqx.combine(varied, repeated), shared)

    def check(self, problem: Problem, *, allow_unstable: bool, first: int, last: int) -> None:
        """Raise `ValueError` if the dynamics of any cell cannot run on `problem` between steps."""
        varied, shared = self.stacked()
        for index in range(self.cells):
            # In NumPy, so that errors give the numbers that were asked for.
            cell = eqx.combine(jax.tree.map(lambda leaf, i=index: leaf[i], varied), shared)
            cell.check(problem, allow_unstable=allow_unstable)
            cell.check_steps(problem, first, last)


def grid(
    dynamics: Dynamics,
    axes: Mapping[str, Any] | None = None,
    **more: Any,
) -> SettingsGrid:
    """Every combination of settings along named axes, for one call of `simulate`.

    >>> import statsgd
    >>> sgd = statsgd.SGD(0.1, statsgd.noise.Isotropic(1.0))
    >>> statsgd.grid(sgd, learning_rate=[0.05, 0.1], momentum=[0.0, 0.5, 0.9]).shape
    (2, 3)
    >>> statsgd.grid(sgd, {"noise.variance": [0.5, 1.0, 2.0]}).cells
    3

    Axes are numbers that `dynamics` holds, at any depth (`noise.variance`, or an entry of a
    mapping such as `hyperparameters.b1`). The whole grid is one compilation and one vectorised
    run, and every group of the result gains the axes as leading dims with coordinates. All cells
    share the random numbers of the seed: a cell equals, bit for bit, the separate run of its
    settings.

    What is not a number, a batch size say, changes the program: run `simulate` for each value.

    Raises `ValueError` for an axis that names no number, for an empty axis and for values that the
    dynamics does not allow.
    """
    values = {
        name: _axis(dynamics, name, entries) for name, entries in {**(axes or {}), **more}.items()
    }
    if not values:
        raise ValueError("grid must have at least one axis, such as learning_rate=[0.1, 0.2]")
    meshes = np.meshgrid(*values.values(), indexing="ij")
    for name, mesh in zip(values, meshes, strict=True):
        dynamics = _set(dynamics, name.split("."), mesh.reshape(-1))
    varies = jax.tree.map(lambda _: False, dynamics)
    for name in values:
        setting = functools.partial(functools.reduce, _get, name.split("."))
        varies = eqx.tree_at(setting, varies, True)
    return SettingsGrid(dynamics, values, varies)


def batch(settings: Sequence[Dynamics]) -> SettingsGrid:
    """Several dynamics that differ in traced numbers alone, for one call of `simulate`.

        statsgd.batch([SGD(0.1, noise), SGD(0.2, noise, momentum=0.9)])

    They run like the cells of a `grid` but need not be all combinations of anything; results gain
    the dim `cell`. With `simulate(..., seed=[...])` each has random numbers of its own.

    Raises `ValueError` for an empty sequence and for dynamics that differ in anything else.

    >>> from statsgd import SGD, noise
    >>> both = batch([SGD(0.1, noise.Isotropic(1.0)), SGD(0.2, noise.Isotropic(4.0))])
    >>> both.cells
    2
    """
    if not settings:
        raise ValueError("settings must hold at least one dynamics, got an empty sequence")
    for other in settings[1:]:
        if not alike(settings[0], other, eqx.is_inexact_array_like):
            raise ValueError(
                "settings must differ in traced numbers only, got "
                f"{settings[0]!r} and {other!r}; others need a run each"
            )
    varied, shared = Stacked.of(settings, eqx.is_inexact_array_like)
    varies = jax.tree.map(lambda leaf: leaf is not None, varied, is_leaf=lambda leaf: leaf is None)
    return SettingsGrid(eqx.combine(varied, shared), {"cell": np.arange(len(settings))}, varies)


def _axis(dynamics: Dynamics, name: str, entries: Any) -> Float[Any, " n"]:
    current: Any = dynamics
    for part in name.split("."):
        current = _get(current, part)
        if current is None:
            raise ValueError(f"{name!r} names no setting of {type(dynamics).__name__}")
    inexact = isinstance(current, float | np.ndarray | np.generic | Array)
    if not inexact or np.shape(current) or not np.issubdtype(np.asarray(current).dtype, np.inexact):
        raise ValueError(
            f"{name!r} must name a traced number of {type(dynamics).__name__}, got {current!r}; "
            "settings that change the program need a run each"
        )
    return axis_values(name, entries)


def _is_single_number(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) and leaf.ndim == 0


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _set(holder: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of `holder` with `value` at `path`; modules are rebuilt, and so check it."""
    name, *rest = path
    if rest:
        value = _set(_get(holder, name), rest, value)
    if isinstance(holder, Mapping):
        return {**holder, name: value}
    return dataclasses.replace(holder, **{name: value})
