"""Expectations of arbitrary functions under a law, each with a bound on its numerical error."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.laws.bases.cells import GROUPS, LENGTHS, WEIGHTS, Cells, places, refined
from statsgd.laws.bases.line import LineTable, Wells
from statsgd.laws.bases.plane import integrate_over_square
from statsgd.laws.expected import Expected, of_sums
from statsgd.precision import over_points

#: Values of k functions at points of the coordinate of a table, or in parameter space.
type Values = Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n k"]]

_RESOLVED = 1e-10  # share of a cell's error in E|f|
_MOST = 4096  # cells between knots
_FARTHEST = 9.0  # standard deviations
_CELL = 1e-9  # share of a cell of the plane in E|f|


def on_table(table: LineTable, values: Values, law_error: Any) -> Expected:
    """E f(s) under a tabulated law that is off by `law_error`, which holds the table's own error.

    By the cubics through four neighbours between knots, which in all is the trapezoidal rule of
    smooth integrands, and its error is what its fourth differences say, as the table's is. Where f
    jumps or bends between knots, cells are split, with the density that the table's distribution
    function has there.
    """
    step = (table.knots[-1] - table.knots[0]) / (len(table.knots) - 1)
    masses = (table.density * step)[:, None]
    function = np.where(masses > 0, values(table.points[:, None]), 0.0)
    parts, change = _between_knots(function * masses), _left(function * masses)
    size = np.sum(np.abs(function) * masses, axis=0)
    rough = np.flatnonzero(np.any(change > _RESOLVED * size, axis=1))
    # Where most cells are rough it is f that the knots do not follow: all is stated as an error.
    if 0 < len(rough) <= _MOST // 8:
        follow = partial(_followed, values, table)
        cells = refined(
            follow(table.knots[rough], table.knots[rough + 1]),
            follow,
            lambda cells: np.max(cells.change - _RESOLVED * size, axis=1),
            _MOST,
        )
        # What the density itself is off by there stays.
        height = np.maximum(np.abs(function[rough]), np.abs(function[rough + 1]))
        parts[rough], change[rough] = 0.0, height * _left(masses)[rough]
        parts = np.concatenate([parts, cells.total])
        change = np.concatenate([change, cells.change])
    error = np.sum(change, axis=0) + 2 * float(law_error) * size
    return Expected(np.sum(parts, axis=0), error, size)


def _between_knots(f: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "m k"]:
    """∫ between knots one apart, by the cubics through four neighbours."""
    inner = 13 * (f[1:-2] + f[2:-1]) - f[:-3] - f[3:]
    first, last = (
        9 * side[:1] + 19 * side[1:2] - 5 * side[2:3] + side[3:4] for side in (f, f[::-1])
    )
    return np.concatenate([first, inner, last]) / 24


def _left(f: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "m k"]:
    """What the rule leaves in each cell: a twelfth of fourth differences, in both cells beside."""
    fourth = np.abs(np.diff(f, 4, axis=0)) / 24
    found = np.zeros((len(f) - 1, f.shape[1]))
    found[1:-2] += fourth
    found[2:-1] += fourth
    return found


class _Stretches(Cells):
    """Integrals over stretches of a coordinate, and what the number of pieces changes in them."""

    total: Float[np.ndarray, "n k"]
    change: Float[np.ndarray, "n k"]


def _summed(integrand: Values, start: Any, end: Any) -> _Stretches:
    """By one piece, two and three of every stretch."""
    points = places(start, end)
    values = integrand(points.reshape(-1, 1)).reshape(*points.shape, -1)
    pieces = np.einsum("npmk,m->npk", values, WEIGHTS) * LENGTHS[:, None]
    whole, halves, thirds = (
        pieces[:, group].sum(axis=1) * (end - start)[:, None] for group in GROUPS
    )
    change = np.maximum(np.abs(thirds - halves), np.abs(thirds - whole))
    return _Stretches(start, end, thirds, change)


def _followed(values: Values, table: LineTable, start: Any, end: Any) -> _Stretches:
    """Between neighbouring knots, with the slope of the table's distribution function."""
    step = (table.knots[-1] - table.knots[0]) / (len(table.knots) - 1)
    middle = (start + end) / 2 - table.knots[0]
    cells = np.clip((middle / step).astype(int), 0, len(table.knots) - 2)

    def integrand(t: Any) -> Any:
        cell = np.repeat(cells, len(t) // len(cells))
        s, density = _slope_at(table, t[:, 0], cell)
        return values(s[:, None]) * density[:, None]

    return _summed(integrand, start, end)


def _slope_at(table: LineTable, t: Any, cell: Any) -> tuple[Any, Any]:
    """s at t in a cell, and the density there with respect to t."""
    step = (table.knots[-1] - table.knots[0]) / (len(table.knots) - 1)
    u = np.clip((t - table.knots[cell]) / step, 0, 1)
    low, high = table.points[cell], table.points[cell + 1]
    rows = np.stack([t, low + (high - low) * u, low, high], axis=1)
    s = over_points(_place, rows, table.wells)
    rise = (table.cumulative[cell + 1] - table.cumulative[cell]) / step
    left, right = table.density[cell], table.density[cell + 1]
    density = left + u * (2 * (3 * rise - 2 * left - right) + 3 * u * (left + right - 2 * rise))
    return s, np.maximum(density, 0)


def _place(row: Float[Any, "4"], wells: Wells) -> Float[Any, ""]:
    return wells.place(*row)


def on_table_and_normal(
    table: LineTable,
    values: Callable[[Float[np.ndarray, "n 1"], Float[np.ndarray, " n"]], Any],
    scale: Float[np.ndarray, " k"],
    law_error: Any,
) -> Expected:
    """E f(s, z) for s under a table and an independent standard normal z, where f may jump.

    Cells of the plane are split while they change f by more than 10⁻⁹ of its `scale`.
    """
    first, last = table.knots[[0, -1]]

    def integrand(points: Any) -> Any:
        t = (first + last) / 2 + (last - first) / 2 * points[:, 0]
        z = _FARTHEST * points[:, 1]
        cell = np.clip(np.searchsorted(table.knots, t) - 1, 0, len(table.knots) - 2)
        s, density = _slope_at(table, t, cell)
        weight = density * (last - first) / 2 * _FARTHEST * np.exp(-(z**2) / 2)
        found = values(s[:, None], z) * (weight / np.sqrt(2 * np.pi))[:, None] / scale
        return np.concatenate([found, np.abs(found)], axis=1)

    total, error = integrate_over_square(integrand, 1.0, _CELL)
    k = len(scale)
    size = total[k:] * scale
    return Expected(total[:k] * scale, error[:k] * scale + 2 * float(law_error) * size, size)


def on_line(
    density: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]],
    values: Values,
    pieces: list[tuple[float, float]],
) -> Expected:
    """E f under a density on the line that is smooth on every one of `pieces`, and zero off them.

    Normalised by its own integral; cells are split where f·p is not resolved.
    """

    def integrand(points: Any) -> Any:
        found = values(points)
        columns = [found, np.abs(found), np.ones((len(points), 1))]
        return np.concatenate(columns, axis=1) * density(points[:, 0])[:, None]

    ends = [np.linspace(low, high, 65) for low, high in pieces]
    first = _summed(
        integrand,
        np.concatenate([piece[:-1] for piece in ends]),
        np.concatenate([piece[1:] for piece in ends]),
    )
    scale = np.sum(first.total, axis=0)
    scale[: len(scale) // 2] = scale[len(scale) // 2 : -1]
    cells = refined(
        first,
        partial(_summed, integrand),
        lambda cells: np.max(cells.change - _RESOLVED * scale, axis=1),
        _MOST,
    )
    return of_sums(np.sum(cells.total, axis=0), np.sum(cells.change, axis=0))
