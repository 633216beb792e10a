"""Potential laws that quadrature knows completely when they have one parameter."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import finite_array, is_traced
from statsgd.laws.bases.expectation import on_table
from statsgd.laws.bases.growth import radial_growth, slow_directions
from statsgd.laws.bases.line import (
    LineTable,
    find_wells,
    in_turns,
    require_resolved,
    resolved,
    tabulate,
)
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.law import ImproperLawError
from statsgd.precision import over_points

type Potential = Callable[[Float[Any, " n"]], Float[Any, " n"]]

_RISE = 45.0  # the density left out beyond the support is e⁻⁴⁵ of its maximum
_REACH = 300.0  # largest asinh|x| looked at, so that powers of x up to the second stay finite
_SEARCHED = 512
_AT_ONCE = 1024  # points of a table
_FARTHEST_MODE = 40.0  # asinh of the largest |x| at which a mode is believed


class Support(NamedTuple):
    """Where a density on the line lives; scalar arrays, so that laws can be stacked."""

    low: Float[Any, ""]
    high: Float[Any, ""]
    mode: Float[Any, ""]
    width: Float[Any, ""]
    """Distance over which the potential rises by about one from its minimum."""


class TabulatedLaw(PotentialLaw):
    """A potential law with normaliser, distribution function and moments by quadrature if d = 1.

    A final class has `bounds`, a box outside which the density is zero, or None, and calls
    `_tabulate` at the end of its constructor. In several dimensions `log_density` is unnormalised,
    and what needs Z raises `IntractableError`. With one parameter, infinite variances are not
    recognised.
    """

    #: Fields that are computed from the others.
    derived: ClassVar[tuple[str, ...]] = ("growth", "support", "table")

    bounds: Float[Any, "2 d"] | None
    growth: Float[Any, " directions"] | None
    """dU/dlog|θ| far out, where there are no bounds."""
    support: Support | None
    table: LineTable | None

    @property
    def exact_draws(self) -> bool:
        """Whether the law has one parameter: its distribution function is inverted."""
        return self.dimension == 1

    @property
    def normalized(self) -> bool:
        """Whether log Z is known."""
        return self.table is not None

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """See `LineTable.error_estimate`; NaN where there is no quadrature."""
        return np.asarray(np.nan) if self.table is None else self.table.error_estimate

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """The box, where there is one."""
        if self.bounds is None:
            return super().constraint
        return dist.constraints.independent(dist.constraints.interval(*self.bounds), 1)

    def within(self, params: Float[Any, " d"], energy: Float[Any, ""]) -> Float[Any, ""]:
        """`energy`, infinite outside `bounds`."""
        if self.bounds is None:
            return energy
        low, high = (jnp.asarray(end, dtype=energy.dtype) for end in self.bounds)
        return jnp.where(jnp.all((params >= low) & (params <= high)), energy, jnp.inf)

    def potentials(self, points: Float[Any, "... d"]) -> Float[Any, "..."]:
        """U at each of `points`, in float64."""
        return over_points(_potential_at, points, self._bare())

    def origin(self) -> Float[Any, " d"]:
        """The point about which growth is measured."""
        return np.zeros(self.dimension)

    def _tabulate(self) -> None:
        """Fill in growth, support and table where d = 1 and the law is proper; None if unknown."""
        self.growth = self.support = self.table = None
        traced = is_traced(self)
        if self.bounds is None and not traced:
            self.growth = radial_growth(self.potentials, self.origin())
        if self.dimension != 1:
            return
        if not traced:
            try:
                support = find_support(self._on_line, self.bounds)
            except ImproperLawError:
                return
        elif self.bounds is not None:
            low, high = self.bounds[0, 0], self.bounds[1, 0]
            support = Support(low, high, (low + high) / 2, (high - low) / 2)
        else:
            return
        self._fill(support)

    def _fill(self, support: Support) -> None:
        self.support, self.table = support, self._tabulated(support)

    def _tabulated(self, support: Support) -> LineTable:
        return resolved(partial(self._bare()._table, support))

    def _table(self, support: Support, number: int) -> LineTable:
        """exp(−U) on its support."""
        low, high, mode, width = support
        wells = find_wells(self._log_mass, mode, width, low, high)
        return tabulate(self._log_mass, wells, low, high, number)

    def _log_mass(self, x: Float[Any, " n"]) -> Float[Any, " n"]:
        if is_traced(self, x):
            return -in_turns(self.potential, x[:, None], min(len(x), _AT_ONCE))
        return -self._on_line(x)

    def _bare(self) -> Self:
        """The law without what is derived: the same to the compiler whenever it is asked."""
        parts = [getattr(self, name) for name in self.derived]
        return eqx.tree_at(
            lambda tree: [getattr(tree, name) for name in self.derived],
            self,
            [None] * len(parts),
            is_leaf=lambda leaf: leaf is None or any(leaf is part for part in parts),
        )

    def _on_line(self, x: Float[Any, " n"]) -> Float[Any, " n"]:
        # Searches ask for few points at a time: all run the program for this number.
        filled = np.resize(x, max(len(x), _SEARCHED))
        return self.potentials(filled[:, None])[: len(x)]

    def _slow_directions(self) -> tuple[list[str], float]:
        """Directions in which U grows too slowly for exp(−U) to be integrable; least growth."""
        if is_traced(self) or self.bounds is not None:
            return [], np.inf
        growth = self.growth
        if growth is None:  # made where it was traced
            growth = radial_growth(self.potentials, self.origin())
        return slow_directions(growth, self.dimension), float(np.min(growth))

    def _line(self, what: str) -> LineTable:
        if self.table is not None:
            return require_resolved(self.table)
        if self.dimension != 1 or is_traced(self):
            self._cannot_say(what)
        # Not tabulated when it was made, or for the reason that this raises.
        support = find_support(self._on_line, self.bounds)
        return require_resolved(self._tabulated(support))

    def _log_normalizer(self) -> Any:
        return 0.0 if self.table is None else require_resolved(self.table).log_normalizer

    def _quadrature(self) -> tuple[Float[Any, "n d"], Float[Any, " n"]] | None:
        if self.dimension != 1:
            return None
        table = self._line("quadrature")
        return table.points[:, None], table.weights

    def _averaged(self, values: Columns) -> Expected:
        if self.dimension != 1:
            self._cannot_say("expectations")
        table = self._line("expectations")
        off = self.error_estimate if self.table is not None else table.error_estimate
        return on_table(table, values, off)

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return self._line("distribution function").cdf(params)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        return self._line("quantiles").quantile(probability)[..., None]

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Float[Any, "number d"]]:
        with jax.enable_x64(True):
            uniform = np.asarray(jax.random.uniform(key, (number,), dtype=np.float64))
        return {"params": self._line("exact sampler").quantile(uniform)[:, None]}

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number d"]] | None:
        """Exact draws where d = 1, so that every well gets its share of chains; else None."""
        return self.draw_variables(key, (number,)) if self.dimension == 1 else None


def _potential_at(params: Float[Any, " d"], law: PotentialLaw) -> Float[Any, ""]:
    return law.potential(params)


def check_bounds(bounds: Any, dimension: int) -> Any:
    """`bounds` as a (2, d) array of lower and upper ends, or None."""
    if bounds is None or is_traced(bounds):
        return bounds
    ends = np.asarray(finite_array("bounds", bounds), dtype=np.float64)
    if ends.shape == (2,):
        ends = np.broadcast_to(ends[:, None], (2, dimension))
    if ends.shape != (2, dimension) or not np.all(ends[0] < ends[1]):
        raise ValueError(
            f"bounds must be (low, high) with low < high, of shape (2,) or (2, {dimension}), got "
            f"{bounds!r}"
        )
    return ends


def find_support(potential: Potential, bounds: Any = None) -> Support:
    """Where exp(−U) on the line is above e⁻⁴⁵ of its maximum, within `bounds` if given.

    Wells are looked for on a grid of relative spacing 0.1 about zero. Raises `ImproperLawError`
    if a tail does not integrate.
    """
    if bounds is None:
        angle = np.arange(-_REACH, _REACH + 0.01, 0.1)
        grid = np.sinh(angle)
    else:
        low, high = (float(np.reshape(end, ())) for end in bounds)
        grid = np.linspace(low, high, 6001)
        angle = np.zeros_like(grid)
    with np.errstate(all="ignore"):
        energy = potential(grid)
    # Overflow, also of a difference of two powers, counts as no mass: the tails are judged below.
    energy = np.where(np.isnan(energy), np.inf, energy)
    grid, energy, angle = _with_minima(potential, grid, energy, angle)
    # In the coordinate asinh x a tail integrates iff its potential still rises.
    rising = energy - np.logaddexp(angle, -angle)
    if abs(angle[np.argmin(rising)]) > _FARTHEST_MODE:
        raise ImproperLawError("exp(-U) is not normalisable: U is unbounded below")
    inside = np.flatnonzero(rising < np.min(rising) + _RISE)
    if bounds is None:
        for edge, step in ((inside[0], 1), (inside[-1], -1)):
            if edge in (0, len(grid) - 1):
                side = "negative" if edge == 0 else "positive"
                slope = (energy[edge] - energy[edge + 200 * step]) / 20.0
                raise ImproperLawError(
                    f"exp(-U) is not normalisable on the {side} side: dU/dlog|x| must exceed "
                    f"d = 1 (by 0.15 for quadrature), got {slope:.4g}"
                )
    if bounds is None:
        low, high = _trimmed(potential, grid, energy, inside)
    else:
        low = float(grid[max(inside[0] - 1, 0)])
        high = float(grid[min(inside[-1] + 1, len(grid) - 1)])
    lowest = int(np.argmin(energy))
    mode = float(grid[lowest])
    width = _width(potential, mode, float(energy[lowest]), high - low)
    return Support(*map(np.asarray, (low, high, mode, width)))


def _with_minima(potential: Potential, grid: Any, energy: Any, angle: Any) -> tuple[Any, Any, Any]:
    """The grid with every local minimum added, found by zooming in on all of them at once."""
    centre = energy[1:-1]
    wells = 1 + np.flatnonzero((centre <= energy[:-2]) & (centre < energy[2:]))
    low, high = grid[wells - 1], grid[wells + 1]
    for _ in range(8):
        zoom = np.linspace(low, high, 33)
        values = potential(zoom.ravel()).reshape(zoom.shape)
        best = np.clip(np.argmin(values, axis=0), 1, 31)
        columns = np.arange(len(wells))
        low, high = zoom[best - 1, columns], zoom[best + 1, columns]
    minima = (low + high) / 2
    order = np.argsort(np.concatenate([grid, minima]), kind="stable")
    joined = np.concatenate([grid, minima])[order]
    energies = np.concatenate([energy, potential(minima)])[order]
    return joined, energies, np.concatenate([angle, angle[wells]])[order]


def _trimmed(potential: Potential, grid: Any, energy: Any, inside: Any) -> tuple[float, float]:
    """The ends of the support between grid points, by searches on the rise of the potential."""
    limit = float(np.min(energy)) + _RISE
    ends = []
    for edge, step in ((inside[0], -1), (inside[-1], 1)):
        within, beyond = grid[edge], grid[edge + step]
        for _ in range(4):
            between = np.linspace(within, beyond, 64)
            above = np.flatnonzero(~(potential(between) < limit))
            first = max(above[0], 1) if len(above) else 63
            within, beyond = between[first - 1], between[first]
        ends.append(float(beyond))
    return ends[0], ends[1]


def _width(potential: Potential, mode: float, lowest: float, span: float) -> float:
    # Tails that fall as a low power reach out to e³⁰⁰ widths.
    widths = span * 2.0 ** -np.arange(500)
    rise = np.minimum(potential(mode + widths), potential(mode - widths)) - lowest
    narrow = np.flatnonzero(~(rise > 1.0))
    return float(widths[narrow[0]]) if len(narrow) else span
