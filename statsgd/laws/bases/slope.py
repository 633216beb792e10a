"""Laws of one number, the slope of a network, tabulated once and read exactly."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline

from statsgd.arguments import is_traced, real
from statsgd.laws.law import ImproperLawError, Law

_POINTS = 4097


class Table(NamedTuple):
    """A density on a grid t → s = center + scale sinh t, uniform in t."""

    center: Any
    scale: Any
    grid: Any
    """t, shape (n,)."""
    density: Any
    """With respect to t, normalised, shape (n,)."""
    cumulative: Any
    """Shape (n,)."""
    log_normalizer: Any


class SlopeLaw(Law):
    """A law of one number f; `params` has shape `(1,)` and holds f.

    A final class states log p up to a constant as a function of a coordinate s of f in which the
    law has exponential tails or shorter ones (ln f, say), and fills `table` when it is built. The
    table gives the normaliser, moments, distribution function and quantiles to about nine digits:
    its rule is spectrally accurate for smooth laws that decay at both ends.
    """

    table: Table

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    @abc.abstractmethod
    def slope_at(self, coordinate: Any) -> Any:
        """f at a coordinate s, increasing."""

    @abc.abstractmethod
    def coordinate_of(self, slope: Any) -> Any:
        """s at f; NaN outside the support."""

    @abc.abstractmethod
    def log_jacobian(self, coordinate: Any) -> Any:
        """ln df/ds."""

    @abc.abstractmethod
    def log_mass(self, coordinate: Any) -> Any:
        """Log density with respect to s, up to a constant."""

    def exact_distribution(self) -> dist.Distribution | None:
        """The law as a NumPyro distribution of f where it has a name."""
        return None

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Site `params` `(1,)`: a named distribution, or the quantile of a uniform `u`."""
        self.require_proper()
        named = self.exact_distribution()
        if obs is not None:
            with numpyro.plate("replica", obs.shape[0]):
                if named is not None:
                    numpyro.sample("params", named.expand([1]).to_event(1), obs=obs)
                else:
                    flat = dist.ImproperUniform(dist.constraints.real_vector, (), (1,))
                    params = numpyro.sample("params", flat, obs=obs)
                    numpyro.factor("stationary_law", self.log_density(params))
            return
        if named is not None:
            params = numpyro.sample("params", named.expand([1]).to_event(1))
        else:
            u = numpyro.sample("u", dist.Uniform(0, 1))
            table = self.table
            t = jnp.interp(u, jnp.asarray(table.cumulative), jnp.asarray(table.grid))
            coordinate = table.center + table.scale * jnp.sinh(t)
            params = numpyro.deterministic("params", jnp.asarray(self.slope_at(coordinate))[None])
        self.push_forward(params[0])

    def push_forward(self, slope: Float[Any, ""]) -> None:
        """Further deterministic sites that follow from f; none by default."""

    def log_density(self, params: Any) -> Float[Any, "..."]:
        """Log density of f = `params[..., 0]`, −∞ outside the support."""
        self.require_proper()
        traced = is_traced(self, params)
        xp = jnp if traced else np
        slope = (params if traced else np.asarray(params, dtype=np.float64))[..., 0]
        inside = self.supports(slope)
        anchor = self.slope_at(self.table.center)
        s = self.coordinate_of(xp.where(inside, slope, anchor))
        value = self.log_mass(s) - self.log_jacobian(s) - self.table.log_normalizer
        return xp.where(inside, value, -xp.inf)

    @abc.abstractmethod
    def supports(self, slope: Any) -> Any:
        """Whether f lies in the support."""

    def expectation(self, function: Callable[[Any], Any]) -> Any:
        """E function(f), `function` a NumPy function of an array of slopes."""
        self.require_proper()
        table = self.table
        slope = self.slope_at(table.center + table.scale * _sinh(table.grid))
        step = table.grid[1] - table.grid[0]
        return (table.density * function(slope)).sum() * step

    def mean(self) -> Float[Any, " 1"]:
        """E f."""
        return self.expectation(lambda f: f)[None]

    def covariance(self) -> Float[Any, "1 1"]:
        """Var f."""
        center = self.mean()[0]
        return self.expectation(lambda f: (f - center) ** 2)[None, None]

    def cdf(self, params: Any) -> Float[Any, "..."]:
        """Distribution function of f, elementwise."""
        self.require_proper()
        slope = np.asarray(params, dtype=np.float64)
        low, high = (self.slope_at(self._coordinate(t)) for t in self.table.grid[[0, -1]])
        inside = (slope > low) & (slope < high)
        s = self.coordinate_of(np.where(inside, slope, self.slope_at(self.table.center)))
        t = np.arcsinh((s - self.table.center) / self.table.scale)
        value = np.clip(self._distribution_function()(t), 0, 1)
        return np.where(inside, value, (slope >= high).astype(np.float64))

    def quantile(self, probability: Any) -> Float[Any, "..."]:
        """The slope below which the probability lies, elementwise; probabilities in (0, 1)."""
        self.require_proper()
        q = real("probability", probability, allowed="in (0, 1)", valid=lambda x: (x > 0) & (x < 1))
        table, function = self.table, self._distribution_function()
        t = np.interp(q, table.cumulative, table.grid)
        step = table.grid[1] - table.grid[0]
        for _ in range(3):
            slope = function(t, 1)
            move = np.where(slope > 1e-12, (function(t) - q) / np.maximum(slope, 1e-12), 0)
            t = t - np.clip(move, -step, step)
        return self.slope_at(self._coordinate(t))

    def _coordinate(self, t: Any) -> Any:
        return self.table.center + self.table.scale * _sinh(t)

    def _distribution_function(self) -> CubicHermiteSpline:
        return CubicHermiteSpline(self.table.grid, self.table.cumulative, self.table.density)

    def tabulated(self, guess: Any, left: Any = 100.0, right: Any = 100.0) -> Table:
        """The table, from s `left` below to `right` above the mode, which lies near `guess`.

        NaN where the law is improper.
        """
        try:
            self.require_proper()
        except ImproperLawError:
            nothing = np.full(_POINTS, np.nan)
            number = np.float64(np.nan)
            return Table(number, number, nothing, nothing, nothing, number)
        return tabulate(self.log_mass, guess, left, right, traced=is_traced(self, guess))


def tabulate(
    log_mass: Callable[[Any], Any], guess: Any, left: Any, right: Any, traced: bool
) -> Table:
    """Tabulate exp(log_mass); the mode must lie within 60 of `guess`."""
    xp = jnp if traced else np
    center, half = guess, 60.0
    for _ in range(3):
        s = center + half * xp.linspace(-1, 1, 2001)
        center, half = s[xp.argmax(log_mass(s))], half / 500
    reach = xp.asarray(np.geomspace(1e-6, 30, 120))
    top = log_mass(center)
    drop = top - xp.minimum(log_mass(center - reach), log_mass(center + reach))
    scale = reach[xp.argmax(xp.where(drop < 1, reach, 0))]
    low, high = -xp.arcsinh(left / scale), xp.arcsinh(right / scale)
    t = low + (high - low) * xp.linspace(0, 1, _POINTS)
    step = t[1] - t[0]
    log_density = log_mass(center + scale * xp.sinh(t)) - top + xp.log(scale * xp.cosh(t))
    density = xp.exp(log_density)
    total = density.sum() * step
    density = density / total
    cells = density[:-1] + density[1:]
    before = xp.concatenate([density[:1], density[:-2]])
    after = xp.concatenate([density[2:], density[-1:]])
    # The cubic through four neighbours: ∫ = h (−f₋ + 13 f₀ + 13 f₁ − f₂)/24 over the middle cell.
    masses = xp.clip(step * (13 * cells - before - after) / 24, 0, None)
    cumulative = xp.concatenate([xp.zeros(1), xp.cumsum(masses)])
    return Table(center, scale, t, density, cumulative / cumulative[-1], top + xp.log(total))


def _sinh(t: Any) -> Any:
    return jnp.sinh(t) if is_traced(t) else np.sinh(t)
