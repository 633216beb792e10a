"""A value with its standard error: what every measurement and every comparison gives."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import norm
from scipy.stats import t as student

from statsgd.arguments import is_traced, real
from statsgd.display import html, number

__all__ = ["Discrepancy", "Estimate", "exact", "sample_mean"]


class Estimate(NamedTuple):
    """A number, or an array of them, with its standard error: zero where it is exact.

    >>> Estimate(1.5, 0.25, clusters=8)
    Estimate(1.5 ± 0.25)
    >>> round(Estimate(1.5, 0.25).p_value(1.0), 4)
    np.float64(0.0455)

    It is a pytree of value and error, so that programs under `jax.jit` and `jax.vmap` can return
    it; the number of units is part of its structure.
    """

    value: Any
    standard_error: Any
    clusters: int | None = None
    """Independent units behind the error, which has one degree of freedom less; None where their
    number is not known, or so large that the error is as good as known."""

    def interval(self, confidence: float = 0.95) -> tuple[Any, Any]:
        """Interval of each entry on its own: Student's, or the normal one without `clusters`."""
        reach = self._law().isf(tail(confidence)) * self.standard_error
        return self.value - reach, self.value + reach

    def deviation(self, expected: Any) -> Any:
        """(value − expected)/standard error: Student's t if `expected` is right.

        Without any scatter it is 0 for the right value and infinite for any other.
        """
        gap = np.asarray(self.value - np.asarray(expected, dtype=np.float64))
        sure = np.where(gap == 0, 0.0, np.copysign(np.inf, gap))
        error = np.broadcast_to(self.standard_error, gap.shape)
        return np.divide(gap, error, out=sure, where=error > 0)[()]

    def p_value(self, expected: Any = 0.0) -> Any:
        """Two-sided p-value of `expected`, of each entry on its own."""
        return 2 * self._law().sf(np.abs(self.deviation(expected)))

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def __str__(self) -> str:
        if is_traced(self.value, self.standard_error):
            return f"traced{list(np.shape(self.value))}"
        return f"{number(self.value)} ± {number(self.standard_error)}"

    def _repr_html_(self) -> str:
        return html(self)

    def _law(self) -> Any:
        return norm if self.clusters is None else student(self.clusters - 1)


_LEAVES = tuple(map(jax.tree_util.GetAttrKey, ("value", "standard_error")))


def _with_units(clusters: int | None, leaves: Iterable[Any]) -> Estimate:
    value, error = leaves
    return Estimate(value, error, clusters)


jax.tree_util.register_pytree_with_keys(
    Estimate,
    lambda one: (tuple(zip(_LEAVES, one[:2], strict=True)), one.clusters),
    _with_units,
)


class Discrepancy(NamedTuple):
    """A distance between two laws, from 0 to 1, with what is known where it is not resolved."""

    value: Any
    standard_error: Any
    """Of `value`; where nothing is sampled, a bound on its numerical error."""
    upper: Any
    """The distance is below: at 95 % where there is sampling, by the numerical error elsewhere."""
    resolved: Any
    """Whether the distance is told from zero, at 99 % where there is sampling."""

    @property
    def at_most(self) -> Any:
        """`value` where it is resolved, the upper bound where it is not."""
        return np.where(self.resolved, self.value, self.upper)[()]

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "unknown"
        if self.upper == 0:
            return "0 %"
        if not self.resolved:
            # Rounded up: it is a bound.
            place = 1 - math.floor(math.log10(100 * self.upper))
            return f"below {math.ceil(100 * self.upper * 10**place) / 10**place:.2g} %"
        places = max(0, 1 - math.floor(math.log10(100 * self.value)))
        error = 100 * self.standard_error
        if round(error, places) == 0:
            return f"{100 * self.value:.{places}f} %"
        places = min(places, max(0, -math.floor(math.log10(error))))
        return f"{100 * self.value:.{places}f} ± {error:.{places}f} %"


def tail(confidence: Any) -> float:
    """Probability of error on either side of an interval."""

    def valid(level):
        return (level > 0) & (level < 1)

    return (1 - float(real("confidence", confidence, allowed="in (0, 1)", valid=valid))) / 2


def exact(value: Float[Array, "..."]) -> Estimate:
    """A value computed without sampling, in JAX: of error zero, or NaN where it is NaN itself.

    >>> exact(jnp.array([1.0, jnp.nan])).standard_error
    Array([ 0., nan], dtype=float32)
    """
    return Estimate(value, jnp.where(jnp.isnan(value), jnp.nan, jnp.zeros_like(value)))


def sample_mean(values: Float[Array, "n ..."]) -> Estimate:
    """Mean over the leading axis of independent values, in JAX, with its standard error.

    >>> sample_mean(jnp.array([1.0, 2.0, 3.0]))
    Estimate(2 ± 0.57735)
    """
    error = jnp.std(values, axis=0, ddof=1) / np.sqrt(values.shape[0])
    return Estimate(jnp.mean(values, axis=0), error, values.shape[0])
