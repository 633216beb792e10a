"""Potential laws that quadrature knows completely when they have one parameter."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy.integrate import cumulative_simpson

from statsgd.arguments import finite_array, is_traced, one_of
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import ImproperLawError

type Potential = Callable[[Float[Any, " n"]], Float[Any, " n"]]

_POINTS = 8191
_RISE = 45.0  # the density left out beyond the support is e⁻⁴⁵ of its maximum
_BATCHES = (1024, 8192)  # sizes that evaluation is compiled for
_REACH = 300.0  # largest asinh|x| looked at, so that powers of x up to the second stay finite
_FARTHEST_MODE = 40.0  # asinh of the largest |x| at which a mode is believed
_SIMPSON = np.where(np.arange(_POINTS) % 2 == 1, 4.0, 2.0)
_SIMPSON[[0, -1]] = 1.0


class Support(NamedTuple):
    """Where a density on the line lives; scalar arrays, so that laws can be stacked."""

    low: Float[Any, ""]
    high: Float[Any, ""]
    mode: Float[Any, ""]
    width: Float[Any, ""]
    """Distance over which the potential rises by about one from its minimum."""


class TabulatedDensity(NamedTuple):
    """A density on the line in float64, on a grid that is fine near the mode."""

    grid: Float[Any, " n"]
    weights: Float[Any, " n"]
    """Quadrature weights times density; they sum to one."""
    distribution: Float[Any, " n"]
    log_normalizer: float

    @classmethod
    def of(cls, potential: Potential, support: Support) -> "TabulatedDensity":
        """Tabulate exp(−U)/Z on `support` by Simpson's rule."""
        coordinate, grid, stretch = _graded(support)
        exponent = np.log(stretch) - potential(grid)
        peak = np.max(exponent)
        density = np.exp(exponent - peak)
        weights = density * _SIMPSON
        mass = cumulative_simpson(density, x=coordinate, initial=0.0)
        # Between far wells Simpson's rule may fall by rounding: a distribution must not.
        distribution = np.maximum.accumulate(mass) / mass[-1]
        log_normalizer = peak + np.log(np.sum(weights) * (coordinate[1] - coordinate[0]) / 3)
        return cls(grid, weights / np.sum(weights), distribution, float(log_normalizer))

    def cdf(self, x: Any) -> Float[Any, "..."]:
        """Probability below `x`."""
        return np.interp(x, self.grid, self.distribution)

    def quantile(self, probability: Any) -> Float[Any, "..."]:
        """The inverse of `cdf`."""
        return np.interp(probability, self.distribution, self.grid)

    def expectation(self, values: Float[Any, " n"]) -> float:
        """Mean of a function given by its `values` on the grid."""
        return float(np.sum(self.weights * values))


class TabulatedLaw(PotentialLaw):
    """A potential law with normaliser, distribution function and moments by quadrature if d = 1.

    A final class calls `_tabulate` at the end of its constructor. In several dimensions
    `log_density` is unnormalised, and the methods that need Z raise `ValueError`.
    """

    #: Whether log Z is known: it depends on the instance, not on the class.
    normalized: ClassVar[Any] = property(lambda self: self.log_z is not None)

    #: Fields that are computed from the others.
    derived: ClassVar[tuple[str, ...]] = ("support", "log_z")

    support: Support | None
    log_z: Float[Any, ""] | None

    def _tabulate(self, bounds: Any) -> tuple[Support | None, Any]:
        """Support and log Z where d = 1 and the law is proper; `None` where not known."""
        if self.dimension != 1 or (bounds is None and is_traced(self)):
            return None, None
        if is_traced(self, bounds):
            low, high = jnp.reshape(jnp.asarray(bounds), (2,))
            support = Support(low, high, (low + high) / 2, (high - low) / 2)
            return support, _traced_log_normalizer(self, support)
        try:
            support = find_support(self._on_line, bounds)
        except ImproperLawError:
            return None, None
        return support, np.asarray(TabulatedDensity.of(self._on_line, support).log_normalizer)

    def _on_line(self, x: Float[Any, " n"]) -> Float[Any, " n"]:
        return evaluate(self, x[:, None])

    def density_table(self) -> TabulatedDensity:
        """The density on a grid, for a law with one parameter."""
        self.require_proper()
        if self.support is None and self.dimension == 1:
            find_support(self._on_line)  # says why not
        if self.support is None:
            raise ValueError(
                f"{type(self).__name__} has a normaliser, distribution function and moments in "
                f"one dimension, got d = {self.dimension}: draw from it with statsgd.sample"
            )
        return TabulatedDensity.of(self._on_line, self.support)

    def log_normalizer(self) -> Float[Any, ""] | float:
        """log Z with Z = ∫exp(−U)dθ where it is known, else zero."""
        return 0.0 if self.log_z is None else self.log_z

    def log_density(self, params: Float[Any, "... d"]) -> Float[Any, "..."]:
        """−U(θ) − log Z, without log Z where `normalized` is False; leading axes are batch axes.

        Concrete values give a float64 result.
        """
        self.require_proper()
        if is_traced(params, self):
            value = self.potential
            for _ in range(params.ndim - 1):
                value = jax.vmap(value)
            return -value(params) - self.log_normalizer()
        points = np.asarray(params, dtype=np.float64)
        energy = evaluate(self, points.reshape(-1, self.dimension)).reshape(points.shape[:-1])
        return -energy - self.log_normalizer()

    def cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal distribution function of each coordinate; d = 1 only."""
        return self.density_table().cdf(np.asarray(params, dtype=np.float64))

    def quantile(self, probability: Any) -> Float[Any, "..."]:
        """The θ below which the law has this probability; d = 1 only."""
        return self.density_table().quantile(probability)

    def expectation(self, function: Potential) -> float:
        """Mean of a vectorised NumPy function of the parameter; d = 1 only."""
        table = self.density_table()
        return table.expectation(np.asarray(function(table.grid)))

    def mean(self, variable: str = "params") -> Float[Any, " d"]:
        """Mean, shape (d,); d = 1 only."""
        one_of("variable", variable, ("params",))
        table = self.density_table()
        return np.array([table.expectation(table.grid)])

    def covariance(self, variable: str = "params") -> Float[Any, "d d"]:
        """Covariance, shape (d, d); d = 1 only. Infinite variances are not recognised."""
        one_of("variable", variable, ("params",))
        table = self.density_table()
        mean = table.expectation(table.grid)
        return np.array([[table.expectation((table.grid - mean) ** 2)]])

    def draw_variables(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> Mapping[str, Float[Any, "*shape d"]]:
        """Independent draws: through the model if `generative`, else by inversion where d = 1."""
        if self.generative:
            return super().draw_variables(key, shape)
        with jax.enable_x64(True):
            uniform = np.asarray(jax.random.uniform(key, shape, dtype=np.float64))
        return {"params": self.density_table().quantile(uniform)[..., None]}

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number 1"]] | None:
        """Exact draws where d = 1, so that every well gets its share of chains; else None."""
        if self.generative or self.dimension > 1:
            return None
        return self.draw_variables(key, (number,))


def evaluate(law: TabulatedLaw, points: Float[Any, "n d"]) -> Float[Any, " n"]:
    """U at each of `points`, in float64."""
    number = len(points)
    padded = next((size for size in _BATCHES if number <= size), number)
    batch = np.resize(points, (padded, points.shape[1])).astype(np.float64)
    # Without what is derived, a law looks the same to the compiler before and after it is built.
    bare = eqx.tree_at(
        lambda tree: [getattr(tree, name) for name in law.derived],
        law,
        [None] * len(law.derived),
        is_leaf=lambda leaf: leaf is None or isinstance(leaf, Support),
    )
    with jax.enable_x64(True):
        return np.asarray(_potentials(bare, batch))[:number]


@eqx.filter_jit
def _potentials(law: PotentialLaw, points: Float[Any, "n d"]) -> Float[Any, " n"]:
    return jax.vmap(law.potential)(points)


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
    widths = span * 2.0 ** -np.arange(60)
    rise = np.minimum(potential(mode + widths), potential(mode - widths)) - lowest
    narrow = np.flatnonzero(~(rise > 1.0))
    return float(widths[narrow[0]]) if len(narrow) else span


def _graded(support: Support) -> tuple[Any, Any, Any]:
    """Equidistant coordinate w, grid x = mode + width·sinh w, and dx/dw."""
    low, high, mode, width = support
    xp = jnp if is_traced(support) else np
    ends = [xp.arcsinh((end - mode) / width) for end in (low, high)]
    coordinate = xp.linspace(ends[0], ends[1], _POINTS)
    return coordinate, mode + width * xp.sinh(coordinate), width * xp.cosh(coordinate)


def _traced_log_normalizer(law: PotentialLaw, support: Support) -> Any:
    coordinate, grid, stretch = _graded(support)
    exponent = jnp.log(stretch) - jax.vmap(law.potential)(grid[:, None])
    step = (coordinate[-1] - coordinate[0]) / (_POINTS - 1)
    return jax.scipy.special.logsumexp(
        exponent, b=jnp.asarray(_SIMPSON, dtype=grid.dtype)
    ) + jnp.log(step / 3)
