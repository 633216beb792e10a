"""Laws whose density is a function of the loss alone, and where such a density is integrable."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import count, is_traced, positive
from statsgd.laws.bases.line import LineTable, require_resolved
from statsgd.laws.bases.tabulated import Support, TabulatedLaw, find_support
from statsgd.laws.law import ImproperLawError
from statsgd.laws.loss_noise.setting import READINGS, loss_exponent

#: Exponent at zero loss below which quadrature takes the density for a bounded one.
_BOUNDED = 1e-6


class LossPotentialLaw(TabulatedLaw):
    """A law whose density is a function of the loss alone, p(θ) = g(L(θ)).

    Near the zero-loss set 𝓜 the mass of {L < s} goes as s^(q/2), q the codimension of 𝓜; far out,
    where L ~ |θ|^p, as s^(d/p). So g ~ L^(−a) is integrable at 𝓜 iff a < q/2 and at infinity iff
    a > d/p. A final class gives `potential` and the two exponents, and calls `_complete` at the end
    of its constructor.

    With one parameter the normaliser, moments, distribution function and draws come from
    quadrature, moments with what lies beyond it added from the power law of the tail. Where the
    density is infinite on 𝓜, or ap − 1 is below about 0.15, they raise `IntractableError`.

    **Fields:** `loss`, a JAX function of flat parameters; `num_params` d; `noise_ratio` ε = ησ;
    `codimension` q (None if the loss has no zero); `growth` p, the power with which the loss grows
    at infinity.
    """

    #: Here `growth` is given, and not measured.
    derived: ClassVar[tuple[str, ...]] = ("support", "table")

    loss: Callable[[Float[Any, " d"]], Float[Any, ""]]
    num_params: int = eqx.field(static=True)
    noise_ratio: Float[Any, ""]
    codimension: int | None = eqx.field(static=True)
    growth: Float[Any, ""]

    def __init__(
        self, loss: Callable, dimension: int, noise_ratio: Any, codimension: int | None, growth: Any
    ):
        self.loss = loss
        self.num_params = count("dimension", dimension)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.codimension = None if codimension is None else count("codimension", codimension)
        self.growth = positive("growth", growth)
        self.bounds, self.support, self.table = None, None, None

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.num_params

    @property
    def exact_draws(self) -> bool:
        """Whether the distribution function is known, and so can be inverted."""
        return self.table is not None

    @abc.abstractmethod
    def exponents(self) -> tuple[Any, Any]:
        """The power a of g ~ L^(−a) at L → 0 and at L → ∞ (infinite: faster than any power)."""

    def tail_exponent(self) -> Any:
        """ap, with p(θ) ~ |θ|^(−ap) at infinity."""
        return self.exponents()[1] * self.growth

    def _complete(self, bounds: Any = None) -> None:
        """Fill in what quadrature knows, between `bounds` if given."""
        if self.dimension != 1 or (bounds is None and is_traced(self)):
            return
        if is_traced(self):
            low, high = bounds
            support = Support(*map(np.asarray, (low, high, (low + high) / 2, (high - low) / 2)))
        else:
            try:
                support = find_support(self._on_line, bounds)
            except ImproperLawError:
                return
            singular = self.codimension is not None and self.exponents()[0] > _BOUNDED
            # A loss that overflows before its tail has died away would cut the tail off.
            ends = np.stack([support.low, support.high])
            past = self.potentials((support.mode + 1.25 * (ends - support.mode))[:, None])
            if singular or not np.all(np.isfinite(past)):
                return
        self._fill(support)

    def _line(self, what: str) -> LineTable:
        if self.table is None:
            self._cannot_say(what)
        return require_resolved(self.table)

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number 1"]] | None:
        """Exact draws where there are some."""
        return super().starting_points(key, number) if self.exact_draws else None

    def _mean(self, variable: str) -> Float[Any, " d"]:
        mean = super()._mean(variable)
        return mean + self._beyond(mean, 1, np.nan)

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        covariance = super()._covariance(variable, other)
        return covariance + self._beyond(super()._mean(variable), 2, np.inf)

    def _beyond(self, center: Any, order: int, missing: float) -> Any:
        """∫(θ − center)^order p outside the support; `missing` where there is none."""
        tail = self.tail_exponent()
        if self.support is None or is_traced(tail) or np.isinf(tail):
            return 0.0
        if tail <= 1 + order:
            return missing
        ends = np.stack([self.support.low, self.support.high])
        density = np.exp(self.log_density(ends[:, None]))
        reach = ends - center
        return np.sum(density * reach**order * np.abs(reach)) / (tail - 1 - order)


def require_integrable_at_zero(exponent: float, codimension: int) -> None:
    """Raise `ImproperLawError` unless L^(−exponent) is integrable at a set of this codimension."""
    if not exponent < codimension / 2:
        raise ImproperLawError(
            f"L^-{exponent:.4g} is not integrable at the zero-loss set: the exponent must be below "
            f"q/2 = {codimension / 2:.4g} for codimension q = {codimension}"
        )


def require_above_critical_noise(
    noise_ratio: Any, codimension: int | None, reading: str = "ito"
) -> None:
    """Raise `ImproperLawError` unless L^(−α) is integrable at the zero-loss set.

    Nothing is asked of a loss without zeros, `codimension` None, or of a traced `noise_ratio`.
    """
    if codimension is None or is_traced(noise_ratio):
        return
    # α = reading + 2/ε < q/2 is ε > 4/(q − 2 reading).
    excluded = round(2 * READINGS[reading])
    if codimension <= excluded:
        raise ImproperLawError(
            "L^-alpha is not integrable at the zero-loss set: no noise_ratio works for "
            f"codimension {codimension} <= {excluded}"
        )
    exponent = float(loss_exponent(noise_ratio, reading))
    if not exponent < codimension / 2:
        raise ImproperLawError(
            f"L^-alpha is not integrable at the zero-loss set: alpha = {exponent:.4g} must be "
            f"below q/2 = {codimension / 2:.4g}; noise_ratio {float(noise_ratio):.4g} must exceed "
            f"4/(q-{excluded}) = {4 / (codimension - excluded):.4g} for codimension q = "
            f"{codimension}; below it SGD collapses onto the set and the end law depends on the "
            "start"
        )


def require_tail(exponent: Any, growth: Any, dimension: int) -> None:
    """Raise `ImproperLawError` unless L^(−exponent) with L ~ |θ|^growth settles at infinity.

    Nothing is asked of traced numbers.
    """
    if is_traced(exponent, growth):
        return
    if not exponent * growth > dimension:
        raise ImproperLawError(
            f"L^-alpha has a non-normalisable tail: alpha*p = {exponent * growth:.4g} must exceed "
            f"dim = {dimension}"
        )
    explosion = 1 + (dimension - 2) / growth
    if growth > 2 and not exponent >= explosion:
        raise ImproperLawError(
            f"L^-alpha is integrable but its diffusion is explosive: alpha = {exponent:.4g} < "
            f"1+(d-2)/p = {explosion:.4g}"
        )


def half_square(params: Float[Any, " d"]) -> Float[Any, ""]:
    """½|θ|²."""
    return 0.5 * jnp.sum(params**2)


def unequal_wells(params: Float[Any, "1"]) -> Float[Any, ""]:
    """A flat and a sharp well of equal height 0.05, curvatures 1 and 9, with minima at 0 and 1."""
    x = jnp.sum(params)
    return 0.05 + 0.5 * (x * (1 - x) * (1 + 2 * x**2)) ** 2
