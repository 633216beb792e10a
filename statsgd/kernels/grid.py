"""Grids of `sample`: one cell for every combination of numbers of the law and the kernel."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.program import Settings
from statsgd.laws import Law
from statsgd.running.stacked import Stacked, alike, axis_values

_LAW = "law."


def grid_axes(
    target: Any, kernel: LangevinKernel | None, grid: Any, warmup: int
) -> dict[str, np.ndarray]:
    """Checked axes: numbers of the kernel by name, arguments of the law as `law.name`."""
    axes = {}
    for name, entries in dict(grid or {}).items():
        if name.startswith(_LAW):
            allowed = constructor_arguments(target) if isinstance(target, Law) else {}
            known = [_LAW + argument for argument in allowed]
        else:
            numbers = {} if kernel is None else kernel.parameters
            known = [name for name, value in numbers.items() if _is_one_number(value)]
        if name not in known:
            raise ValueError(
                f"grid names must be numbers of the kernel or arguments of the law as 'law.…', "
                f"got {name!r}; known here: {', '.join(known) or 'none'}"
            )
        values = axis_values(name, entries)
        if not name.startswith(_LAW) and not np.all(values > 0):
            raise ValueError(f"grid {name!r} must be positive, got {entries!r}")
        axes[name] = values
    if kernel is not None and "step_size" in axes and kernel.adapts and warmup:
        raise ValueError(
            "grid over step_size needs a kernel with adapt_step_size=False, or warmup=0: "
            "adaptation would replace the values"
        )
    return axes


def settings_of_cells(
    target: Any, kernel: LangevinKernel | None, axes: Mapping[str, np.ndarray]
) -> list[Settings]:
    """The settings of every cell, the last axis varying fastest; every law must be proper."""
    parameters = {} if kernel is None else kernel.parameters
    cells = []
    for values in itertools.product(*axes.values()):
        changes = dict(zip(axes, values, strict=True))
        of_law = {n.removeprefix(_LAW): v for n, v in changes.items() if n.startswith(_LAW)}
        law = target
        if of_law:
            arguments = {name: getattr(target, name) for name in constructor_arguments(target)}
            law = type(target)(**(arguments | of_law))
        if isinstance(law, Law):
            law.require_proper()
        own = {name: v for name, v in changes.items() if not name.startswith(_LAW)}
        cells.append(Settings(law, {**parameters, **own}))
    return cells


def stacked(cells: Sequence[Settings]) -> Stacked:
    """The settings of all `cells`. Raises `ValueError` where they differ in more than numbers."""
    if not all(alike(cells[0], cell, _is_numeric) for cell in cells):
        raise ValueError(
            "grid must vary numbers only: the laws of its cells have other shapes or programs"
        )
    return Stacked.of(cells, _is_numeric)


def _is_numeric(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, float)


def _is_one_number(value: Any) -> bool:
    return isinstance(value, float | np.ndarray | np.generic | jax.Array) and np.ndim(value) == 0


def constructor_arguments(law: Law) -> list[str]:
    """Arguments of the law's constructor, all of which it keeps under the same name."""
    return [name for name in inspect.signature(type(law)).parameters if hasattr(law, name)]
