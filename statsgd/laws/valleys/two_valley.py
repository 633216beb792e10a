"""Two valleys at a fixed place along them: how SGD divides itself between flat and sharp."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import expit, log_ndtr, ndtr, ndtri
from jaxtyping import Float

from statsgd.arguments import is_traced, non_negative, one_of, positive, real
from statsgd.dynamics.noise import Anisotropic, HessianScaled, Isotropic
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.expectation import on_line
from statsgd.laws.bases.potential import density_model
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.laws.loss_noise.setting import READINGS
from statsgd.precision import formula, in_double_precision
from statsgd.problems import Problem
from statsgd.problems.two_valley import FrozenTwoValley, TwoValleyLandscape

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_READINGS = (*READINGS, "published_rates")


class Wells(eqx.Module):
    """Geometry and diffusion of the two wells at one y, as arrays (flat, sharp)."""

    width: Float[Any, "2"]
    """g, twice the distance of the minimum from the ridge."""
    flatness: Float[Any, "2"]
    """f = 2/curvature."""
    diffusion: Float[Any, "2"]
    """D on each side, constant there."""

    @classmethod
    def of(
        cls, landscape: TwoValleyLandscape, along: Any, noise_level: Any, noise_power: Any
    ) -> "Wells":
        """D = Δ_S h^p with h = 2/f and C = 2σH^p, Δ_S = ησ."""
        return _wells(landscape, along, noise_level, noise_power)

    @property
    def variance(self) -> Any:
        """v = Df/2 of the untruncated well."""
        return self.diffusion * self.flatness / 2

    @property
    def barrier(self) -> Any:
        """ΔL = g²/(4f), seen from each side."""
        return self.width**2 / (4 * self.flatness)

    @property
    def barrier_height(self) -> Any:
        """z² = g²/(8v) of each well: there are two states where it is above about 2."""
        return self.width**2 / (8 * self.variance)

    @property
    def commitment(self) -> Any:
        """Probability that a walker on the ridge settles in each well (Itô), c = δ_other/(δ₊+δ₋).

        δ = D f/g is the length over which the barrier rises by D. For D ∝ H: g₁/(g₁+g₂).
        """
        length = self.ridge_length
        return length[::-1] / (length[0] + length[1])

    @property
    def ridge_length(self) -> Any:
        """δ = Df/g on each side; 2Δ_S/g where D ∝ H."""
        return self.diffusion * self.flatness / self.width


@formula
def _wells(landscape: TwoValleyLandscape, along: Any, level: Any, power: Any) -> Wells:
    flatness, width = jnp.stack(landscape.flatness(along)), jnp.stack(landscape.widths(along))
    return Wells(width, flatness, level * (2 / flatness) ** power)


@register
class TwoValleyLaw(Law):
    """Stationary law across two valleys at fixed y, with noise C = 2σH^p.

    D = Δ_S h^p is constant on each side of the ridge, Δ_S = ησ, h = 2/f. With v = Df/2,

        x | flat ~ Normal(g₁/2, v₊) cut to x > 0,      x | sharp ~ Normal(−g₂/2, v₋) cut to x < 0
        P_flat/P_sharp = (D₋/D₊)^a √(v₊/v₋) e^{ΔL(1/D₊ − 1/D₋)} Φ(g₁/(2√v₊))/Φ(g₂/(2√v₋))

    a = 1 in the Itô reading, which is SGD; the density then jumps at the ridge by D₋/D₊. For p = 1
    both wells have the variance Δ_S, and a deep well's odds are γ^a e^{(g₁²−g₂²)/(8Δ_S)}. For p = 0
    (isotropic noise) a does not matter and deep wells give √γ/(1+√γ).

    **Arguments:**

    - `landscape`, a `TwoValleyLandscape`; `along`, the frozen y > 0; `noise_level` Δ_S = ησ > 0
      (unit of D for h = 1); `noise_power` p, 1 by default;
    - `reading`: `"ito"`, `"stratonovich"` (a = ½), `"anti_ito"` (a = 0, the published density), or
      `"published_rates"` (p = 1), the published ratio of escape rates, which leaves out the
      probability to commit once on the ridge;
    - `learning_rate` η, zero by default (the SDE). Above zero, for p = 1 in the Itô reading, the
      first discrete correction: variances v/(1−η/f) and log odds lower by
      0.5826(√γ − 1/√γ)·2√(ΔLη/Δ_S), usable while that root is below 0.1. `two_valley_chain_law` is
      exact.

    y drifts on for ever, so this is no law of the two-dimensional run: final occupations are
    decided where hopping freezes (`freezing_prediction`).

    Source: Yang et al., arXiv:2601.10962, for the setting and the other readings; the Itô law, the
    √η correction and general p are derived.

    >>> from statsgd import SGD, noise, problems
    >>> frozen = problems.TwoValleyLandscape().frozen(3.0)
    >>> law = TwoValleyLaw.from_sgd(frozen, SGD(0.02, noise.HessianScaled(0.1)))
    >>> round(float(law.noise_level), 6)  # of strength σ, ησ/2
    0.001
    """

    setting: ClassVar[str] = "SGD across two valleys at fixed place along them, noise C = 2σH^p"
    exactness: ClassVar[str] = "exact for its SDE; odds of the chain differ by O(√learning rate)"
    citation: ClassVar[str] = "Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962"
    has_discrete_sites: ClassVar[bool] = True

    landscape: TwoValleyLandscape
    along: Float[Any, ""]
    noise_level: Float[Any, ""]
    noise_power: Float[Any, ""]
    learning_rate: Float[Any, ""]
    reading: str = eqx.field(static=True)

    def __init__(
        self,
        landscape: TwoValleyLandscape,
        along: Any,
        noise_level: Any,
        noise_power: Any = 1.0,
        *,
        reading: str = "ito",
        learning_rate: Any = 0.0,
    ):
        self.landscape = landscape
        self.along = positive("along", along)
        self.noise_level = positive("noise_level", noise_level)
        self.noise_power = real("noise_power", noise_power, allowed="finite", valid=np.isfinite)
        self.learning_rate = non_negative("learning_rate", learning_rate)
        self.reading = one_of("reading", reading, _READINGS)
        plain = is_traced(self.noise_power) or np.all(self.noise_power == 1)
        corrected = is_traced(self.learning_rate) or np.any(self.learning_rate > 0)
        if (corrected and reading != "ito") or (
            (corrected or reading == "published_rates") and not plain
        ):
            raise ValueError(
                "learning_rate needs reading 'ito', and it and 'published_rates' need "
                f"noise_power = 1, got reading = {reading!r}, noise_power = {noise_power!r}"
            )

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, *, discrete: bool = False, reading: str = "ito"
    ) -> Self:
        """The law for `sgd` on `landscape.frozen(y)`, with `HessianScaled` or `Isotropic` noise.

        `HessianScaled(2σ)` is C = 2σH (p = 1), `Isotropic(c)` has D = ηc/2 (p = 0). With `discrete`
        the first correction in η is applied. Raises `ValueError` for other problems and noise, for
        a noise floor, momentum or weight decay.
        """
        if not isinstance(problem, FrozenTwoValley):
            raise ValueError(
                "TwoValleyLaw speaks about TwoValleyLandscape.frozen(y), got "
                f"{type(problem).__name__}"
            )
        sgd.require_heavy_ball()
        if float(sgd.momentum) != 0 or float(sgd.weight_decay) != 0:
            raise ValueError(
                "TwoValleyLaw needs momentum = 0 and weight_decay = 0, got "
                f"{float(sgd.momentum):.4g} and {float(sgd.weight_decay):.4g}"
            )
        noise = sgd.noise
        if isinstance(noise, HessianScaled) and float(noise.floor) == 0:
            strength, power = noise.strength, 1.0
        elif isinstance(noise, Isotropic):
            strength, power = noise.variance, 0.0
        else:
            raise ValueError(
                "TwoValleyLaw needs HessianScaled noise without floor, or Isotropic noise, got "
                f"{noise!r}"
            )
        return cls(
            problem.landscape,
            problem.along,
            sgd.learning_rate * strength / 2,
            power,
            reading=reading,
            learning_rate=sgd.learning_rate if discrete else 0.0,
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Curvature-scaled noise at two places, and isotropic noise."""
        landscape = TwoValleyLandscape()
        yield cls(landscape, 5.0, 1e-3)
        yield cls(landscape, 5.0, 4e-3, learning_rate=1e-3)
        yield cls(landscape, 5.0, 0.04 / 6, 0.0)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A step beyond the edge of stability of the sharp valley."""
        return (cls(TwoValleyLandscape(), 5.0, 1e-3, learning_rate=0.25),)

    @property
    def dimension(self) -> int:
        """1."""
        return 1

    @property
    def wells(self) -> Wells:
        """Geometry and diffusion of both wells."""
        return Wells.of(self.landscape, self.along, self.noise_level, self.noise_power)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless η < f₂, that is η·(2/f₂) < 2."""
        wells = self.wells
        if is_traced(self.learning_rate, wells):
            return
        sharp = float(wells.flatness[1])
        if not float(self.learning_rate) < sharp:
            raise ImproperLawError(
                f"learning_rate = {float(self.learning_rate):.6g} must be below f2 = {sharp:.6g}: "
                "the sharp valley is beyond its edge of stability"
            )

    def log_odds(self) -> Any:
        """log(P_flat/P_sharp)."""
        self.require_proper()
        return in_double_precision(_log_odds, self)

    def flat_probability(self) -> Any:
        """P_flat, the probability of x > 0."""
        self.require_proper()
        return in_double_precision(_flat_probability, self)

    def scales(self) -> Any:
        """Standard deviations (flat, sharp) of the wells before they are cut at the ridge."""
        wells = self.wells
        return (wells.variance / (1 - self.learning_rate / wells.flatness)) ** 0.5

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Sites `flat`, `x_flat` and `x_sharp`; `params` = (x,). With `obs` the density itself."""
        self.require_proper()
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        g, scales = self.wells.width, self.scales()
        side = numpyro.sample("flat", dist.Bernoulli(self.flat_probability()))
        right = numpyro.sample("x_flat", dist.TruncatedNormal(g[0] / 2, scales[0], low=0.0))
        left = numpyro.sample("x_sharp", dist.TruncatedNormal(-g[1] / 2, scales[1], high=0.0))
        numpyro.deterministic("params", jnp.where(side == 1, right, left)[None])

    def _log_density(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        x, odds, (centre, scale) = params[0], self.log_odds(), self._shape()
        sign = jnp.array([1.0, -1.0])
        logs = -(((x - sign * centre) / scale) ** 2) / 2 - jnp.logaddexp(0.0, -sign * odds)
        logs = logs - jnp.log(scale) - log_ndtr(centre / scale) - jnp.log(2 * jnp.pi) / 2
        return jnp.where(x >= 0, logs[0], logs[1])

    def well_moments(self) -> tuple[Float[Any, "2"], Float[Any, "2"]]:
        """Means and standard deviations of x given (flat, sharp)."""
        self.require_proper()
        return in_double_precision(_well_moments, self)

    def _mean(self, variable: str) -> Float[Any, "1"]:
        p, (means, _) = self.flat_probability(), self.well_moments()
        return (p * means[:1]) + (1 - p) * means[1:]

    def _covariance(self, variable: str, other: str) -> Float[Any, "1 1"]:
        p, (means, deviations) = self.flat_probability(), self.well_moments()
        within = p * deviations[:1] ** 2 + (1 - p) * deviations[1:] ** 2
        return (within + p * (1 - p) * (means[:1] - means[1:]) ** 2)[:, None]

    def _cdf(self, params: Float[Any, "... 1"]) -> Float[Any, "... 1"]:
        return in_double_precision(_distribution, self, params)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... 1"]:
        return in_double_precision(_quantile, self, probability)[..., None]

    def _quadrature(self) -> tuple[Float[Any, "n 1"], Float[Any, " n"]]:
        """Gauss–Legendre in each well, within nine deviations of its minimum: to twelve digits."""
        centre, scale = self._shape()
        low, high = np.maximum(centre - 9 * scale, 0), centre + 9 * scale
        half = (high - low) / 2
        points = np.array([1.0, -1.0]) * (low + half * (1 + _NODES[:, None]))
        masses = (half * _WEIGHTS[:, None]).ravel() * np.exp(
            self.log_density(points.reshape(-1, 1))
        )
        return points.reshape(-1, 1), masses / masses.sum()

    def _averaged(self, values: Columns) -> Expected:
        centre, scale = self._shape()
        reach = centre + 9 * scale
        pieces = [(max(centre[0] - 9 * scale[0], 0.0), reach[0]), (-reach[1], -1e-12 * scale[1])]
        return on_line(lambda x: np.exp(self.log_density(x[:, None])), values, pieces)

    def _shape(self) -> tuple[Any, Any]:
        """Distances of the minima from the ridge, and `scales`."""
        return self.wells.width / 2, self.scales()


def _log_odds(law: TwoValleyLaw) -> Any:
    wells = law.wells
    if law.reading == "published_rates":
        squares = wells.barrier_height
        # erfi(z) ∝ e^(z²) z ∫₀¹ e^(−z²(1−u²)) du, of which only the end near u = 1 counts.
        end = jnp.minimum(1, 40 / squares)
        gone = end[:, None] * (1 + _NODES) / 2
        inside = jnp.exp(-squares[:, None] * gone * (2 - gone)) @ _WEIGHTS
        erfi = squares + jnp.log(squares) / 2 + jnp.log(end * inside)
        return jnp.log(wells.flatness[0] / wells.flatness[1]) + erfi[0] - erfi[1]
    d, v = wells.diffusion, wells.variance
    shares = log_ndtr(wells.width / (2 * jnp.sqrt(v)))
    odds = (
        READINGS[law.reading] * jnp.log(d[1] / d[0])
        + jnp.log(v[0] / v[1]) / 2
        + wells.barrier[0] * (1 / d[0] - 1 / d[1])
        + shares[0]
        - shares[1]
    )
    root = jnp.sqrt(wells.flatness[0] / wells.flatness[1])
    steps = jnp.sqrt(wells.barrier[0] * law.learning_rate / law.noise_level)
    return odds - 0.5826 * (root - 1 / root) * 2 * steps


def _flat_probability(law: TwoValleyLaw) -> Any:
    return expit(_log_odds(law))


def _well_moments(law: TwoValleyLaw) -> tuple[Any, Any]:
    centre, scale = law._shape()
    depth = centre / scale
    # The inverse Mills ratio: how far the cut at the ridge pushes the mean outwards.
    push = jnp.exp(-(depth**2) / 2 - log_ndtr(depth)) / jnp.sqrt(2 * jnp.pi)
    means = (centre + scale * push) * jnp.array([1.0, -1.0])
    return means, scale * jnp.sqrt(1 - depth * push - push**2)


def _distribution(law: TwoValleyLaw, x: Any) -> Any:
    p, (centre, scale) = _flat_probability(law), law._shape()
    share = ndtr(centre / scale)
    above = p * ndtr((centre[0] - x) / scale[0]) / share[0]
    below = (1 - p) * ndtr((centre[1] + x) / scale[1]) / share[1]
    return jnp.where(x >= 0, 1 - above, below)


def _quantile(law: TwoValleyLaw, probability: Any) -> Any:
    p, (centre, scale) = _flat_probability(law), law._shape()
    share = ndtr(centre / scale)
    flat = centre[0] - scale[0] * ndtri((1 - probability) * share[0] / p)
    sharp = scale[1] * ndtri(probability * share[1] / (1 - p)) - centre[1]
    return jnp.where(probability >= 1 - p, flat, sharp)


def two_valley_noise(landscape: TwoValleyLandscape, strength: Any) -> Anisotropic:
    """Gaussian noise C = 2σH on the two-dimensional landscape, negative eigenvalues of H cut off.

    `strength` is σ. On `landscape.frozen(y)` the same noise is `HessianScaled(2σ)`.

    >>> from statsgd.problems import TwoValleyLandscape
    >>> valleys = TwoValleyLandscape()
    >>> two_valley_noise(valleys, strength=1.0).covariance(valleys, valleys.start).shape
    (2, 2)
    """
    sigma = positive("strength", strength)
    return Anisotropic(lambda params: 2 * sigma * landscape.clipped_hessian(params))
