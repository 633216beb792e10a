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

from statsgd.dynamics.dynamics import Dynamics


class Grid(NamedTuple):
    """A dynamics whose settings named by `axes` hold one value for every cell; made by `grid`."""

    dynamics: Dynamics
    axes: dict[str, Float[Any, " n"]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each axis."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def cells(self) -> int:
        """Number of combinations; the last axis varies fastest."""
        return math.prod(self.shape)

    def parts(self) -> tuple[Dynamics, Dynamics]:
        """The settings that vary, with a leading axis of cells, and those that do not."""
        varies = jax.tree.map(lambda _: False, self.dynamics)
        for name in self.axes:
            setting = functools.partial(functools.reduce, _get, name.split("."))
            varies = eqx.tree_at(setting, varies, True)
        return eqx.partition(self.dynamics, varies)

    def cell(self, index: int) -> Dynamics:
        """The dynamics of one cell."""
        varied, shared = self.parts()
        return eqx.combine(jax.tree.map(lambda leaf: leaf[index], varied), shared)


def grid(
    dynamics: Dynamics,
    axes: Mapping[str, Any] | None = None,
    **more: Any,
) -> Grid:
    """Every combination of settings along named axes, for one call of `simulate`.

        statsgd.grid(sgd, learning_rate=[0.05, 0.1], momentum=[0.0, 0.9])
        statsgd.grid(sgd, {"noise.variance": [0.5, 1.0, 2.0]})

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
    return Grid(dynamics, values)


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
    values = np.asarray(entries, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name!r} must have a non-empty sequence of values, got {entries!r}")
    return values


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
