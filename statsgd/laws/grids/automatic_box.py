"""The box that holds a stationary law, found by solving coarsely in wider and wider boxes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.dynamics.noise import noise_covariance
from statsgd.dynamics.sgd import SGD
from statsgd.laws.grids.grid import Grid, at_points
from statsgd.laws.law import ImproperLawError
from statsgd.problems import Problem, hessian, minimise
from statsgd.problems.flat_loss import FlatLoss

type Solve = Callable[[Grid], Float[Any, "..."]]

_MAX_ROUNDS = 30
_LATTICE = {1: 1000, 2: 100, 3: 30}


def automatic_box(
    solve: Solve, lower: Float[Any, " d"], upper: Float[Any, " d"], cells: int
) -> tuple[Float[Any, " d"], Float[Any, " d"]]:
    """Lower and upper corner of a box without the outer 10⁻⁷ (d > 1: 10⁻⁵) of each tail.

    Starts from a box given; doubles its width, solves there with `solve` on `cells` an axis, and
    cuts the tails off, until the box stays. Wells further than half a width beyond the box are not
    found, nor those behind a barrier of more than some 15 temperatures. Raises
    `ImproperLawError` if mass keeps moving outwards.
    """
    first = upper - lower
    tail = 1e-7 if len(lower) == 1 else 1e-5
    for _ in range(_MAX_ROUNDS):
        width = upper - lower
        grid = Grid(lower - width / 2, upper + width / 2, cells)
        masses = solve(grid)
        if not np.all(np.isfinite(masses)):
            raise ImproperLawError(
                "no unique stationary law in the automatic box: the noise vanishes somewhere; pass "
                "a grid"
            )
        new_lower, new_upper = np.empty_like(lower), np.empty_like(upper)
        for axis in range(grid.dimension):
            others = tuple(i for i in range(grid.dimension) if i != axis)
            cumulative = np.cumsum(masses.sum(axis=others))
            kept = np.flatnonzero((cumulative > tail) & (cumulative[-1] - cumulative > tail))
            ends = (kept[0], kept[-1] + 1) if len(kept) else (np.argmax(cumulative > 0.5),) * 2
            edges, margin = grid.edges(axis), grid.spacing[axis]
            new_lower[axis] = max(edges[ends[0]] - margin, edges[0])
            new_upper[axis] = min(edges[ends[1] + 1] + margin, edges[-1])
        change = np.maximum(np.abs(new_lower - lower), np.abs(new_upper - upper))
        lower, upper = new_lower, new_upper
        if np.all(change < 0.1 * (upper - lower)):
            return lower, upper
        if np.any(upper - lower > 1e6 * first):
            break
    raise ImproperLawError(
        f"no box holds the law: mass keeps moving outwards, after {_MAX_ROUNDS} rounds to "
        f"[{lower}, {upper}]; the law may not be normalisable"
    )


def box_around_minima(problem: Problem, sgd: SGD) -> tuple[Float[Any, " d"], Float[Any, " d"]]:
    """A first box: eight standard deviations about the minimum, and the minima seen around it.

    The standard deviations are those of a quadratic with the curvature and noise of the minimum
    that `problem.initial_params` leads to. Other minima are looked for on a lattice about it.
    Warns (`ConvergenceWarning`) where no minimum is found.
    """
    decay = float(sgd.weight_decay)
    rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
    minimum = minimise(problem, weight_decay=decay)
    minimum.warn_unless_converged("box of the grid")
    params = minimum.params
    place = np.asarray(problem.flatten(params), dtype=np.float64)
    curvature = np.diagonal(np.asarray(hessian(problem, params))) + decay
    noise = np.diagonal(np.asarray(noise_covariance(problem, params, sgd.noise)))
    floor = max(1e-2 * float(np.max(np.abs(curvature))), 1e-12)
    radius = 8 * np.sqrt(rate * noise / (2 * np.maximum(curvature, floor)))
    radius = np.maximum(radius, 1e-3 * (1 + np.abs(place)))
    reach = 2 * radius + 3 * (1 + np.abs(place))
    lattice = Grid(place - reach, place + reach, _LATTICE[problem.dimension])
    others = lattice_minima(FlatLoss(problem, np.float64(decay)), lattice)
    found = np.concatenate([place[None], others])
    return np.min(found, axis=0) - radius, np.max(found, axis=0) + radius


def lattice_minima(loss: Callable[..., Any], grid: Grid) -> Float[Any, "k d"]:
    """Midpoints of inner cells where the loss is below that of all neighbours along the axes."""
    values = at_points(loss, (), "loss")(grid.points()).reshape(grid.cells)
    lowest = np.ones(grid.cells, dtype=bool)
    for axis in range(grid.dimension):
        moved = np.moveaxis(values, axis, 0)
        inner = np.zeros(moved.shape, dtype=bool)
        inner[1:-1] = (moved[1:-1] < moved[:-2]) & (moved[1:-1] < moved[2:])
        lowest &= np.moveaxis(inner, 0, axis)
    return grid.points()[lowest.ravel()]
