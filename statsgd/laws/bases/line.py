"""One density on the line, tabulated: normaliser, quadrature, distribution function and inverse."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced
from statsgd.precision import in_double_precision, over_points

POINTS = 8193
_SIMPSON = np.where(np.arange(POINTS) % 2 == 1, 4.0, 2.0) / 3
_SIMPSON[[0, -1]] = 1 / 3


class LineTable(eqx.Module):
    """A density of s on the grid s = center + scale sinh t, uniform in t: fine near the mode.

    Sums over the grid are Simpson's rule, which for smooth densities that decay at both ends is far
    more accurate than its order. Between knots the distribution function is the cubic with the
    density as its slope.
    """

    center: Float[Any, ""]
    scale: Float[Any, ""]
    knots: Float[Any, " n"]
    """t, uniform."""
    density: Float[Any, " n"]
    """With respect to t; it integrates to one."""
    cumulative: Float[Any, " n"]
    log_normalizer: Float[Any, ""]

    @property
    def points(self) -> Float[Any, " n"]:
        """s at the knots."""
        return in_double_precision(_place, self, self.knots)

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


def tabulate(
    log_mass: Callable[[Float[Any, " n"]], Float[Any, " n"]],
    center: Any,
    scale: Any,
    low: Any,
    high: Any,
) -> LineTable:
    """The table of exp(log_mass) from `low` to `high`, in JAX; `scale` is a width at `center`."""
    center, scale = jnp.asarray(center, float), jnp.asarray(scale, float)
    ends = [jnp.arcsinh((end - center) / scale) for end in (low, high)]
    knots = jnp.linspace(ends[0], ends[1], POINTS)
    step = (ends[1] - ends[0]) / (POINTS - 1)
    log_density = log_mass(center + scale * jnp.sinh(knots)) + jnp.log(scale * jnp.cosh(knots))
    top = jnp.max(log_density)
    density = jnp.exp(log_density - top)
    total = jnp.sum(density * jnp.asarray(_SIMPSON, density.dtype)) * step
    density = density / total
    # The cubic through four neighbours: ∫ = h (−f₋ + 13 f₀ + 13 f₁ − f₂)/24 over the middle cell,
    # and h (9 f₀ + 19 f₁ − 5 f₂ + f₃)/24 over one at an end.
    f = density
    inner = 13 * (f[1:-2] + f[2:-1]) - f[:-3] - f[3:]
    first, last = (
        9 * side[:1] + 19 * side[1:2] - 5 * side[2:3] + side[3:4] for side in (f, f[::-1])
    )
    masses = jnp.clip(step * jnp.concatenate([first, inner, last]) / 24, 0, None)
    cumulative = jnp.concatenate([jnp.zeros(1, masses.dtype), jnp.cumsum(masses)])
    return LineTable(
        center, scale, knots, density, cumulative / cumulative[-1], top + jnp.log(total)
    )


def _step(table: LineTable) -> Any:
    # Over all cells: the difference of two knots has few digits in single precision.
    return (table.knots[-1] - table.knots[0]) / (len(table.knots) - 1)


def _place(table: LineTable, t: Any) -> Any:
    return table.center + table.scale * jnp.sinh(t)


def _weights(table: LineTable) -> Any:
    weights = table.density * jnp.asarray(_SIMPSON, table.density.dtype)
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
    return _cubic(table, jnp.arcsinh((s - table.center) / table.scale))[0]


def _quantile(probability: Any, table: LineTable) -> Any:
    table = _typed(table, probability)
    t = jnp.interp(probability, table.cumulative, table.knots)
    step = _step(table)
    for _ in range(3):
        value, slope = _cubic(table, t)
        move = jnp.where(slope > 1e-12, (value - probability) / jnp.maximum(slope, 1e-12), 0)
        t = t - jnp.clip(move, -step, step)
    return _place(table, t)


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
