"""Settings of all cells of a grid in one pytree, for one program that runs every cell.

A cell is one combination of settings.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree


class Stacked(NamedTuple):
    """The leaves that vary from cell to cell, with a leading axis of cells, and those that do not.

    Both have the structure of the settings of one cell, with None for leaves of the other.
    """

    varied: PyTree
    shared: PyTree

    @classmethod
    def of(cls, settings: Sequence[PyTree], is_number: Callable[[Any], bool]) -> "Stacked":
        """Settings that are `alike`, one of each cell."""
        numbers = [eqx.filter(one, is_number) for one in settings]

        def divided(*leaves):
            same = all(np.array_equal(leaf, leaves[0]) for leaf in leaves)
            return (None, leaves[0]) if same else (np.stack(leaves), None)

        structure = jax.tree.structure(numbers[0])
        columns = zip(*map(jax.tree.leaves, numbers), strict=True)
        pairs = [divided(*column) for column in columns]
        varied, shared = (
            jax.tree.unflatten(structure, [pair[i] for pair in pairs]) for i in (0, 1)
        )
        return cls(varied, eqx.combine(shared, eqx.filter(settings[0], is_number, inverse=True)))

    def cell(self, index: Any) -> Any:
        """The settings of the cell of this number, which may be traced."""
        chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self.varied)
        return eqx.combine(chosen, self.shared)


def alike(one: PyTree, other: PyTree, is_number: Callable[[Any], bool]) -> bool:
    """Whether two settings differ in nothing but the values of their numbers."""
    numbers, programs = zip(*(eqx.partition(each, is_number) for each in (one, other)), strict=True)
    structures: list[Any] = [jax.tree.structure(each) for each in numbers]
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(each)] for each in numbers]
    same_shapes = structures[0] == structures[1] and shapes[0] == shapes[1]
    return same_shapes and bool(eqx.tree_equal(*programs))


def axis_values(name: str, entries: Any) -> Float[Any, " n"]:
    """Values along the axis `name` of a grid. Raises `ValueError` unless it has any."""
    values = np.asarray(entries, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"grid {name!r} must be a non-empty sequence of numbers, got {entries!r}")
    return values
