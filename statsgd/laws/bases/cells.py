"""Cells of a line that are split until what is summed over them is resolved: the adaptive rule."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

# Gauss–Lobatto with ends: a jump next to an end of a cell would pass between Gauss's nodes.
_TOP = np.polynomial.legendre.Legendre.basis(6)
_NODES = np.concatenate([[-1.0], np.sort(_TOP.deriv().roots().real), [1.0]])
#: Integrals over a piece of length one, from the values at its nodes.
WEIGHTS = 1 / (42 * _TOP(_NODES) ** 2)
_POWERS = np.arange(len(_NODES))
_UNIT = (1 + _NODES) / 2
#: Integrals from the start of a piece of length one to each of its nodes.
RUNNING = (_UNIT[:, None] ** (_POWERS + 1) / (_POWERS + 1)) @ np.linalg.inv(
    _UNIT[:, None] ** _POWERS
)
#: A cell as one piece, two and three: at a jump two of these may agree by chance.
GROUPS = (slice(0, 1), slice(1, 3), slice(3, 6))
#: Lengths of the six pieces, in cells.
LENGTHS = np.repeat([1, 1 / 2, 1 / 3], [1, 2, 3])
_PLACES = np.array([0, 0, 1 / 2, 0, 1 / 3, 2 / 3])[:, None] + LENGTHS[:, None] * _UNIT
_PARTS = 8
_ROUNDS = 16


class Cells(eqx.Module):
    """Stretches of a line with what is known of each; every field has an entry a cell."""

    start: Float[np.ndarray, " n"]
    end: Float[np.ndarray, " n"]


def at_pieces(
    function: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]], start: Any, end: Any
) -> Float[np.ndarray, "n 6 m"]:
    """A NumPy function at the nodes of the six pieces of every cell."""
    points = places(start, end)
    return np.asarray(function(points.ravel()), dtype=np.float64).reshape(points.shape)


def places(start: Any, end: Any) -> Float[np.ndarray, "n 6 m"]:
    """The nodes of the six pieces of every cell."""
    return start[:, None, None] + (end - start)[:, None, None] * _PLACES


def refined[C: Cells](
    cells: C, of: Callable[[Any, Any], C], error: Callable[[C], Any], most: int
) -> C:
    """`cells`, in order, split into those `of(start, end)` where `error(cells)` is positive.

    The worst are split first, into eight, until none is left or there are `most` cells.
    """
    for _ in range(_ROUNDS):
        found = error(cells)
        room = max(most - len(cells.start), 0) // (_PARTS - 1)
        worst = np.argsort(-found)[: min(room, int(np.sum(found > 0)))]
        if not len(worst):
            break
        edges = np.linspace(cells.start[worst], cells.end[worst], _PARTS + 1, axis=1)
        new = of(edges[:, :-1].ravel(), edges[:, 1:].ravel())
        kept = jax.tree.map(lambda leaf: np.delete(leaf, worst, axis=0), cells)  # noqa: B023
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), kept, new)
        order = np.argsort(joined.start)
        cells = jax.tree.map(lambda leaf: leaf[order], joined)  # noqa: B023
    return cells
