"""One density on the line, tabulated: normaliser, quadrature, distribution function and inverse."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced
from statsgd.laws.law import REFUSED, WARNED, IntractableError, UnresolvedWarning
from statsgd.precision import in_double_precision, over_points

#: Numbers of knots: the second where the first does not resolve the density.
LADDER = (8193, 65537)
_RESOLVED = 1e-6
_WELLS = 8
_LOOKED_AT = 32
_ZOOMED = 16  # points; times the wells looked at, one of the numbers of `precision.BATCHES`
_ZOOMS = 10
_RISE = 45.0


class Wells(eqx.Module):
    """Places about which a density is resolved at every distance, each with a width of its own."""

    centers: Float[Any, " k"]
    widths: Float[Any, " k"]
    shares: Float[Any, " k"]
    """One, or zero where there is no well."""

    def coordinate(self, s: Any) -> Any:
        """t = Σ asinh((s − c)/w)."""
        return jnp.sum(self.shares * jnp.arcsinh(self._from(s)), axis=-1)

    def slope(self, s: Any) -> Any:
        """dt/ds."""
        return jnp.sum(self.shares / (self.widths * jnp.sqrt(1 + self._from(s) ** 2)), axis=-1)

    def place(self, t: Any, guess: Any, low: Any, high: Any) -> Any:
        """s at t, by Newton's method from a guess between `low` and `high`."""
        if self.centers.shape == (1,):
            return self.centers[0] + self.widths[0] * jnp.sinh(t)
        for _ in range(6):
            guess = jnp.clip(guess - (self.coordinate(guess) - t) / self.slope(guess), low, high)
        return guess

    def _from(self, s: Any) -> Any:
        # A well that is none, at zero, must not overflow.
        return (s[..., None] - self.centers) / self.widths


class LineTable(eqx.Module):
    """A density of s on a grid that is uniform in t = Σ asinh((s − c)/w): fine in every well.

    Sums over the grid are Simpson's rule, which for smooth densities that decay at both ends is far
    more accurate than its order. Between knots the distribution function is the cubic with the
    density as its slope.
    """

    wells: Wells
    knots: Float[Any, " n"]
    """t, uniform."""
    points: Float[Any, " n"]
    """s at the knots."""
    density: Float[Any, " n"]
    """With respect to t; it integrates to one."""
    cumulative: Float[Any, " n"]
    log_normalizer: Float[Any, ""]
    error_estimate: Float[Any, ""]
    """Relative error of the normaliser, and error of probabilities, by quadrature: what the rule on
    every second knot changes, cell by cell. Means are then off by at most this times the range."""

    @property
    def center(self) -> Float[Any, ""]:
        """s in the first well."""
        return self.wells.centers[0]

    @property
    def weights(self) -> Float[Any, " n"]:
        """Quadrature weights at `points`; they sum to one."""
        return in_double_precision(_weights, self)

    def cdf(self, s: Float[Any, "..."]) -> Float[Any, "..."]:
        """Probability below s."""
        return _at_each(_distribution, s, self)

    def quantile(self, probability: Float[Any, "..."]) -> Float[Any, "..."]:
        """s below which the probability lies: the inverse of `cdf`."""
        return _at_each(_quantile, probability, self)


def nowhere() -> LineTable:
    """The table of a law that is improper: NaN."""
    nothing, number = np.full(LADDER[0], np.nan), np.float64(np.nan)
    wells = Wells(*[np.full(1, np.nan)] * 3)
    return LineTable(wells, nothing, nothing, nothing, nothing, number, number)


def resolved(
    tabulated: Callable[[int], Any], table: Callable[[Any], Any] = lambda found: found
) -> Any:
    """`tabulated(number)` with as many knots as it takes.

    `table` finds the table in what it returns. Warns with `UnresolvedWarning` where an error above
    10⁻³ is left. Traced, the first number of knots has to do.
    """
    for number in LADDER:
        found = tabulated(number)
        error = table(found).error_estimate
        if is_traced(error) or not error > _RESOLVED:
            return found
    if error > WARNED:
        warnings.warn(
            f"the density is not resolved: its normaliser and probabilities are off by about "
            f"{float(error):.2g} on {number} knots",
            UnresolvedWarning,
            stacklevel=4,
        )
    return found


def require_resolved(table: LineTable) -> LineTable:
    """`table`; `IntractableError` where its errors are above a tenth."""
    if not is_traced(table) and table.error_estimate > REFUSED:
        raise IntractableError(
            f"quadrature does not resolve the density: normaliser and probabilities are off by "
            f"{float(table.error_estimate):.2g} on {len(table.knots)} knots"
        )
    return table


def tabulate(
    log_mass: Callable[[Float[Any, " n"]], Float[Any, " n"]],
    wells: Wells,
    low: Any,
    high: Any,
    number: int = LADDER[0],
) -> LineTable:
    """The table of exp(log_mass) from `low` to `high` on `number` knots.

    In JAX where something is traced. Else `log_mass` takes a NumPy array and gives one, and what is
    compiled here serves every density.
    """
    points, knots = in_double_precision(_grid, wells, low, high, number)
    return in_double_precision(_tabled, wells, points, knots, log_mass(points))


def _tabled(wells: Wells, points: Any, knots: Any, log_masses: Any) -> LineTable:
    number = len(knots)
    step = (knots[-1] - knots[0]) / (number - 1)
    log_density = log_masses - jnp.log(wells.slope(points))
    top = jnp.max(log_density)
    density = jnp.exp(log_density - top)
    total = jnp.sum(density * jnp.asarray(_simpson(number), density.dtype)) * step
    density = density / total
    masses = cell_masses(density, step)
    cumulative = jnp.concatenate([jnp.zeros(1, masses.dtype), jnp.cumsum(masses)])
    # Simpson's rules with step h and 2h differ by h/3 of the fourth difference of f. The four
    # places at which the wide cells may start are averaged, so that no kink hides between knots.
    error = step / 12 * jnp.sum(jnp.abs(jnp.diff(density, 4)))
    return LineTable(
        wells, knots, points, density, cumulative / cumulative[-1], top + jnp.log(total), error
    )


def in_turns(
    function: Callable[[Any], Float[Any, ""]], points: Float[Any, "n ..."], size: int
) -> Float[Any, " n"]:
    """`function` at each of `points`, `size` of them at a time, in JAX.

    Filled up to whole turns: a last one of its own would be a second copy of the function to
    compile.
    """
    filled = jnp.pad(points, [(0, -len(points) % size), *[(0, 0)] * (points.ndim - 1)], mode="edge")
    return jax.lax.map(function, filled, batch_size=size)[: len(points)]


def cell_masses(density: Float[Any, " n"], step: Any) -> Float[Any, " m"]:
    """∫ over the cells between knots, by the cubics through four neighbours."""
    # h (−f₋ + 13 f₀ + 13 f₁ − f₂)/24 over the middle cell, h (9 f₀ + 19 f₁ − 5 f₂ + f₃)/24 over one
    # at an end.
    f = density
    inner = 13 * (f[1:-2] + f[2:-1]) - f[:-3] - f[3:]
    first, last = (
        9 * side[:1] + 19 * side[1:2] - 5 * side[2:3] + side[3:4] for side in (f, f[::-1])
    )
    return jnp.clip(step * jnp.concatenate([first, inner, last]) / 24, 0, None)


def one_well(center: Any, width: Any) -> Wells:
    """A single place to resolve: the grid is s = center + width sinh t."""
    center, width = (jnp.asarray(value, float)[None] for value in (center, width))
    return Wells(center, width, jnp.ones_like(center))


def find_wells(
    log_density: Callable[[Float[Any, " n"]], Float[Any, " n"]],
    center: Any,
    width: Any,
    low: Any,
    high: Any,
) -> Wells:
    """The highest maxima of a log density, at most eight, and how far off it falls by one.

    They are looked for on the grid of one well at `center`. Maxima less than one apart in height,
    with no dip of one between them, count as one. In JAX where something is traced, as `tabulate`.
    """
    grid = in_double_precision(_about, center, width, low, high)
    inside, exists = in_double_precision(_peaks, grid, log_density(grid))

    def zoom(inside: Any, _: Any = None) -> tuple[Any, None]:
        values = log_density(inside.ravel()).reshape(inside.shape)
        return in_double_precision(_zoomed, inside, values), None

    if is_traced(inside):
        inside, _ = jax.lax.scan(zoom, inside, length=_ZOOMS)
    else:
        for _ in range(_ZOOMS):
            inside, _ = zoom(inside)
    centers = (inside[0] + inside[-1]) / 2
    # Narrow wells show their height only now.
    centers, exists, top, widths, around = in_double_precision(
        _highest, centers, exists, log_density(centers), low, high
    )
    # Both sides at once: every call is one more copy of a traced density to compile.
    heights = log_density(around.ravel()).reshape(around.shape)
    return in_double_precision(_measured, centers, exists, top, widths, heights)


def _about(center: Any, width: Any, low: Any, high: Any) -> Any:
    return _grid(one_well(center, width), low, high, LADDER[0])[0]


def _peaks(grid: Any, heights: Any) -> tuple[Any, Any]:
    """Points between the neighbours of the highest maxima, and which of these exist."""
    # A grid that is not traced beside heights that are: NumPy takes no traced index.
    grid, heights = jnp.asarray(grid), jnp.nan_to_num(heights, nan=-jnp.inf, posinf=-jnp.inf)
    padded = jnp.pad(heights, 1, constant_values=-jnp.inf)
    peak = (heights >= padded[:-2]) & (heights > padded[2:])

    def take(left: Any, _: Any) -> tuple[Any, tuple[Any, Any]]:
        best = jnp.argmax(jnp.where(left, heights, -jnp.inf))
        dips = jnp.cumsum(heights < heights[best] - 1)
        return left & (dips != dips[best]), (best, left[best])

    _, (best, exists) = jax.lax.scan(take, peak, length=_LOOKED_AT)
    ends = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, len(grid) - 1)]
    return jnp.linspace(*ends, _ZOOMED), exists


def _zoomed(inside: Any, values: Any) -> Any:
    """Points between the neighbours of the highest of those `inside`, well by well."""
    inside, there = jnp.asarray(inside), jnp.nanargmax(values, axis=0)
    wells = jnp.arange(_LOOKED_AT)
    below, above = (inside[jnp.clip(there + by, 0, _ZOOMED - 1), wells] for by in (-1, 1))
    return jnp.linspace(below, above, _ZOOMED)


def _highest(centers: Any, exists: Any, heights: Any, low: Any, high: Any) -> tuple[Any, ...]:
    """The highest wells, their heights, widths to try, and the points these reach."""
    low, high = jnp.asarray(low, float), jnp.asarray(high, float)
    reached = jnp.where(exists, heights, -jnp.inf)
    top, chosen = jax.lax.top_k(jnp.nan_to_num(reached, nan=-jnp.inf), _WELLS)
    centers, exists = centers[chosen], (top > top[0] - _RISE).at[0].set(True)
    # Tails that fall as a low power reach out to e³⁰⁰ widths.
    widths = (high - low) * 2.0 ** -jnp.arange(500)
    sides = jnp.array([-1.0, 1.0])[:, None, None]
    around = jnp.clip(centers + sides * widths[:, None], low, high)
    return centers, exists, top, widths, around


def _measured(centers: Any, exists: Any, top: Any, widths: Any, heights: Any) -> Wells:
    """Wells with the least width at which one side is one below the top."""
    narrow = jnp.cumprod((jnp.max(top - heights, axis=0) <= 1)[::-1], axis=0)
    found = widths[jnp.clip(len(widths) - jnp.sum(narrow, axis=0), 0, len(widths) - 1)]
    safe = jnp.where(
        exists, jnp.stack([centers, found]), jnp.stack([centers[0], found[0]])[:, None]
    )
    wells = Wells(safe[0], safe[1], exists.astype(safe.dtype))
    return jax.lax.stop_gradient(wells)


def _grid(wells: Wells, low: Any, high: Any, number: int) -> tuple[Any, Any]:
    """Points from `low` to `high` whose coordinate is uniform, and the coordinate."""
    low, high = jnp.asarray(low, float), jnp.asarray(high, float)
    first, last = wells.coordinate(low), wells.coordinate(high)
    knots = jnp.linspace(first, last, number)
    if wells.centers.shape == (1,):
        return wells.place(knots, knots, low, high), knots
    # Uniform about each well, so that between neighbours no term of the sum rises by much.
    ends = [jnp.arcsinh((end - wells.centers) / wells.widths) for end in (low, high)]
    turns = wells.centers + wells.widths * jnp.sinh(jnp.linspace(ends[0], ends[1], 2049))
    known = jnp.sort(jnp.clip(turns.ravel(), low, high))
    at = wells.coordinate(known)
    cell = jnp.clip(jnp.searchsorted(at, knots), 1, len(known) - 1)
    guess = jnp.interp(knots, at, known)
    points = wells.place(knots, guess, known[cell - 1], known[cell])
    return points.at[0].set(low).at[-1].set(high), knots


def _simpson(number: int) -> Float[np.ndarray, " n"]:
    weights = np.where(np.arange(number) % 2 == 1, 4.0, 2.0) / 3
    weights[[0, -1]] = 1 / 3
    return weights


def _step(table: LineTable) -> Any:
    # Over all cells: the difference of two knots has few digits in single precision.
    return (table.knots[-1] - table.knots[0]) / (len(table.knots) - 1)


def _weights(table: LineTable) -> Any:
    weights = table.density * jnp.asarray(_simpson(len(table.knots)), table.density.dtype)
    return weights / jnp.sum(weights)


def _at_each(function: Callable[..., Any], numbers: Any, table: LineTable) -> Any:
    """`function` at each of `numbers` of any shape, by one of the few programs of `over_points`."""
    array = numbers if is_traced(numbers) else np.asarray(numbers, dtype=np.float64)
    return over_points(function, array[..., None], table)[..., 0]


def _typed(table: LineTable, like: Any) -> LineTable:
    # A traced number cannot index NumPy arrays.
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, like.dtype), table)


def _distribution(s: Any, table: LineTable) -> Any:
    table = _typed(table, s)
    return _cubic(table, table.wells.coordinate(s))[0]


def _quantile(probability: Any, table: LineTable) -> Any:
    table = _typed(table, probability)
    t = jnp.interp(probability, table.cumulative, table.knots)
    step = _step(table)
    for _ in range(3):
        value, slope = _cubic(table, t)
        move = jnp.where(slope > 1e-12, (value - probability) / jnp.maximum(slope, 1e-12), 0)
        t = t - jnp.clip(move, -step, step)
    start = table.knots[0]
    cell = jnp.clip(jnp.floor((t - start) / step).astype(int), 0, len(table.knots) - 2)
    low, high = table.points[cell], table.points[cell + 1]
    guess = low + (high - low) * ((t - start) / step - cell)
    return table.wells.place(t, jnp.clip(guess, low, high), low, high)


def _cubic(table: LineTable, t: Any) -> tuple[Any, Any]:
    """The distribution function and its slope at t."""
    start, step = table.knots[0], _step(table)
    place = jnp.clip((t - start) / step, 0, len(table.knots) - 1)
    cell = jnp.clip(jnp.floor(place).astype(int), 0, len(table.knots) - 2)
    u = place - cell
    below, above = table.cumulative[cell], table.cumulative[cell + 1]
    rise = above - below
    left, right = table.density[cell] * step, table.density[cell + 1] * step
    value = below + u * (left + u * (3 * rise - 2 * left - right + u * (left + right - 2 * rise)))
    slope = left + u * (2 * (3 * rise - 2 * left - right) + 3 * u * (left + right - 2 * rise))
    return jnp.clip(value, 0, 1), slope / step
