"""A valley averaged over its fast directions: drift, diffusion and density along it."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Float

from statsgd.arguments import is_traced
from statsgd.laws.bases.line import LineTable, find_wells, in_turns, one_well, tabulate
from statsgd.laws.loss_noise.setting import READINGS
from statsgd.laws.valleys.coordinate import Constant, ValleyCoordinate
from statsgd.precision import in_double_precision, over_points

_GAUSS = np.polynomial.legendre.leggauss(6)
#: Cells that are halved where the rate has a kink, and how often.
_KINKS, _HALVINGS = 64, 26
#: Boole's rule, with its ends a little inside: a kink where two cells meet costs nothing.
_BOOLE = np.array([-1 + 2e-6, -0.5, 0, 0.5, 1 - 2e-6]), np.array([7, 32, 12, 32, 7]) / 45


class AveragedValley(eqx.Module):
    """L = L₀(x) + ½ Σ h_i(x) y_i² with diagonal diffusion, y averaged at fixed x.

    The fields are those of `ValleyLaw`, which says what they mean.
    """

    curvature: Callable[[Float[Any, ""]], Float[Any, "..."]]
    across_diffusion: Callable[[Float[Any, ""]], Float[Any, "..."]]
    along_diffusion: Callable[[Float[Any, ""]], Float[Any, ""]]
    floor: Callable[[Float[Any, ""]], Float[Any, ""]]
    coordinate: ValleyCoordinate
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    reading: str = eqx.field(static=True)
    second_order: bool = eqx.field(static=True)
    sums: Float[Any, " n"] | None = None
    """See `summed`; None where log p is known."""

    @property
    def transverse(self) -> int:
        """Number m of directions across the valley."""
        shape = jax.eval_shape(self.curvature, jnp.zeros(())).shape
        return int(np.prod(shape, dtype=int))

    @property
    def constant_diffusion(self) -> bool:
        """Whether both diffusions were given as numbers."""
        return isinstance(self.across_diffusion, Constant) and isinstance(
            self.along_diffusion, Constant
        )

    @property
    def stability_limit(self) -> Any:
        """s = 2(1+β)."""
        return 2 * (1 + self.momentum)

    def curvatures(self, x: Any) -> Any:
        """h, `(m,)`."""
        return jnp.atleast_1d(self.curvature(x))

    def curvature_slopes(self, x: Any) -> Any:
        """h', `(m,)`."""
        return jnp.atleast_1d(jax.jacfwd(self.curvature)(jnp.asarray(x, dtype=float)))

    def across(self, x: Any) -> Any:
        """D_i/(1−β), `(m,)`."""
        across = jnp.atleast_1d(self.across_diffusion(x)) / (1 - self.momentum)
        return jnp.broadcast_to(across, (self.transverse,))

    def along(self, x: Any) -> Any:
        """D_x/(1−β)."""
        return jnp.sum(self.along_diffusion(x)) / (1 - self.momentum)

    def softening(self, x: Any) -> Any:
        """1 − ηh/s."""
        return 1 - self.learning_rate * self.curvatures(x) / self.stability_limit

    def variance(self, x: Any) -> Any:
        """Var(y | x), `(m,)`."""
        return self.across(x) / (self.curvatures(x) * self.softening(x))

    def drift(self, x: Any) -> Any:
        """dx/dt, averaged over y."""
        slope = jax.grad(self.floor)(jnp.asarray(x, dtype=float))
        pressure = jnp.sum(self.curvature_slopes(x) * self.variance(x)) / 2
        return -slope - pressure

    def log_shape(self, x: Any) -> Any:
        """log p(x) up to a constant."""
        if self.integrates:
            return self.integral(self.coordinate.parameter(x)) - self.log_prefactor(x)
        soft = self.softening(x)
        logs = jnp.log(self.curvatures(x)) - jnp.log(jnp.where(soft > 0, soft, 0.0))
        return -(self.floor(x) + jnp.sum(self.across(x) * logs) / 2) / self.along(x)

    def log_along(self, x: Any) -> Any:
        """`log_shape` on the support, −∞ beyond."""
        return jnp.where(self.coordinate.holds(x), self.log_shape(x), -jnp.inf)

    @property
    def integrates(self) -> bool:
        """Whether log p has to be integrated: its integral is known for constant diffusion."""
        return self.second_order or not self.constant_diffusion

    def rate(self, x: Any) -> Any:
        """Drift over diffusion along the valley, the integrand of log p."""
        if self.second_order:
            diffusion, drift = self.second_order_terms(x)
            return drift / diffusion
        return self.drift(x) / self.along(x)

    def log_prefactor(self, x: Any) -> Any:
        """a log D_x, or the log of the second-order diffusion."""
        if self.second_order:
            return jnp.log(self.second_order_terms(x)[0])
        return READINGS[self.reading] * jnp.log(self.along(x))

    def second_order_terms(self, x: Any) -> tuple[Any, Any]:
        """Diffusion and drift along the valley to the next order in D_y (for η = 0, m = 1)."""
        x = jnp.asarray(x, dtype=float)
        across = self.across(x)[0]
        kappa, h = across / self.along(x), self.curvatures(x)[0]

        def steepness(u):
            return jnp.sum(self.curvature_slopes(u)) / jnp.sum(self.curvatures(u))

        q, slope = steepness(x), jax.grad(steepness)(x)
        floor = jax.grad(self.floor)(x)
        diffusion = across / kappa + across**2 * (1 - 2 / kappa) * q**2 / (4 * h)
        bend = (1 - 2 / kappa) * q * slope / 4 + q**3 / 8 - (q * slope - q**3) / (4 * kappa)
        drift = -floor - across * q / 2 + across**2 * bend / h + across * floor * q**2 / (4 * h)
        return diffusion, drift

    def log_joint(self, params: Any) -> Any:
        """log p(x) + log p(y | x) up to a constant, at (x, y)."""
        variance = self.variance(params[0])
        squares = params[1:] ** 2 / variance + jnp.log(2 * jnp.pi * variance)
        return self.log_along(params[0]) - jnp.sum(squares) / 2

    def anisotropy(self, x: Any) -> Any:
        """κ = D_i/D_x, `(m,)`."""
        return self.across(x) / self.along(x)

    def effective_loss(self, x: Any) -> Any:
        """(κ−1)[L₀ − D_y ln F], for equal diffusion across."""
        flatness = -0.5 * jnp.sum(jnp.log(self.curvatures(x)))
        potential = self.floor(x) - self.across(x)[0] * flatness
        return (self.anisotropy(x)[0] - 1) * potential

    def adiabaticity(self, x: Any) -> Any:
        """The largest κ D_y h'²/(4h³)."""
        h, slope = self.curvatures(x), self.curvature_slopes(x)
        return jnp.max(self.anisotropy(x) * self.across(x) * slope**2 / (4 * h**3))

    def with_sums(self, sums: Float[Any, " n"] | None) -> "AveragedValley":
        """The valley with the integral of its rate."""
        return eqx.tree_at(lambda tree: tree.sums, self, sums, is_leaf=lambda leaf: leaf is None)

    def summed(self, cells: int) -> tuple[Float[Any, " n"], Float[Any, " n"], Float[Any, " cells"]]:
        """∫ rate dv at the ends of equal cells, the errors there, and those inside of each cell.

        Summed away from the place where it is largest: from a tail it would lose all digits.
        """
        knots = jnp.linspace(-1, 1, cells + 1) * self.coordinate.reach
        start, end = knots[:-1], knots[1:]
        rises, inside = _compared(self, start, end)
        worst = jax.lax.top_k(jnp.nan_to_num(inside, nan=0.0), _KINKS)[1]
        followed, left = _followed(self, start[worst], end[worst])
        rises, changes = rises.at[worst].set(followed), inside.at[worst].set(left)
        cell, top = jnp.arange(cells), jnp.asarray(cells // 2)

        def outwards(parts: Any) -> tuple[Any, Any]:
            above = jnp.cumsum(jnp.where(cell >= top, parts, 0))
            below = jnp.cumsum(jnp.where(cell < top, parts, 0)[::-1])[::-1]
            return jnp.pad(above, (1, 0)), jnp.pad(below, (0, 1))

        for _ in range(3):
            above, below = outwards(rises)
            sums = above - below
            top = jnp.nanargmax(sums)
        above, below = outwards(changes)
        return sums, above + below, inside

    def integral(self, v: Any) -> Any:
        """∫ rate dv from where it is largest to v."""
        sums = jnp.asarray(self.sums)
        reach, cells = self.coordinate.reach, sums.shape[0] - 1
        inside = jnp.clip(v, -reach, reach)
        near = jnp.clip(jnp.round((inside / reach + 1) / 2 * cells).astype(int), 0, cells)
        knot = (2 * near / cells - 1) * reach
        return sums[near] + _integrated(self, knot, inside)

    def log_mass(self, v: Float[Any, " n"]) -> Float[Any, " n"]:
        """Log density of v up to a constant."""
        x, stretch = self.coordinate.place(v), self.coordinate.log_stretch(v)
        if not self.integrates:
            return jax.vmap(self.log_shape)(x) + stretch
        return self.integral(v) - jax.vmap(self.log_prefactor)(x) + stretch

    def log_masses(self, v: Float[Any, " n"]) -> Float[Any, " n"]:
        """`log_mass`, in float64 where nothing is traced."""
        return self.log_mass(v) if is_traced(self, v) else over_points(_log_mass, v[:, None], self)

    def table(self, number: int) -> LineTable:
        """The density of v on `number` knots. Its normaliser is that of exp(log_shape)."""
        reach = self.coordinate.reach
        wells = find_wells(self.log_masses, 0.0, reach, -reach, reach)
        return tabulate(self.log_masses, wells, -reach, reach, number)

    def limits(self, x: Float[Any, " n"]) -> Float[Any, "3"]:
        """max ηh/s over `x`, where it is, and the power with which p falls at the ends of a line.

        The power is −d log p/d log|x| over the last unit of log|x|, the lesser of the two ends.
        """
        h = jax.vmap(lambda place: jnp.max(self.curvatures(place)))(x)
        sharpest = jnp.argmax(h)
        excess = self.learning_rate * h[sharpest] / self.stability_limit
        tail = jnp.asarray(jnp.inf)
        if not self.coordinate.bounded:
            reach = self.coordinate.reach
            far = self.coordinate.place(jnp.array([-reach, reach, 1 - reach, reach - 1]))
            end, before = jnp.split(jax.vmap(self.log_shape)(far), 2)
            tail = jnp.min((before - end) / jnp.log(far[:2] / far[2:]))
        return jnp.stack([excess, x[sharpest], tail])


def _integrated(valley: AveragedValley, start: Any, end: Any, rule: Any = _GAUSS) -> Any:
    """∫ rate dv over stretches of a coordinate v, by the nodes and weights of a `rule`."""
    half = (end - start) / 2
    nodes, weights = (jnp.asarray(part, half.dtype) for part in rule)
    v = start[..., None] + half[..., None] * (1 + nodes)
    rates = jax.vmap(valley.rate)(valley.coordinate.place(v.ravel())).reshape(v.shape)
    return half * ((rates * jnp.exp(valley.coordinate.log_stretch(v))) @ weights)


def _compared(valley: AveragedValley, start: Any, end: Any) -> tuple[Any, Any]:
    """∫ rate dv by twelve nodes, and its error, from six and from five that reach to the ends.

    Beside the ends a kink lies between no Gauss nodes.
    """
    middle = (start + end) / 2
    value = _integrated(valley, start, middle) + _integrated(valley, middle, end)
    others = (_integrated(valley, start, end, rule) for rule in (_GAUSS, _BOOLE))
    # At a kink twelve nodes may be off by as much as six.
    return value, 2 * functools.reduce(jnp.maximum, [jnp.abs(value - other) for other in others])


def _followed(valley: AveragedValley, start: Any, end: Any) -> tuple[Any, Any]:
    """`_compared` over cells that hold one kink each, which is closed in on by halving."""

    def halve(carry: Any, _: Any) -> tuple[Any, None]:
        start, end, total, error = carry
        middle = (start + end) / 2
        (left, left_error), (right, right_error) = (
            _compared(valley, *side) for side in ((start, middle), (middle, end))
        )
        later = right_error > left_error
        total = total + jnp.where(later, left, right)
        error = error + jnp.where(later, left_error, right_error)
        return (jnp.where(later, middle, start), jnp.where(later, end, middle), total, error), None

    nothing = jnp.zeros_like(start)
    carry, _ = jax.lax.scan(halve, (start, end, nothing, nothing), length=_HALVINGS)
    start, end, total, error = carry
    rest, change = _compared(valley, start, end)
    return total + rest, error + change


def tabulated(
    valley: AveragedValley, number: int
) -> tuple[LineTable, Float[Any, "3"], Float[Any, " n"] | None]:
    """The table along the valley on `number` knots, its `limits`, and the `sums` where needed."""
    if not valley.integrates:
        table = valley.table(number)
        limits, beyond = in_double_precision(_at_the_ends, valley, table)
        return _with_error(table, beyond), limits, None
    sums, errors, inside = in_double_precision(AveragedValley.summed, valley, number - 1)
    valley = valley.with_sums(sums)
    table = valley.table(number)
    logs = valley.log_masses(table.points)
    limits, beyond = in_double_precision(_at_the_ends, valley, table)
    error = in_double_precision(_from_sums, valley, table, logs, errors, inside)
    return _with_error(table, error + beyond), limits, sums


def _log_mass(v: Float[Any, " 1"], valley: AveragedValley) -> Float[Any, ""]:
    return valley.log_mass(v)[0]


def _at_the_ends(valley: AveragedValley, table: LineTable) -> tuple[Any, Any]:
    limits = valley.limits(valley.coordinate.place(table.points))
    return limits, _beyond(valley, table, limits)


def _from_sums(
    valley: AveragedValley, table: LineTable, logs: Any, errors: Any, inside: Any
) -> Float[Any, ""]:
    """What errors of the sums, at the ends of cells and `inside` of them, do to the mass."""
    sums, number = jnp.asarray(valley.sums), len(table.knots)
    even = jnp.linspace(-1, 1, number) * valley.coordinate.reach
    cell = jnp.clip(jnp.searchsorted(even, table.points) - 1, 0, number - 2)
    off = jnp.interp(table.points, even, errors) + inside[cell]
    # What the density is off by where it is; and at the tops of wells where it might be, since an
    # error of the rate may lose a well.
    step = (table.knots[-1] - table.knots[0]) / (number - 1)
    logs = logs - jnp.log(table.wells.slope(table.points) / step)
    share = jnp.exp(logs - table.log_normalizer)
    risen = jnp.exp(logs - table.log_normalizer + off) - share
    top = jnp.pad((sums[1:-1] > sums[:-2]) & (sums[1:-1] >= sums[2:]), 1)
    at_top = top[cell] | top[cell + 1]
    return jnp.sum(jnp.where(at_top, risen, jnp.where(share > 0, share * off, 0)))


def _with_error(table: LineTable, more: Float[Any, ""]) -> LineTable:
    """`table`, which is off by `more` than it says."""
    total = table.error_estimate + more
    return eqx.tree_at(lambda tree: tree.error_estimate, table, total)


def _beyond(valley: AveragedValley, table: LineTable, limits: Float[Any, "3"]) -> Float[Any, ""]:
    """The mass beyond the ends of a line, where p falls as a power of |x|, as e^(−v) of v."""
    if valley.coordinate.bounded:
        return jnp.zeros(())
    ends = jnp.array([0, -1])
    density = table.density[ends] * table.wells.slope(table.points[ends])
    proper = limits[2] > 1  # else there is no law, which `require_proper` says
    return jnp.where(proper, jnp.sum(density) / jnp.where(proper, limits[2] - 1, 1.0), 0.0)


def across_table(widths: Float[Any, " n"], masses: Float[Any, " n"], number: int) -> LineTable:
    """The mixture of centred normal laws of deviations `widths` and weights `masses`, on knots."""

    def log_density(y: Float[Any, ""]) -> Float[Any, ""]:
        return logsumexp(-((y / widths) ** 2) / 2 - jnp.log(widths), b=masses)

    def log_mass(y: Float[Any, " k"]) -> Float[Any, " k"]:
        return in_turns(log_density, y, 64)

    reach = 12 * jnp.max(jnp.where(masses > 1e-16, widths, 0))
    width = 1 / jnp.sum(masses / widths)
    return tabulate(log_mass, one_well(jnp.zeros(()), width), -reach, reach, number)


def along_valley(function: Callable, valley: AveragedValley, x: Any) -> Any:
    """A method of `AveragedValley` at every place x."""
    places = jnp.asarray(x) if is_traced(x, valley) else np.asarray(x, dtype=np.float64)
    return over_points(_at_place, places[..., None], function, valley)


def _at_place(place: Float[Any, " 1"], function: Callable, valley: AveragedValley) -> Any:
    return function(valley, place[0])
