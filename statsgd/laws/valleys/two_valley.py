"""Two valleys at a fixed place along them: how SGD divides itself between flat and sharp."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr as traced_log_ndtr
from jaxtyping import Float
from scipy.special import erfi, log_ndtr
from scipy.stats import truncnorm

from statsgd.arguments import is_traced, non_negative, one_of, positive, real
from statsgd.dynamics.noise import Anisotropic, HessianScaled, Isotropic
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.laws.loss_noise.scalar_noise import READINGS
from statsgd.problems import Problem
from statsgd.problems.two_valley import FrozenTwoValley, TwoValleyLandscape

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
        xp = jnp if is_traced(landscape, along, noise_level, noise_power) else np
        flatness = xp.stack([xp.asarray(f) for f in landscape.flatness(along)])
        width = xp.stack([xp.asarray(g) for g in landscape.widths(along)])
        return cls(width, flatness, noise_level * (2 / flatness) ** noise_power)

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
    def examples(cls) -> Sequence[Self]:
        """Curvature-scaled noise at two places, and isotropic noise."""
        landscape = TwoValleyLandscape()
        return (
            cls(landscape, 5.0, 1e-3),
            cls(landscape, 5.0, 4e-3, learning_rate=1e-3),
            cls(landscape, 5.0, 0.04 / 6, 0.0),
        )

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
        wells = self.wells
        traced = is_traced(wells, self.learning_rate)
        xp, log_phi = (jnp, traced_log_ndtr) if traced else (np, log_ndtr)
        if self.reading == "published_rates":
            ratio = wells.flatness[0] / wells.flatness[1]
            return xp.log(ratio) + _log_erfi_ratio(xp.sqrt(wells.barrier_height), traced)
        d, v = wells.diffusion, wells.variance
        shares = log_phi(wells.width / (2 * xp.sqrt(v)))
        odds = (
            READINGS[self.reading] * xp.log(d[1] / d[0])
            + xp.log(v[0] / v[1]) / 2
            + wells.barrier[0] * (1 / d[0] - 1 / d[1])
            + shares[0]
            - shares[1]
        )
        root = xp.sqrt(wells.flatness[0] / wells.flatness[1])
        steps = xp.sqrt(wells.barrier[0] * self.learning_rate / self.noise_level)
        return odds - 0.5826 * (root - 1 / root) * 2 * steps

    def flat_probability(self) -> Any:
        """P_flat, the probability of x > 0."""
        odds = self.log_odds()
        return 1 / (1 + (jnp if is_traced(odds) else np).exp(-odds))

    def scales(self) -> Any:
        """Standard deviations (flat, sharp) of the wells before they are cut at the ridge."""
        wells = self.wells
        xp = jnp if is_traced(wells, self.learning_rate) else np
        return xp.sqrt(wells.variance / (1 - self.learning_rate / wells.flatness))

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Sites `flat`, `x_flat` and `x_sharp`; `params` = (x,). With `obs` the density itself."""
        self.require_proper()
        if obs is not None:
            flat_prior = dist.ImproperUniform(dist.constraints.real_vector, (), (1,))
            with numpyro.plate("replica", obs.shape[0]):
                params = numpyro.sample("params", flat_prior, obs=obs)
                numpyro.factor("stationary_law", self.log_density(params))
            return
        g, scales = self.wells.width, self.scales()
        side = numpyro.sample("flat", dist.Bernoulli(self.flat_probability()))
        right = numpyro.sample("x_flat", dist.TruncatedNormal(g[0] / 2, scales[0], low=0.0))
        left = numpyro.sample("x_sharp", dist.TruncatedNormal(-g[1] / 2, scales[1], high=0.0))
        numpyro.deterministic("params", jnp.where(side == 1, right, left)[None])

    def log_density(self, params: Float[Any, "... 1"]) -> Float[Any, "..."]:
        """Log density of (x,); leading axes are batch axes. Concrete values give float64."""
        self.require_proper()
        wells = self.wells
        traced = is_traced(params, wells, self.learning_rate)
        xp, log_phi = (jnp, traced_log_ndtr) if traced else (np, log_ndtr)
        x = (params if traced else np.asarray(params, dtype=np.float64))[..., 0]
        centre, scale = wells.width / 2, self.scales()
        log_mass = -xp.log(scale) - log_phi(centre / scale) - np.log(2 * np.pi) / 2
        odds = self.log_odds()
        flat = log_mass[0] - ((x - centre[0]) / scale[0]) ** 2 / 2 - xp.logaddexp(0.0, -odds)
        sharp = log_mass[1] - ((x + centre[1]) / scale[1]) ** 2 / 2 - xp.logaddexp(0.0, odds)
        return xp.where(x >= 0, flat, sharp)

    def well_moments(self) -> tuple[Float[Any, "2"], Float[Any, "2"]]:
        """Means and standard deviations of x given (flat, sharp)."""
        self.require_proper()
        centre, scale = self.wells.width / 2, self.scales()
        depth = centre / scale
        # The inverse Mills ratio: how far the cut at the ridge pushes the mean outwards.
        push = np.exp(-(depth**2) / 2 - log_ndtr(depth)) / np.sqrt(2 * np.pi)
        means = (centre + scale * push) * np.array([1.0, -1.0])
        return means, scale * np.sqrt(1 - depth * push - push**2)

    def mean(self) -> Float[Any, "1"]:
        """E x."""
        p, (means, _) = float(self.flat_probability()), self.well_moments()
        return np.array([p * means[0] + (1 - p) * means[1]])

    def covariance(self) -> Float[Any, "1 1"]:
        """Var x."""
        p, (means, deviations) = float(self.flat_probability()), self.well_moments()
        second = deviations**2 + means**2
        return np.array([[p * second[0] + (1 - p) * second[1] - self.mean()[0] ** 2]])

    def cdf(self, params: Float[Any, "... 1"]) -> Float[Any, "... 1"]:
        """Distribution function of x."""
        self.require_proper()
        p, (flat, sharp) = float(self.flat_probability()), self._truncated()
        return p * flat.cdf(params) + (1 - p) * sharp.cdf(params)

    def _truncated(self) -> tuple[Any, Any]:
        centre, scale = self.wells.width / 2, self.scales()
        return (
            truncnorm(-centre[0] / scale[0], np.inf, centre[0], scale[0]),
            truncnorm(-np.inf, centre[1] / scale[1], -centre[1], scale[1]),
        )


def two_valley_noise(landscape: TwoValleyLandscape, strength: Any) -> Anisotropic:
    """Gaussian noise C = 2σH on the two-dimensional landscape, negative eigenvalues of H cut off.

    `strength` is σ. On `landscape.frozen(y)` the same noise is `HessianScaled(2σ)`.
    """
    sigma = positive("strength", strength)
    return Anisotropic(lambda params: 2 * sigma * landscape.clipped_hessian(params))


def _log_erfi_ratio(z: Any, traced: bool) -> Any:
    """log erfi(z₁) − log erfi(z₂)."""
    if not traced:
        return np.log(erfi(z[0]) / erfi(z[1]))
    nodes, weights = np.polynomial.legendre.leggauss(64)
    # erfi(z) ∝ e^(z²) z ∫₀¹ e^(−z²(1−u²)) du
    squares = z[:, None] ** 2 * (1 - ((1 + nodes) / 2) ** 2)
    logs = z**2 + jnp.log(z) + jnp.log(jnp.exp(-squares) @ weights)
    return logs[0] - logs[1]
