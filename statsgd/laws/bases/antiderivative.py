"""Antiderivatives on the line, by cells that are split until their integrals are resolved."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.laws.bases.cells import GROUPS, LENGTHS, WEIGHTS, Cells, at_pieces, refined

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
#: Two nodes, for a stretch of length zero that carries derivatives.
LAST = (-(3**-0.5), 3**-0.5)
_FIRST, _MOST = 2048, 16384  # cells
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

        def excess(cells: _Integrals) -> Any:
            return cells.error - tolerance - _RELATIVE * np.abs(cells.integral)

        ends = np.union1d(np.linspace(low, high, _FIRST), 0.0)
        of = partial(_integrals, function)
        cells = refined(of(ends[:-1], ends[1:]), of, excess, _MOST)
        knots = np.append(cells.start, high)
        integrals, errors = cells.integral, np.append(cells.error, 0.0)
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
        end = jax.lax.stop_gradient(place)
        knots = jnp.asarray(self.knots, jnp.result_type(place))
        cell = jnp.clip(jnp.searchsorted(knots, end) - 1, 0, len(self.knots) - 1)
        half = (end - knots[cell]) / 2
        nodes, weights = (jnp.asarray(rule, half.dtype) for rule in (_NODES, _WEIGHTS))
        values = jax.vmap(function)(knots[cell] + half * (1 + nodes))
        found = jnp.asarray(self.sums, half.dtype)[cell] + half * (weights @ values)
        # A last stretch of length zero carries the derivatives: two nodes make them exact up to the
        # fourth, where differentiating the quadrature would only approximate the function.
        step = place - end
        last = jax.vmap(function)(end + step * (1 + jnp.asarray(LAST, half.dtype)) / 2)
        return found + step * jnp.sum(last) / 2


class _Integrals(Cells):
    integral: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]


def _integrals(function: Callable, start: Any, end: Any) -> _Integrals:
    pieces = at_pieces(function, start, end) @ WEIGHTS * LENGTHS * (end - start)[:, None]
    whole, halves, thirds = (pieces[:, group].sum(axis=1) for group in GROUPS)
    error = np.maximum(np.abs(thirds - halves), np.abs(thirds - whole))
    return _Integrals(start, end, thirds, error)
