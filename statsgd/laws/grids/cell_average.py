"""Averages over cells of a grid of functions that are read at midpoints, with what that misses."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from statsgd.laws.expected import Columns, Expected
from statsgd.laws.grids.grid import Grid
from statsgd.precision import over_points

_SMOOTH, _ROUGH = 1 / 24, 1 / 4  # shares of Δ²f that a cell misses
_PARTS = {1: 256, 2: 32, 3: 8}  # of a side of a cell in which f jumps
_MOST = 4_000_000  # points in these cells
_OCCUPIED = 1e-15


def cell_average(
    values: Columns, grid: Grid, masses: Float[np.ndarray, "..."], *, sampled: bool
) -> tuple[Expected, Float[np.ndarray, "..."]]:
    """E f over the cells of `grid` by their `masses`, and f in every cell with a last axis of k.

    Second differences Δ²f over neighbours stand for h²f″, of which a cell misses a twenty-fourth,
    unless the masses are those of a density `sampled` at midpoints: then sums are the trapezoidal
    rule. Where they change as much as they are themselves, f jumps or bends, and is read at many
    points of the cell, between which a jump stays uncertain; the density there is interpolated.
    """
    by_cell = values(grid.points()).reshape(*grid.cells, -1)
    missed = np.zeros(by_cell.shape)
    rough = np.zeros(grid.cells, dtype=bool)
    for axis, wraps in enumerate(grid.periodic):
        second = _second(by_cell, axis, wraps)
        largest = np.maximum.reduce([np.roll(np.abs(second), side, axis) for side in (-1, 0, 1)])
        bends = np.any(np.abs(_second(second, axis, wraps)) > largest / 2, axis=-1)
        bends = bends | np.roll(bends, 1, axis) | np.roll(bends, -1, axis)
        missed += np.where(bends[..., None], _ROUGH, 0.0 if sampled else _SMOOTH) * np.abs(second)
        rough |= bends
    rough &= masses > _OCCUPIED
    if 0 < rough.sum() * _PARTS[grid.dimension] ** grid.dimension <= _MOST:
        average, left, jumps = _within(values, grid, masses, rough)
        if sampled:  # where f only bends, the trapezoidal rule did right without what that adds
            left = left + 2 * np.where(jumps, 0.0, np.abs(average - by_cell[rough]))
        by_cell = by_cell.copy()
        by_cell[rough], missed[rough] = average, left
    d = masses.ndim
    turned = _at_jumps(by_cell, masses, rough, grid) if sampled else 0.0
    value, error, size = (
        np.tensordot(masses, part, axes=d) for part in (by_cell, missed, np.abs(by_cell))
    )
    return Expected(value + turned, error, size), by_cell


def _within(
    values: Columns, grid: Grid, masses: Any, rough: Bool[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, "r k"], Bool[np.ndarray, "r k"]]:
    """Averages of f over some cells, what half a part of a side may change, whether f jumps."""
    d = grid.dimension
    number = _PARTS[d]
    offset = (np.arange(number) + 0.5) / number - 0.5
    offsets = np.stack(np.meshgrid(*[offset] * d, indexing="ij"), axis=-1).reshape(-1, d)
    points = grid.points()[rough.ravel()][:, None] + offsets * grid.spacing
    heights = over_points(_height, points, masses, grid)
    found = values(points.reshape(-1, d)).reshape(*points.shape[:2], -1)
    total = heights.sum(axis=1, keepdims=True)
    shares = np.divide(heights, total, out=np.full_like(heights, 1 / number**d), where=total > 0)
    change = np.ptp(found, axis=1)
    parts = found.reshape(len(found), *[number] * d, -1)
    steps = [
        np.max(np.abs(np.diff(parts, axis=1 + i)), axis=tuple(range(1, d + 1))) for i in range(d)
    ]
    jumps = np.maximum.reduce(steps) > change / 4
    return np.einsum("rm,rmk->rk", shares, found), change / (2 * number), jumps


def _at_jumps(by_cell: Any, masses: Any, rough: Any, grid: Grid) -> Float[np.ndarray, " k"]:
    """What the trapezoidal rule of a density p misses where f jumps by J: h²/24 p′J."""
    total = np.zeros(by_cell.shape[-1])
    for axis, wraps in enumerate(grid.periodic):
        rise, fall = (np.roll(part, -1, axis) - part for part in (masses, -by_cell))
        beside = rough | np.roll(rough, -1, axis)
        if not wraps:
            np.moveaxis(beside, axis, 0)[-1] = False
        total += np.tensordot(rise * beside, fall, axes=masses.ndim) / 24
    return total


def _height(point: Float[Any, " d"], masses: Float[Any, "..."], grid: Grid) -> Float[Any, ""]:
    return grid.interpolate(masses, point)


def _second(values: Any, axis: int, wraps: bool) -> Any:
    """Second differences along an axis; zero at an end, where what is beyond is not known."""
    found = np.roll(values, 1, axis) + np.roll(values, -1, axis) - 2 * values
    if not wraps:
        np.moveaxis(found, axis, 0)[[0, -1]] = 0.0
    return found
