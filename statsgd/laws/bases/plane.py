"""Integrals over a square of the plane, by cells that are split where they are not resolved."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

# Gauss–Lobatto: an edge that cuts off a corner of a cell would pass between Gauss's nodes.
_NODES, _WEIGHTS = np.array([-1, -(5**-0.5), 5**-0.5, 1]), np.array([1, 5, 5, 1]) / 6
_OFFSETS = np.stack(np.meshgrid(_NODES, _NODES, indexing="ij"), axis=-1).reshape(-1, 2)
_PRODUCTS = np.outer(_WEIGHTS, _WEIGHTS).ravel()
_CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) / 2
_FIRST = 32  # cells a side
_LEVELS = 9


def integrate_over_square(
    function: Callable[[Float[np.ndarray, "n 2"]], Float[np.ndarray, "n k"]],
    half: float,
    tolerance: float,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """∫ over [−half, half]² of a NumPy function of points, and the sum of errors of its cells.

    A cell is split, at most nine times, while its quarters change it by more than `tolerance`: an
    edge along which the function jumps is followed to 1/16384 of the side.
    """
    size = half / _FIRST
    axis = (np.arange(_FIRST) + 0.5) * 2 * size - half
    centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    values = _cells(function, centres, size)
    total, error = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for level in range(_LEVELS):
        size /= 2
        parts = (centres[:, None] + 2 * size * _CORNERS).reshape(-1, 2)
        finer = _cells(function, parts, size).reshape(len(centres), 4, -1)
        change = np.abs(finer.sum(axis=1) - values)
        split = np.max(change, axis=1, initial=0) > tolerance
        done = np.full_like(split, True) if level == _LEVELS - 1 else ~split
        total += finer[done].sum(axis=(0, 1))
        error += change[done].sum(axis=0)
        centres = parts.reshape(-1, 4, 2)[~done].reshape(-1, 2)
        values = finer[~done].reshape(-1, finer.shape[2])
        if not len(centres):
            break
    return total, error


def _cells(function: Any, centres: Any, size: float) -> Float[np.ndarray, "n k"]:
    points = (centres[:, None] + size * _OFFSETS).reshape(-1, 2)
    values = function(points).reshape(len(centres), len(_PRODUCTS), -1)
    return size**2 * np.einsum("npk,p->nk", values, _PRODUCTS)
