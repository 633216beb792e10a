"""Laws of SGD whose noise is isotropic and depends on the loss alone, C = σ φ(L) I."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced, one_of, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.loss_potential import (
    LossPotentialLaw,
    half_square,
    require_integrable_at_zero,
)
from statsgd.laws.loss_noise.setting import READINGS, loss_scaled_noise
from statsgd.precision import formula
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


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
    local_exponents: Float[Any, " 2"]
    """−d log p/d log L far below and far above the loss scale."""

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
        super().__init__(loss, dimension, noise_ratio, codimension, growth)
        self.noise_profile = noise_profile
        self.loss_scale = positive("loss_scale", loss_scale)
        self.reading = one_of("reading", reading, READINGS)
        # Inside jit the numbers are concrete all the same: evaluate them there and then.
        with jax.ensure_compile_time_eval():
            self.noisy_at_zero = bool(noise_profile(jnp.zeros(())) > 0)
            self.local_exponents = _local_exponents(
                noise_profile, self.noise_ratio, self.loss_scale, READINGS[self.reading]
            )
        self._complete()

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

    def exponents(self) -> tuple[Any, Any]:
        """−d log p/d log L far below and far above the loss scale."""
        return self.local_exponents[0], self.local_exponents[1]

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the density is integrable at 𝓜 and at infinity."""
        if is_traced(self.local_exponents, self.growth):
            return
        if self.codimension is not None:
            require_integrable_at_zero(self.exponents()[0], self.codimension)
        if not self.tail_exponent() > self.dimension:
            raise ImproperLawError(
                f"the law has a non-normalisable tail: exponent*p = {self.tail_exponent():.4g} "
                f"must exceed dim = {self.dimension}, where the density falls as L^-exponent and L "
                "grows as |params|^p"
            )


@formula
def _local_exponents(profile: Callable, noise_ratio: Any, scale: Any, prefactor: Any) -> Any:
    def local(log_loss):
        slope = jax.grad(lambda x: jnp.log(profile(jnp.exp(x))))(log_loss)
        return prefactor * slope + 2 / noise_ratio * jnp.exp(log_loss) / profile(jnp.exp(log_loss))

    return jax.vmap(local)(jnp.log(scale) + jnp.log(jnp.array([1e-10, 1e8])))


def root_profile(loss: Float[Any, ""]) -> Float[Any, ""]:
    """√(1 + L)."""
    return jnp.sqrt(1 + loss)
