"""Transition probabilities of one random step, between the midpoints of the cells of a grid."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from statsgd.laws.grids.grid import Grid

_REACH = 7.2  # standard deviations beyond which a normal density is cut: mass 6e-13
_CHUNK = 2_000_000
_ROUNDS = 4
_MOST_TAKEN = 0.5  # of the variance of a step
_HAT = 1 / 6  # variance of linear interpolation, in squared cells, averaged over positions


class Transitions(NamedTuple):
    """Rows of a transition matrix, with what the grid does to them."""

    matrix: sparse.csr_array
    """Probability of every cell; rows sum to one."""
    exit: Float[Any, " rows"]
    """Probability of leaving the box, which the matrix gives to cells inside."""
    excess: Float[Any, " rows"]
    """Trace of the covariance of the row minus that of the step: numerical diffusion."""


def gaussian_transitions(
    grid: Grid, means: Float[Any, "rows d"], covariances: Float[Any, "rows d d"]
) -> Transitions:
    """Steps to N(mean, covariance), one row each.

    Where every standard deviation is at least a cell, a row holds the density at the midpoints:
    sums over midpoints are then exact to e^(−2π² sd²/cell²), 3·10⁻⁹ at one cell, 10⁻³⁴ at two,
    which is far better than integrals over cells, whose error is (cell/sd)²/12. Elsewhere (also
    for singular covariances) the normal law is a quadrature along its principal axes, spread over
    neighbouring cells by linear interpolation, whose variance is taken off the covariance where
    that is large enough. Means are always exact.

    A mean outside the box is moved to its middle, and a row is normalised over the box.
    """
    spacing = grid.spacing
    position, outside = _position(grid, means)
    scaled = covariances / (spacing[:, None] * spacing)
    values, vectors = np.linalg.eigh(scaled)
    resolved = values[:, 0] >= 1
    widths = np.sqrt(np.maximum(values[:, -1], 0))
    blocks, order = [], []
    exit_, excess = outside.astype(float), np.zeros(len(means))
    for smooth in (True, False):
        rows = np.flatnonzero(resolved == smooth)
        rows = rows[np.argsort(widths[rows], kind="stable")]
        while len(rows):
            size = _cells_reached(scaled[rows], grid) if smooth else _nodes(values[rows])
            fits = np.maximum.accumulate(size) * np.arange(1, len(rows) + 1) <= _CHUNK
            chunk = rows[: max(1, int(fits.sum()))]
            rows = rows[len(chunk) :]
            if smooth:
                block = _density_rows(grid, position[chunk], scaled[chunk])
            else:
                block, excess[chunk] = _quadrature_rows(
                    grid, position[chunk], values[chunk], vectors[chunk]
                )
            total = np.asarray(block.sum(axis=1)).ravel()
            exit_[chunk] = np.maximum(exit_[chunk], 1 - total)
            blocks.append(sparse.diags_array(1 / total) @ block)
            order.append(chunk)
    stacked = sparse.vstack(blocks, format="csr")
    return Transitions(stacked[np.argsort(np.concatenate(order))], np.maximum(exit_, 0), excess)


def finite_transitions(
    grid: Grid,
    targets: Float[Any, "rows points d"],
    probabilities: Float[Any, "*rows points"],
    *,
    contracted: bool = False,
) -> Transitions:
    """Steps to finitely many points, each shared out over its neighbours by linear interpolation.

    Means are exact; an interpolated point at the fraction f between two midpoints adds the
    variance f(1−f)·cell². Where `contracted`, points are drawn together by as much if the step is
    wide enough, so that variances are nearly exact too. Points outside the box are moved to its
    middle.
    """
    blocks, exits, excesses = [], [], []
    last = np.array(grid.cells) - 1
    length = max(1, _CHUNK // (targets.shape[1] * 2**grid.dimension))
    table = np.broadcast_to(probabilities, targets.shape[:2])
    for start in range(0, len(targets), length):
        part, weights = targets[start : start + length], table[start : start + length]
        rows, points, d = part.shape
        position, outside = _position(grid, part.reshape(-1, d))
        position = np.where(grid.periodic, position, np.clip(position, 0, last))
        position, taken = position.reshape(rows, points, d), np.zeros((rows, d))
        if contracted:
            position, taken = _drawn_together(position, weights)
            position = np.where(grid.periodic, position, np.clip(position, 0, last))
        block, excess = _interpolated(grid, position, weights)
        blocks.append(block)
        excesses.append(excess - taken @ grid.spacing**2)
        exits.append(np.sum(outside.reshape(rows, points) * weights, axis=1))
    stacked = sparse.vstack(blocks, format="csr")
    return Transitions(stacked, np.concatenate(exits), np.concatenate(excesses))


def _drawn_together(
    points: Float[np.ndarray, "n m d"], weights: Float[np.ndarray, "n m"]
) -> tuple[Float[np.ndarray, "n m d"], Float[np.ndarray, "n d"]]:
    """Points about their mean with the variance off that interpolation will add, and how much."""
    mean = np.einsum("nm,nmi->ni", weights, points)[:, None]
    apart = points - mean
    variance = np.einsum("nm,nmi->ni", weights, apart**2)
    share, wide = np.ones(variance.shape), variance > 0
    for _ in range(_ROUNDS):
        fraction = np.mod(mean + share[:, None] * apart, 1)
        added = np.einsum("nm,nmi->ni", weights, fraction * (1 - fraction))
        ratio = np.divide(added, variance, out=np.ones_like(added), where=wide)
        share = np.where(ratio < _MOST_TAKEN, np.sqrt(1 - np.minimum(ratio, _MOST_TAKEN)), 1.0)
    return mean + share[:, None] * apart, (1 - share**2) * variance


def _position(grid: Grid, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index coordinates, integer at midpoints, and who was outside the box: sent to its middle.

    To the wall would be wrong: from there an unstable step may leap to the opposite wall for ever.
    """
    position = (points - np.array(grid.lower)) / grid.spacing - 0.5
    last = np.array(grid.cells) - 1
    periodic = np.array(grid.periodic)
    outside = np.any(~periodic & ((position < -0.5) | (position > last + 0.5)), axis=1)
    return np.where(periodic | ~outside[:, None], position, last / 2), outside


def _flat(grid: Grid, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat cell index of integer index coordinates (wrapped), and whether they are in the box."""
    cells = np.array(grid.cells)
    inside = np.all(np.array(grid.periodic) | ((index >= 0) & (index < cells)), axis=-1)
    wrapped = np.mod(index, cells)
    return np.ravel_multi_index(tuple(np.moveaxis(wrapped, -1, 0)), grid.cells), inside


def _cells_reached(scaled: np.ndarray, grid: Grid) -> np.ndarray:
    deviations = np.sqrt(np.diagonal(scaled, axis1=1, axis2=2))
    return np.prod(2 * np.ceil(_REACH * deviations) + 1, axis=1)


def _density_rows(grid: Grid, position: np.ndarray, scaled: np.ndarray) -> sparse.csr_array:
    d = grid.dimension
    deviations = np.sqrt(np.diagonal(scaled, axis1=1, axis2=2))
    reach = np.ceil(_REACH * deviations.max(axis=0)).astype(int)
    offsets = np.stack(
        np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1
    ).reshape(-1, d)
    nearest = np.rint(position).astype(int)
    index = nearest[:, None] + offsets
    root = np.linalg.inv(np.linalg.cholesky(scaled))
    white = np.einsum("nij,nmj->nmi", root, index - position[:, None])
    exponent = 0.5 * np.sum(white**2, axis=-1)
    scale = np.prod(np.diagonal(root, axis1=1, axis2=2), axis=1) / (2 * np.pi) ** (d / 2)
    columns, inside = _flat(grid, index)
    keep = inside & (exponent < 0.5 * _REACH**2)
    rows = np.broadcast_to(np.arange(len(position))[:, None], keep.shape)
    density = scale[:, None] * np.exp(-exponent)
    return _rows(grid, len(position), rows[keep], columns[keep], density[keep])


def _nodes(values: np.ndarray) -> np.ndarray:
    """Number of interpolated points of each row's quadrature, corners included."""
    deviations = np.sqrt(np.maximum(values - _HAT, 0))
    return np.prod(2 * np.ceil(14 * np.maximum(deviations, 1)) + 1, axis=1) * 2 ** values.shape[1]


def _quadrature_rows(
    grid: Grid, position: np.ndarray, values: np.ndarray, vectors: np.ndarray
) -> tuple[sparse.csr_array, np.ndarray]:
    d = grid.dimension
    reduced = np.maximum(values - _HAT, 0.0)
    deviations = np.sqrt(reduced)
    axes = []
    for i in range(d):
        widest = float(deviations[:, i].max())
        # Half a cell or half a standard deviation between nodes.
        half = int(np.ceil(14 * max(widest, 1.0))) if widest > 0 else 0
        axes.append(np.linspace(-7.0, 7.0, 2 * half + 1) if half else np.zeros(1))
    z = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    weights = np.exp(-0.5 * np.sum(z**2, axis=1))
    weights /= weights.sum()
    points = position[:, None] + np.einsum("nij,nj,mj->nmi", vectors, deviations, z)
    last = np.array(grid.cells) - 1
    points = np.where(grid.periodic, points, np.clip(points, 0, last))
    table = np.broadcast_to(weights, points.shape[:2])
    block, excess = _interpolated(grid, points, table)
    taken = np.einsum("nij,nj,nij->ni", vectors, values - reduced, vectors)
    return block, excess - taken @ grid.spacing**2


def _interpolated(
    grid: Grid, points: np.ndarray, weights: np.ndarray
) -> tuple[sparse.csr_array, np.ndarray]:
    floor = np.floor(points).astype(int)
    fraction = points - floor
    rows = np.broadcast_to(np.arange(len(points))[:, None], weights.shape)
    block = sparse.csr_array((len(points), grid.size))
    for corner in itertools.product((0, 1), repeat=grid.dimension):
        share = np.prod(np.where(corner, fraction, 1 - fraction), axis=-1) * weights
        columns, inside = _flat(grid, floor + np.array(corner))
        keep = inside & (share > 0)
        block = block + _rows(grid, len(points), rows[keep], columns[keep], share[keep])
    spread = np.einsum("nm,nmi,i->n", weights, fraction * (1 - fraction), grid.spacing**2)
    return block, spread


def _rows(
    grid: Grid, number: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray
) -> sparse.csr_array:
    block = sparse.csr_array((values, (rows, columns)), shape=(number, grid.size))
    block.sum_duplicates()
    return block
