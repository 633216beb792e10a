"""Boxes cut into equal cells, and densities that are constant on each cell."""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from statsgd.arguments import count, finite_array
from statsgd.laws.law import UnresolvedWarning
from statsgd.precision import over_points


class GridWarning(UnresolvedWarning):
    """A numerical law may be wrong: the box is too small or its cells are too large."""


class Grid(eqx.Module):
    """The box Π [lower_i, upper_i] cut into Π cells_i equal cells; an axis may be a circle.

    A law on the grid is its `masses`: one probability a cell, an array of shape `cells`, which
    stands for the density masses/`cell_volume`, constant on each cell.

    **Arguments:** `lower`, `upper` numbers or `(d,)`, in units of params; `cells` an integer or one
    an axis; `periodic` a boolean or one an axis: whether `upper` is the same point as `lower`.

    Raises `ValueError` unless lower < upper and every axis has at least 2 cells.

    >>> grid = Grid(lower=[-1.0, 0.0], upper=[1.0, 2.0], cells=[4, 5])
    >>> grid.cells, round(float(grid.cell_volume), 4)
    ((4, 5), 0.2)
    """

    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)
    cells: tuple[int, ...] = eqx.field(static=True)
    periodic: tuple[bool, ...] = eqx.field(static=True)

    def __init__(self, lower: Any, upper: Any, cells: Any, periodic: Any = False):
        low = np.atleast_1d(np.asarray(finite_array("lower", lower), dtype=np.float64))
        high = np.atleast_1d(np.asarray(finite_array("upper", upper), dtype=np.float64))
        d = max(low.size, high.size, np.size(cells), np.size(periodic))
        for name, value in (
            ("lower", low),
            ("upper", high),
            ("cells", cells),
            ("periodic", periodic),
        ):
            if np.ndim(value) > 1 or np.size(value) not in (1, d):
                raise ValueError(
                    f"{name} must be one value or one for each of {d} axes, got {value!r}"
                )
        low, high = np.broadcast_to(low, d), np.broadcast_to(high, d)
        if not np.all(low < high):
            raise ValueError(f"lower must be below upper on every axis, got {low} and {high}")
        numbers = cells if np.ndim(cells) else [cells]
        numbers = list(numbers) * (d if len(numbers) == 1 else 1)
        self.lower, self.upper = tuple(low.tolist()), tuple(high.tolist())
        self.cells = tuple(count("cells", number, at_least=2) for number in numbers)
        self.periodic = tuple(np.broadcast_to(np.asarray(periodic, dtype=bool), d).tolist())

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.cells)

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.cells))

    @property
    def spacing(self) -> Float[Any, " d"]:
        """Edge lengths of a cell."""
        return (np.array(self.upper) - self.lower) / self.cells

    @property
    def cell_volume(self) -> float:
        """Volume of a cell."""
        return float(np.prod(self.spacing))

    def edges(self, axis: int = 0) -> Float[Any, " n_plus_1"]:
        """Ends of the cells along an axis."""
        return np.linspace(self.lower[axis], self.upper[axis], self.cells[axis] + 1)

    def centres(self, axis: int = 0) -> Float[Any, " n"]:
        """Midpoints of the cells along an axis."""
        edges = self.edges(axis)
        return (edges[1:] + edges[:-1]) / 2

    def points(self) -> Float[Any, "size d"]:
        """Midpoint of every cell, the last axis running fastest."""
        axes = [self.centres(axis) for axis in range(self.dimension)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, self.dimension)

    def axis(self, axis: int) -> "Grid":
        """The 1-D grid along one axis."""
        return Grid(self.lower[axis], self.upper[axis], self.cells[axis], self.periodic[axis])

    def coarsen(self) -> "Grid":
        """The grid with cells twice as long, on axes with an even number of at least 4."""
        halves = [n // 2 if n % 2 == 0 and n >= 4 else n for n in self.cells]
        return Grid(self.lower, self.upper, halves, self.periodic)

    def add_up(self, masses: Float[Any, "..."], coarse: "Grid") -> Float[Any, "..."]:
        """`masses` on the coarser grid `coarse`, whose cells are unions of cells of this one."""
        shape = list(
            itertools.chain.from_iterable(
                (n, fine // n) for n, fine in zip(coarse.cells, self.cells, strict=True)
            )
        )
        if np.prod(shape) != self.size or (coarse.lower, coarse.upper) != (self.lower, self.upper):
            raise ValueError(f"coarse must divide the cells {self.cells}, got {coarse.cells}")
        return np.reshape(masses, shape).sum(axis=tuple(range(1, 2 * self.dimension, 2)))

    def locate(self, params: Float[Any, "... d"]) -> Int[Any, "... d"]:
        """Index of the cell that holds each point; the nearest cell for points outside."""
        position = (np.asarray(params, dtype=np.float64) - self.lower) / self.spacing
        index = np.floor(position).astype(int)
        wrapped = np.mod(index, self.cells)
        return np.where(self.periodic, wrapped, np.clip(index, 0, np.array(self.cells) - 1))

    def histogram(self, draws: Float[Any, "n d"]) -> Float[Any, "..."]:
        """Fraction of `draws` in each cell; draws outside count for the nearest cell."""
        points = np.asarray(draws, dtype=np.float64).reshape(-1, self.dimension)
        flat = np.ravel_multi_index(tuple(self.locate(points).T), self.cells)
        return np.bincount(flat, minlength=self.size).reshape(self.cells) / len(points)

    def boundary_mass(self, masses: Float[Any, "..."], layer: float = 0.02) -> float:
        """Mass within a fraction `layer` of the width of an end of an axis that is no circle."""
        inside = np.asarray(masses)
        for axis, (n, periodic) in enumerate(zip(self.cells, self.periodic, strict=True)):
            skip = 0 if periodic else max(1, round(layer * n))
            inside = np.take(inside, range(skip, n - skip), axis=axis)
        return max(0.0, float(1 - inside.sum()))

    def interpolate(self, values: Any, params: Any) -> Any:
        """Multilinear interpolation of `values`, shape `cells`, at points `(..., d)`, in JAX.

        Values belong to the midpoints of cells. Constant over the outer half of a boundary cell
        and beyond. The integral over the box is the sum of `values` times `cell_volume`.
        """
        position = (jnp.asarray(params) - np.array(self.lower)) / self.spacing - 0.5
        floor = jnp.floor(position)
        weight = position - floor
        total: Any = 0.0
        for corner in itertools.product((0, 1), repeat=self.dimension):
            index, factor = [], 1.0
            for i, bit in enumerate(corner):
                cell = floor[..., i].astype(int) + bit
                n = self.cells[i]
                index.append(cell % n if self.periodic[i] else jnp.clip(cell, 0, n - 1))
                factor = factor * (weight[..., i] if bit else 1 - weight[..., i])
            total = total + factor * jnp.asarray(values)[tuple(index)]
        return total

    def inside(self, params: Any) -> Any:
        """Whether points `(..., d)` are in the box; the whole line is on a circle."""
        within = (params >= np.array(self.lower)) & (params <= np.array(self.upper))
        return (within | np.array(self.periodic)).all(axis=-1)

    def push_forward(
        self, masses: Float[Any, "..."], uniforms: Float[Any, " d"]
    ) -> Float[Any, " d"]:
        """The point that independent uniform numbers in [0, 1) map to: an exact draw, in JAX.

        Inverts the distribution function of the first axis, then that of each next axis given the
        cells of those before.
        """
        coordinates = []
        remaining = jnp.asarray(masses)
        chosen: tuple[Any, ...] = ()
        for axis in range(self.dimension):
            marginal = remaining.sum(axis=tuple(range(axis + 1, self.dimension)))
            cumulative = jnp.concatenate(
                [jnp.zeros((*marginal.shape[:-1], 1)), jnp.cumsum(marginal, axis=-1)], axis=-1
            )
            total = cumulative[..., -1:]
            cumulative = jnp.where(total > 0, cumulative / jnp.where(total > 0, total, 1.0), 0.0)
            row = cumulative[chosen]
            u = uniforms[axis]
            cell = jnp.clip(jnp.searchsorted(row, u, side="right") - 1, 0, self.cells[axis] - 1)
            width = row[cell + 1] - row[cell]
            offset = jnp.clip((u - row[cell]) / jnp.where(width > 0, width, 1.0), 0.0, 1.0)
            coordinates.append(self.lower[axis] + (cell + offset) * self.spacing[axis])
            chosen = (*chosen, cell)
        return jnp.stack(coordinates)


type PointFunction = Callable[[Any], Any]


def at_points(function: Any, shape: tuple[int, ...], name: str) -> PointFunction:
    """A constant, or a JAX or NumPy function of one `(d,)` point, for many points in float64.

    A function that JAX cannot trace is called point by point. The result raises `ValueError` for
    values of another size than `shape` and for values that are not finite.
    """

    def values_at(points: np.ndarray) -> np.ndarray:
        if not callable(function):
            values = np.broadcast_to(function, (len(points), *np.shape(function)))
        else:
            try:
                values = over_points(function, points)
            except jax.errors.JAXTypeError:
                values = np.stack([np.asarray(function(point)) for point in points])
        if values.size != len(points) * int(np.prod(shape)):
            raise ValueError(f"{name} must have shape {shape} at a point, got {values.shape[1:]}")
        values = np.asarray(values, dtype=np.float64).reshape(len(points), *shape)
        bad = ~np.all(np.isfinite(values.reshape(len(points), -1)), axis=1)
        if np.any(bad):
            raise ValueError(
                f"{name} must be finite in the box, got NaN or infinity at {points[bad][0]}"
            )
        return values

    return values_at


def total_variation(masses: Float[Any, "..."], other: Float[Any, "..."]) -> float:
    """½ Σ |p_i − q_i| between two laws on one grid: 0 if they agree, 1 if they are disjoint.

    >>> total_variation(np.array([0.5, 0.5]), np.array([0.75, 0.25]))
    0.25
    """
    p, q = np.asarray(masses, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"masses must lie on one grid, got shapes {p.shape} and {q.shape}")
    return float(0.5 * np.sum(np.abs(p - q)))
