"""Antiderivatives on the line, by cells that are split until their integrals are resolved."""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
# Gauss–Lobatto for cells: a jump next to an end of one would pass between Gauss's nodes.
_SIXTH = np.polynomial.legendre.Legendre.basis(6)
_WITH_ENDS = np.concatenate([[-1.0], np.sort(_SIXTH.deriv().roots().real), [1.0]])
_OF_ENDS = 2 / (42 * _SIXTH(_WITH_ENDS) ** 2)
_FIRST, _MOST = 2048, 16384  # cells
_PARTS = 8
_ROUNDS = 16
_LARGEST = 1e30
_RELATIVE = 1e-12  # error of a cell that is rounding


class Antiderivative(eqx.Module):
    """∫ of a function from zero: sums over cells, and Gauss–Legendre inside one."""

    knots: Float[Any, " n"]
    sums: Float[Any, " n"]
    errors: Float[Any, " n"]
    """What dividing a cell, from its knot to the next, changes."""

    @classmethod
    def of(
        cls,
        function: Callable[[Float[Any, " n"]], Float[Any, " n"]],
        low: float,
        high: float,
        tolerance: float,
    ) -> "Antiderivative":
        """Of a NumPy function from `low` to `high`, with zero between them or at an end.

        The worst cells are split until none is off by `tolerance`.
        """
        ends = np.union1d(np.linspace(low, high, _FIRST), 0.0)
        cells = _Cells.of(function, ends[:-1], ends[1:])
        for _ in range(_ROUNDS):
            bad = cells.error > tolerance + _RELATIVE * np.abs(cells.integral)
            room = (_MOST - len(cells.start)) // (_PARTS - 1)
            worst = np.argsort(np.where(bad, cells.error, -1))[::-1][: min(room, int(np.sum(bad)))]
            if not len(worst):
                break
            edges = np.linspace(cells.start[worst], cells.end[worst], _PARTS + 1, axis=1)
            new = _Cells.of(function, edges[:, :-1].ravel(), edges[:, 1:].ravel())
            cells = cells.without(worst).joined(new)
        order = np.argsort(cells.start)
        knots = np.append(cells.start[order], high)
        integrals, errors = cells.integral[order], np.append(cells.error[order], 0.0)
        # From a far end, where the function may be huge, sums would lose all digits.
        middle = int(np.searchsorted(knots, 0.0))
        below, above = (np.cumsum(part) for part in (integrals[:middle][::-1], integrals[middle:]))
        sums = np.concatenate([-below[::-1], [0.0], above])
        # No more than single precision holds; filled up, so that all run the same programs.
        kept = np.flatnonzero(np.abs(sums) < _LARGEST)
        filled = np.pad(kept, (0, _MOST + 1 - len(kept)), mode="edge")
        return cls(knots[filled], sums[filled], np.pad(errors[kept], (0, _MOST + 1 - len(kept))))

    def error_between(self, low: Any, high: Any) -> Any:
        """Sum of the errors of the cells from `low` to `high`, which zero is part of."""
        inside = (self.knots <= np.maximum(high, 0)) & (
            np.append(self.knots[1:], np.inf) >= np.minimum(low, 0)
        )
        return np.sum(np.where(inside, self.errors, 0.0))

    def at(self, place: Any, function: Callable[[Any], Any]) -> Any:
        """The integral from zero to `place`, of the same function of one number in JAX."""
        knots = jnp.asarray(self.knots, jnp.result_type(place))
        cell = jnp.clip(jnp.searchsorted(knots, place) - 1, 0, len(self.knots) - 1)
        half = (place - knots[cell]) / 2
        nodes, weights = (jnp.asarray(rule, half.dtype) for rule in (_NODES, _WEIGHTS))
        values = jax.vmap(function)(knots[cell] + half * (1 + nodes))
        return jnp.asarray(self.sums, half.dtype)[cell] + half * (weights @ values)


class _Cells(eqx.Module):
    start: Float[np.ndarray, " n"]
    end: Float[np.ndarray, " n"]
    integral: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, function: Any, start: Any, end: Any) -> "_Cells":
        # Two comparisons: at a jump one of them may agree by chance.
        whole, halves, thirds = (_in_parts(function, start, end, number) for number in (1, 2, 3))
        error = np.maximum(np.abs(thirds - halves), np.abs(thirds - whole))
        return cls(start, end, thirds, error)

    def without(self, index: Any) -> "_Cells":
        return jax.tree.map(lambda leaf: np.delete(leaf, index), self)

    def joined(self, other: "_Cells") -> "_Cells":
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), self, other)


def _in_parts(function: Any, start: Any, end: Any, number: int) -> Any:
    edges = np.linspace(start, end, number + 1)
    return sum(_lobatto(function, *pair) for pair in itertools.pairwise(edges))


def _lobatto(function: Any, start: Any, end: Any) -> Any:
    half = (end - start)[:, None] / 2
    places = start[:, None] + half * (1 + _WITH_ENDS)
    return (function(places.ravel()).reshape(places.shape) @ _OF_ENDS) * half[:, 0]
