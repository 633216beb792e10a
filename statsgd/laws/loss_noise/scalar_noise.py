"""Laws of SGD whose noise is isotropic and depends on the loss alone, C = σ φ(L) I."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, is_traced, one_of, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.setting import FlatLoss, loss_scaled_noise
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

#: Power of 1/D(θ) that each reading of a stochastic integral puts into the density.
READINGS = {"ito": 1.0, "stratonovich": 0.5, "anti_ito": 0.0}

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


class LossPotentialLaw(PotentialLaw):
    """A law whose density is a function of the loss alone, p(θ) = g(L(θ)).

    Near the zero-loss set 𝓜 the mass of {L < s} goes as s^(q/2), q the codimension of 𝓜; far out,
    where L ~ |θ|^p, as s^(d/p). So g ~ L^(−a) is integrable at 𝓜 iff a < q/2 and at infinity iff
    a > d/p. A final class gives `potential` and the two exponents.

    **Fields:** `loss`, a JAX function of flat parameters; `num_params` d; `codimension` q (None if
    the loss has no zero); `growth` p, the power with which the loss grows at infinity;
    `noise_ratio` ε = ησ.
    """

    loss: Callable[[Float[Any, " d"]], Float[Any, ""]]
    num_params: int = eqx.field(static=True)
    codimension: int | None = eqx.field(static=True)
    growth: Float[Any, ""]
    noise_ratio: Float[Any, ""]

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.num_params

    @abc.abstractmethod
    def exponents(self) -> tuple[float, float]:
        """The power a of g ~ L^(−a) at L → 0 and at L → ∞ (infinite: faster than any power)."""

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the density is integrable at 𝓜 and at infinity."""
        if is_traced(self.noise_ratio, self.growth):
            return
        at_zero, at_infinity = self.exponents()
        if self.codimension is not None:
            require_integrable_at_zero(at_zero, self.codimension)
        tail, d = at_infinity * float(self.growth), self.dimension
        if not tail > d:
            raise ImproperLawError(
                f"the law has a non-normalisable tail: exponent*p = {tail:.4g} must exceed dim = "
                f"{d}, where the density falls as L^-exponent and L grows as |params|^p"
            )


def require_integrable_at_zero(exponent: float, codimension: int) -> None:
    """Raise `ImproperLawError` unless L^(−exponent) is integrable at a set of this codimension."""
    if not exponent < codimension / 2:
        raise ImproperLawError(
            f"L^-{exponent:.4g} is not integrable at the zero-loss set: the exponent must be below "
            f"q/2 = {codimension / 2:.4g} for codimension q = {codimension}"
        )


class LossProfile(eqx.Module):
    """φ(L) = (L + c₀)/(1 + L/L_sat), the profile of `noise.LossScaled`."""

    floor: Float[Any, ""]
    saturation: Float[Any, ""]

    def __call__(self, loss: Float[Any, ""]) -> Float[Any, ""]:
        """φ(L)."""
        return (loss + self.floor) / (1 + loss / self.saturation)


@register
class ScalarNoiseLaw(LossPotentialLaw):
    """Stationary law of SGD with noise C = σ φ(L) I for any positive profile φ of the loss.

        p(θ) ∝ φ(L)^(−1) exp(−(2/ε) ∫^L ds/φ(s)),       ε = ησ

    φ = 1 is the Gibbs law, φ = s the pure power `LossScaledLaw`, φ = s + c₀ and φ = s/(1 + s/L_sat)
    are `FlooredPowerOfLossLaw` and `SaturatedPowerOfLossLaw`. The probability flux vanishes, so
    the law is exact for the SDE in any dimension and for any loss; the chain differs by O(η).

    **Arguments:** `loss`, `dimension`, `codimension`, `growth` as in `LossPotentialLaw`;
    `noise_profile` φ, a JAX function with φ > 0 for L > 0 (unit of loss where C = σφ);
    `noise_ratio` ε > 0; `loss_scale`, a typical loss, about which the integral is resolved;
    `reading` of the SDE: `"ito"` is SGD, `"stratonovich"` and `"anti_ito"` replace φ^(−1) by
    φ^(−1/2) and 1.

    Properness is judged from the local exponents at 10^(−10) and 10^8 loss scales.

    Source: derived; loss-scaled noise is Wojtowytsch (2021), arXiv:2106.02588.
    """

    setting: ClassVar[str] = "SGD, isotropic noise that is any function of the loss"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain"
    citation: ClassVar[str] = "derived, for noise as in Wojtowytsch (2021), arXiv:2106.02588"

    noise_profile: Callable[[Float[Any, ""]], Float[Any, ""]]
    loss_scale: Float[Any, ""]
    reading: str = eqx.field(static=True)
    noisy_at_zero: bool = eqx.field(static=True)

    def __init__(
        self,
        loss: Callable,
        dimension: int,
        noise_profile: Callable,
        noise_ratio: Any,
        *,
        codimension: int | None,
        growth: Any = 2.0,
        loss_scale: Any = 1.0,
        reading: str = "ito",
    ):
        self.loss = loss
        self.num_params = count("dimension", dimension)
        self.codimension = None if codimension is None else count("codimension", codimension)
        self.growth = positive("growth", growth)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.noise_profile = noise_profile
        self.loss_scale = positive("loss_scale", loss_scale)
        self.reading = one_of("reading", reading, READINGS)
        with jax.ensure_compile_time_eval():
            self.noisy_at_zero = bool(noise_profile(jnp.zeros(())) > 0)

    @classmethod
    def from_sgd(
        cls,
        problem: Problem,
        sgd: SGD,
        *,
        codimension: int | None,
        growth: Any = 2.0,
        loss_scale: Any = 1.0,
    ) -> Self:
        """The law for `sgd` with any `LossScaled` noise, also with both floor and saturation.

        Raises `ValueError` for other noise, momentum or weight decay.
        """
        noise = loss_scaled_noise(sgd)
        return cls(
            FlatLoss(problem),
            problem.dimension,
            LossProfile(noise.floor, noise.saturation),
            sgd.learning_rate * noise.strength,
            codimension=codimension,
            growth=growth,
            loss_scale=loss_scale,
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Noise that grows as the root of the loss, in one and two dimensions."""
        return (
            cls(half_square, 1, root_profile, 0.8, codimension=1),
            cls(half_square, 2, root_profile, 0.8, codimension=2),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise that vanishes with the loss faster than the law can bear, and a heavy tail."""
        return (
            cls(half_square, 2, lambda s: s, 0.8, codimension=2),
            cls(half_square, 3, lambda s: 1 + s, 8.0, codimension=3),
        )

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = log φ(L) + (2/ε)∫^L ds/φ(s)."""
        loss = self.loss(params)
        prefactor = READINGS[self.reading] * jnp.log(self.noise_profile(loss))
        return prefactor + 2 / self.noise_ratio * self.resistance(loss)

    def resistance(self, loss: Float[Any, ""]) -> Float[Any, ""]:
        """∫ ds/φ(s) up to `loss`, from zero where φ(0) > 0 and from `loss_scale` otherwise.

        Gauss–Legendre in log(1 + s/loss_scale) or log(s/loss_scale).
        """
        scale, from_zero = self.loss_scale, self.noisy_at_zero
        end = jnp.log1p(loss / scale) if from_zero else jnp.log(loss / scale)
        # Nodes in the precision of the loss: a NumPy constant that is traced in both precisions
        # would keep that of the first.
        nodes, weights = (jnp.asarray(part, dtype=end.dtype) for part in (_NODES, _WEIGHTS))
        logs = end * (1 + nodes) / 2
        s = scale * (jnp.expm1(logs) if from_zero else jnp.exp(logs))
        integrand = scale * jnp.exp(logs) / jax.vmap(self.noise_profile)(s)
        return end * jnp.sum(weights * integrand) / 2

    def exponents(self) -> tuple[float, float]:
        """−d log p/d log L far below and far above the loss scale."""

        def local(log_loss):
            slope = jax.grad(lambda x: jnp.log(self.noise_profile(jnp.exp(x))))(log_loss)
            ratio = jnp.exp(log_loss) / self.noise_profile(jnp.exp(log_loss))
            return READINGS[self.reading] * slope + 2 / self.noise_ratio * ratio

        scale = math.log(float(self.loss_scale))
        # Inside jit the numbers are concrete all the same: evaluate them there and then.
        with jax.ensure_compile_time_eval():
            low, high = (
                float(in_double_precision(local, np.float64(scale + shift)))
                for shift in (math.log(1e-10), math.log(1e8))
            )
        return low, high


def half_square(params: Float[Any, " d"]) -> Float[Any, ""]:
    """½|θ|²."""
    return 0.5 * jnp.sum(params**2)


def root_profile(loss: Float[Any, ""]) -> Float[Any, ""]:
    """√(1 + L)."""
    return jnp.sqrt(1 + loss)
