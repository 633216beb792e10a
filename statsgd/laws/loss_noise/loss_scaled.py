"""Pure loss-scaled noise: the stationary law is a power of the loss."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln as traced_gammaln
from jax.scipy.special import i0e as traced_i0e
from jaxtyping import Float
from scipy.special import gammaln, i0e

from statsgd.arguments import count, is_traced, one_of, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.regime import critical_noise_ratio, loss_exponent
from statsgd.laws.loss_noise.scalar_noise import READINGS, LossPotentialLaw
from statsgd.laws.loss_noise.setting import FlatLoss, loss_scaled_noise
from statsgd.problems import Problem

_KNOTS = 4097
#: Concentration above which a von Mises draw is a scaled one at this concentration.
_CONCENTRATED = 1e3


#: Where each parameter of a periodic law lies.
ANGLES = dist.constraints.independent(dist.constraints.interval(-np.pi, np.pi), 1)


@register
class LossScaledLaw(LossPotentialLaw):
    """Stationary law of SGD whose noise vanishes with the loss, C = σ L I.

        p(θ) ∝ L(θ)^(−α),     α = 1 + 2/ε,     ε = ησ

    Near the zero-loss set 𝓜, of codimension q, it is integrable iff α < q/2, that is
    ε > 4/(q−2): below, SGD collapses onto 𝓜 and the end law depends on the start. At infinity,
    where L ~ |θ|^p, it needs αp > d, and for p > 2 also α ≥ 1 + (d−2)/p, without which the
    diffusion explodes. For p ≤ 2 the conditions exclude each other: on ℝᵈ the pure law is never
    proper for a loss with Lipschitz gradient. Use a periodic domain, a floor
    (`FlooredLossScaledLaw`) or saturation (`SaturatingLossScaledLaw`).

    **Arguments:** `loss`, a JAX function of flat parameters `(d,)`, not negative; `dimension` d;
    `noise_ratio` ε > 0; `codimension` q of the zero-loss set, None if the loss has no zero;
    `growth` p; `periodic`: every coordinate is an angle in (−π, π] and infinity is absent;
    `reading` of the SDE: `"ito"` is SGD, `"stratonovich"` has α = ½ + 2/ε and `"anti_ito"` 2/ε.

    The potential is singular on 𝓜: never start a sampler there.

    Source: the noise is Wojtowytsch (2021), arXiv:2105.01650 and 2106.02588; the density and its
    conditions are derived.
    """

    setting: ClassVar[str] = "SGD, isotropic noise proportional to the loss"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain, most at low loss"
    citation: ClassVar[str] = "Wojtowytsch (2021), arXiv:2106.02588"

    periodic: bool = eqx.field(static=True)
    reading: str = eqx.field(static=True)

    def __init__(
        self,
        loss: Callable,
        dimension: int,
        noise_ratio: Any,
        *,
        codimension: int | None,
        growth: Any = 2.0,
        periodic: bool = False,
        reading: str = "ito",
    ):
        self.loss = loss
        self.num_params = count("dimension", dimension)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.codimension = None if codimension is None else count("codimension", codimension)
        self.growth = positive("growth", growth)
        self.periodic = bool(periodic)
        self.reading = one_of("reading", reading, READINGS)

    @classmethod
    def from_sgd(
        cls,
        problem: Problem,
        sgd: SGD,
        *,
        codimension: int | None,
        growth: Any = 2.0,
        periodic: bool = False,
    ) -> Self:
        """The law for `sgd` with `LossScaled` noise that has neither floor nor saturation.

        Raises `ValueError` for other noise, momentum or weight decay.
        """
        noise = loss_scaled_noise(sgd)
        if float(noise.floor) != 0 or np.isfinite(noise.saturation):
            raise ValueError(
                "LossScaledLaw needs noise with floor 0 and no saturation, got floor = "
                f"{float(noise.floor):.4g}, saturation = {float(noise.saturation):.4g}: see "
                "FlooredLossScaledLaw and SaturatingLossScaledLaw"
            )
        return cls(
            FlatLoss(problem),
            problem.dimension,
            sgd.learning_rate * noise.strength,
            codimension=codimension,
            growth=growth,
            periodic=periodic,
        )

    @staticmethod
    def torus(codimension: int, noise_ratio: Any, reading: str = "ito") -> "TorusPowerOfLossLaw":
        """The law of L = Σ(1 − cos θ_i) on the q-torus, which has an exact sampler."""
        return TorusPowerOfLossLaw(codimension, noise_ratio, reading)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Wells without zero loss in one dimension, and a point of zero loss on the 3-torus."""
        return (
            cls(unequal_wells, 1, 0.5, codimension=None),
            cls(cosine_loss, 3, 8.0, codimension=3, periodic=True),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Collapse, a codimension too low for any noise, a heavy tail and an explosion."""

        def sixth(params):
            return jnp.sum(params**2) ** 3

        return (
            cls(cosine_loss, 3, 3.0, codimension=3, periodic=True),
            cls(cosine_loss, 2, 30.0, codimension=2, periodic=True),
            cls(cosine_loss, 3, 8.0, codimension=3),
            cls(sixth, 12, 1.5, codimension=12, growth=6.0),
        )

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε (Itô), ½ + 2/ε (Stratonovich), 2/ε (anti-Itô)."""
        return loss_exponent(self.noise_ratio) - 1 + READINGS[self.reading]

    def exponents(self) -> tuple[float, float]:
        """α at both ends."""
        return float(self.loss_exponent), float(self.loss_exponent)

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = α log L."""
        return self.loss_exponent * jnp.log(self.loss(params))

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """Angles on the torus, else all of ℝᵈ."""
        return ANGLES if self.periodic else super().constraint

    def require_proper(self) -> None:
        """Raise `ImproperLawError` outside the conditions at 𝓜 and, unless periodic, at ∞."""
        if is_traced(self.noise_ratio, self.growth):
            return
        if self.codimension is not None:
            require_above_critical_noise(
                float(self.noise_ratio), float(self.loss_exponent), self.codimension
            )
        if not self.periodic:
            require_tail(float(self.loss_exponent), float(self.growth), self.dimension)


@register
class TorusPowerOfLossLaw(PotentialLaw):
    """The pure power law of L(θ) = Σ_{i≤q} (1 − cos θ_i) on the q-torus, with exact draws.

    L^(−α) = ∫ t^(α−1) e^(−tL) dt/Γ(α), so the angles are independent von Mises variables of one
    random concentration t with density ∝ t^(α−1) (e^(−t)I₀(t))^q, and

        Z = (2π)^q/Γ(α) ∫₀^∞ t^(α−1) (e^(−t)I₀(t))^q dt,
        E L = (α−1) ∫ t^(α−2) (e^(−t)I₀(t))^q dt / ∫ t^(α−1) (e^(−t)I₀(t))^q dt

    Proper iff α < q/2. t is drawn by inversion on a fine grid of log t. **Arguments:**
    `codimension` q, `noise_ratio` ε = ησ, `reading` as in `LossScaledLaw`.

    Source: derived; the noise is Wojtowytsch (2021), arXiv:2106.02588.
    """

    setting: ClassVar[str] = "SGD on a cosine loss on the torus, noise proportional to the loss"
    exactness: ClassVar[str] = "exact for its SDE; E L is O(learning rate) high for the chain"
    citation: ClassVar[str] = "derived, for noise as in Wojtowytsch (2021), arXiv:2106.02588"
    normalized: ClassVar[bool] = True
    generative: ClassVar[bool] = True

    codimension: int = eqx.field(static=True)
    noise_ratio: Float[Any, ""]
    reading: str = eqx.field(static=True)

    def __init__(self, codimension: int, noise_ratio: Any, reading: str = "ito"):
        self.codimension = count("codimension", codimension)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.reading = one_of("reading", reading, READINGS)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Two codimensions well above their critical noise."""
        return cls(3, 8.0), cls(5, 2.0)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Below the critical noise, and a codimension without one."""
        return cls(3, 3.0), cls(2, 30.0)

    @property
    def dimension(self) -> int:
        """Number of angles, q."""
        return self.codimension

    @property
    def loss_exponent(self) -> Any:
        """α, as in `LossScaledLaw`."""
        return loss_exponent(self.noise_ratio) - 1 + READINGS[self.reading]

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless α < q/2."""
        if not is_traced(self.noise_ratio):
            require_above_critical_noise(
                float(self.noise_ratio), float(self.loss_exponent), self.codimension
            )

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = α log L."""
        return self.loss_exponent * jnp.log(cosine_loss(params))

    def log_normalizer(self) -> Float[Any, ""]:
        """log Z."""
        self.require_proper()
        q, alpha = self.codimension, self.loss_exponent
        if is_traced(alpha):
            grid, log_weight = self._concentration_grid()
            mass = jnp.log(jnp.sum(jnp.exp(log_weight))) + jnp.log(grid[1] - grid[0])
            return q * jnp.log(2 * jnp.pi) + mass - traced_gammaln(alpha)
        return q * np.log(2 * np.pi) - gammaln(alpha) + np.log(self._moment(0))

    def mean_loss(self) -> float:
        """E L."""
        self.require_proper()
        return float((self.loss_exponent - 1) * self._moment(-1) / self._moment(0))

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `level` (uniform; the concentration is its quantile) and `angle`; `params` of them.

        With `obs` the density itself is used.
        """
        if obs is not None:
            super().model(obs)
            return
        self.require_proper()
        grid, log_weight = self._concentration_grid()
        weight = jnp.exp(log_weight - jnp.max(log_weight))
        mass = jnp.cumsum(weight) - weight / 2
        level = numpyro.sample("level", dist.Uniform(0.0, 1.0))
        log_t = jnp.interp(level, mass / mass[-1], grid)
        # Above the cap von Mises is Gaussian to a relative 1/(8·cap), and its sampler loses digits.
        log_cap = jnp.minimum(log_t, np.log(_CONCENTRATED))
        law = dist.VonMises(0.0, jnp.exp(log_cap)).expand([self.codimension]).to_event(1)
        angle = numpyro.sample("angle", law)
        numpyro.deterministic("params", angle * jnp.exp((log_cap - log_t) / 2))

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """Angles."""
        return ANGLES

    def _concentration_grid(self) -> tuple[Any, Any]:
        """Log t on a grid that holds all mass but e^(−42), and the log density of log t there."""
        alpha, q = self.loss_exponent, self.codimension
        xp = jnp if is_traced(alpha) else np
        grid = xp.linspace(-42 / alpha, 42 / (q / 2 - alpha), _KNOTS)
        return grid, alpha * grid + q * _log_scaled_bessel(grid, xp)

    def _moment(self, power: int) -> Any:
        """∫ t^(α−1+power) (e^(−t)I₀(t))^q dt, by the trapezoidal rule in log t."""
        alpha, q = self.loss_exponent + power, self.codimension
        grid, step = np.linspace(-42 / alpha, 42 / (q / 2 - alpha), 20001, retstep=True)
        return step * np.sum(np.exp(alpha * grid + q * _log_scaled_bessel(grid, np)))


def cosine_loss(params: Float[Any, " d"]) -> Float[Any, ""]:
    """Σ(1 − cos θ_i), in a form that keeps its digits near zero."""
    return 2 * jnp.sum(jnp.sin(params / 2) ** 2)


def unequal_wells(params: Float[Any, "1"]) -> Float[Any, ""]:
    """A flat and a sharp well of equal height 0.05, curvatures 1 and 9, with minima at 0 and 1."""
    x = jnp.sum(params)
    return 0.05 + 0.5 * (x * (1 - x) * (1 + 2 * x**2)) ** 2


def require_above_critical_noise(noise_ratio: float, exponent: float, codimension: int) -> None:
    """Raise `ImproperLawError` unless L^(−exponent) is integrable at the zero-loss set."""
    if codimension <= 2:
        raise ImproperLawError(
            "L^-alpha is not integrable at the zero-loss set: no noise_ratio works for "
            f"codimension {codimension} <= 2"
        )
    if not exponent < codimension / 2:
        raise ImproperLawError(
            f"L^-alpha is not integrable at the zero-loss set: alpha = {exponent:.4g} must be "
            f"below q/2 = {codimension / 2:.4g}; noise_ratio {noise_ratio:.4g} must exceed "
            f"4/(q-2) = {critical_noise_ratio(codimension):.4g} for codimension q = {codimension}; "
            "below it SGD collapses onto the set and the end law depends on the start"
        )


def require_tail(exponent: float, growth: float, dimension: int) -> None:
    """Raise `ImproperLawError` unless L^(−exponent) with L ~ |θ|^growth settles at infinity."""
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


def _log_scaled_bessel(log_t: Any, xp: Any) -> Any:
    """log(e^(−t) I₀(t)); by its asymptotic series where t itself would overflow."""
    t = xp.exp(xp.minimum(log_t, 8.0))
    inverse = xp.exp(-xp.maximum(log_t, 8.0))
    series = xp.log1p(inverse / 8 + 9 * inverse**2 / 128)
    far = -0.5 * (np.log(2 * np.pi) + log_t) + series
    near = xp.log(traced_i0e(t) if xp is jnp else i0e(t))
    return xp.where(log_t > 8.0, far, near)
