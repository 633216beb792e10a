"""Laws of one number, the slope of a network, tabulated once and read exactly."""

import abc
from functools import partial
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from statsgd.laws.bases.expectation import on_table
from statsgd.laws.bases.line import (
    LineTable,
    nowhere,
    one_well,
    require_resolved,
    resolved,
    tabulate,
)
from statsgd.laws.bases.next_order import NextOrder, next_order
from statsgd.laws.bases.potential import density_model
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.law import ImproperLawError, Law
from statsgd.precision import in_double_precision, over_points


class SlopeLaw(Law):
    """A law of one number f; `params` has shape `(1,)` and holds f.

    A final class states log p up to a constant as a function of a coordinate s of f in which the
    law has exponential tails or shorter ones (ln f, say), all of it in JAX, and at the end of its
    constructor sets `correction` to None and `table` to `tabulated()`. The table gives the
    normaliser, moments, distribution function and quantiles to about nine digits: its rule is
    spectrally accurate for smooth laws that decay at both ends.
    """

    table: LineTable
    correction: NextOrder | None
    """What finite steps change, along s; None for the law of the diffusion limit."""

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """See `LineTable.error_estimate`; with that of the discrete correction, if that is on."""
        own = 0.0 if self.correction is None else self.correction.error
        return self.table.error_estimate + own

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

    @abc.abstractmethod
    def reach(self) -> tuple[Any, Any, Any]:
        """A guess of the mode of s, right to 60, and how far below and above it mass may lie."""

    @abc.abstractmethod
    def supports(self, slope: Any) -> Any:
        """Whether f lies in the support."""

    def corrected_log_mass(self, coordinate: Any) -> Any:
        """`log_mass` with the discrete correction, if that is on."""
        value = self.log_mass(coordinate)
        return value if self.correction is None else value + self.correction(coordinate)

    def corrected(self, moments: Any) -> Self:
        """The law to the next order for a chain whose steps of s have these `moments`.

        `moments` is an Equinox module from s to the first four; see `bases.next_order`. Beyond all
        but 2·10⁻⁶ of the mass nothing is corrected.
        """
        low, center, high = self.table.quantile(np.array([1e-6, 0.5, 1 - 1e-6]))
        found = next_order(self.log_mass, moments, float(low), float(center), float(high))
        law = eqx.tree_at(lambda law: law.correction, self, found, is_leaf=lambda x: x is None)
        return eqx.tree_at(lambda law: law.table, law, law.tabulated())

    def exact_distribution(self) -> dist.Distribution | None:
        """The law as a NumPyro distribution of f where it has a name."""
        return None

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Site `params` `(1,)`: a named distribution, or the quantile of a uniform `u`."""
        self.ensure_proper()
        named = self.exact_distribution() if self.correction is None else None
        site = None if named is None else named.expand([1]).to_event(1)
        if obs is not None:
            if site is None:
                density_model(self, dist.constraints.real_vector, obs)
                return
            with numpyro.plate("replica", obs.shape[0]):
                numpyro.sample("params", site, obs=obs)
            return
        if site is not None:
            params = numpyro.sample("params", site)
        else:
            coordinate = self.table.quantile(numpyro.sample("u", dist.Uniform(0, 1)))
            params = numpyro.deterministic("params", jnp.asarray(self.slope_at(coordinate))[None])
        self.push_forward(params[0])

    def push_forward(self, slope: Float[Any, ""]) -> None:
        """Further deterministic sites that follow from f; none by default."""

    def _log_density(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        slope = params[0]
        inside = self.supports(slope)
        s = self.coordinate_of(jnp.where(inside, slope, self.slope_at(self.table.center)))
        value = self.corrected_log_mass(s) - self.log_jacobian(s) - self.table.log_normalizer
        return jnp.where(inside, value, -jnp.inf)

    def _quadrature(self) -> tuple[Float[Any, "n 1"], Float[Any, " n"]]:
        table = require_resolved(self.table)
        return in_double_precision(self.slope_at, table.points)[:, None], table.weights

    def _averaged(self, values: Columns) -> Expected:
        def along(coordinate: Float[np.ndarray, "n 1"]) -> Any:
            return values(over_points(_slopes, coordinate, self))

        return on_table(require_resolved(self.table), along, self.error_estimate)

    def _cdf(self, params: Float[Any, "... 1"]) -> Float[Any, "... 1"]:
        require_resolved(self.table)
        return in_double_precision(_distribution, params, self)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... 1"]:
        coordinate = require_resolved(self.table).quantile(probability[..., None])
        return in_double_precision(self.slope_at, coordinate)

    def tabulated(self) -> LineTable:
        """The table over the `reach` of the mode; NaN where the law is improper."""
        try:
            self.ensure_proper()
        except ImproperLawError:
            return nowhere()
        return resolved(partial(in_double_precision, _table, self))


def _slopes(coordinate: Float[Any, " 1"], law: SlopeLaw) -> Float[Any, " 1"]:
    return law.slope_at(coordinate)


def _distribution(params: Float[Any, "..."], law: SlopeLaw) -> Float[Any, "..."]:
    low, high = (law.slope_at(end) for end in law.table.points[jnp.array([0, -1])])
    inside = (params > low) & (params < high)
    coordinate = law.coordinate_of(jnp.where(inside, params, law.slope_at(law.table.center)))
    return jnp.where(inside, law.table.cdf(coordinate), (params >= high).astype(params.dtype))


def _table(law: SlopeLaw, number: int) -> LineTable:
    center, left, right = law.reach()
    log_mass = law.corrected_log_mass
    half = 60.0
    for _ in range(3):
        s = center + half * jnp.linspace(-1, 1, 2001)
        center, half = s[jnp.argmax(log_mass(s))], half / 500
    reach = jnp.geomspace(1e-6, 30, 120)
    sides = jnp.minimum(log_mass(center - reach), log_mass(center + reach))
    drop = log_mass(center) - sides
    scale = reach[jnp.argmax(jnp.where(drop < 1, reach, 0))]
    return tabulate(log_mass, one_well(center, scale), center - left, center + right, number)
