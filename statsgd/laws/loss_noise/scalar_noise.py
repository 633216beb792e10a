"""Laws of SGD whose noise is isotropic and depends on the loss alone, C = σ φ(L) I."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced, one_of, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.antiderivative import Antiderivative
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.loss_potential import (
    LossPotentialLaw,
    half_square,
    require_integrable_at_zero,
)
from statsgd.laws.loss_noise.setting import READINGS, loss_scaled_noise
from statsgd.precision import formula, over_points
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss

# Where traced.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_FARTHEST = 100.0  # of log L, in loss scales
_RESOLVED = 1e-10  # error of the potential in a cell
_DEEP = 1000.0  # potential above which there is no mass


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

    The integral is adaptive, and its error part of `error_estimate`; in several dimensions that is
    the error of the potential. Where the profile is traced it takes 64 nodes of Gauss–Legendre.

    Properness is judged from the local exponents at 10^(−10) and 10^8 loss scales.

    Source: derived; loss-scaled noise is Wojtowytsch (2021), arXiv:2106.02588.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> sgd = SGD(0.01, noise.LossScaled(80.0, floor=0.3, saturation=2.0))
    >>> law = ScalarNoiseLaw.from_sgd(problems.quadratic(np.eye(2)), sgd, codimension=2)
    >>> float(law.noise_ratio)
    0.8
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
    line: Antiderivative | None
    """∫ ds/φ in the coordinate `_place` of the loss; None where traced."""

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
        self.line = None
        if not is_traced(self.noise_profile, self.loss_scale):
            self.line = self._integrated()
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
    def examples(cls) -> Iterable[Self]:
        """Noise that grows as the root of the loss, in one and two dimensions."""
        yield cls(half_square, 1, root_profile, 0.8, codimension=1)
        yield cls(half_square, 2, root_profile, 0.8, codimension=2)

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

        In the coordinate log(1 + s/loss_scale) or log(s/loss_scale).
        """
        scale, from_zero = self.loss_scale, self.noisy_at_zero
        end = jnp.log1p(loss / scale) if from_zero else jnp.log(loss / scale)
        if self.line is not None:
            return self.line.at(end, self._resistance_slope)
        # Nodes in the precision of the loss: a NumPy constant that is traced in both precisions
        # would keep that of the first.
        nodes, weights = (jnp.asarray(part, dtype=end.dtype) for part in (_NODES, _WEIGHTS))
        values = jax.vmap(self._resistance_slope)(end * (1 + nodes) / 2)
        return end * jnp.sum(weights * values) / 2

    def _resistance_slope(self, place: Float[Any, ""]) -> Float[Any, ""]:
        """The derivative of ∫ ds/φ in the coordinate of the loss."""
        s = self.loss_scale * (jnp.expm1(place) if self.noisy_at_zero else jnp.exp(place))
        return self.loss_scale * jnp.exp(place) / self.noise_profile(s)

    def _integrated(self) -> Antiderivative:
        def slope(place: Float[Any, " n"]) -> Float[Any, " n"]:
            return over_points(_slope_at, place[:, None], self)

        ratio = 1.0 if is_traced(self.noise_ratio) else float(self.noise_ratio)
        low = 0.0 if self.noisy_at_zero else -_FARTHEST
        return Antiderivative.of(slope, low, _FARTHEST, ratio / 2 * _RESOLVED)

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """That of the table, if there is one, and that of the potential."""
        if self.line is None or is_traced(self.noise_ratio):
            return super().error_estimate
        rise = 2 / self.noise_ratio
        there = np.abs(rise * self.line.sums) < _DEEP
        found = rise * np.sum(np.where(there, self.line.errors, 0.0))
        return found if self.table is None else found + self.table.error_estimate

    def exponents(self) -> tuple[Any, Any]:
        """−d log p/d log L at zero loss, or far below the loss scale, and far above it."""
        return 0.0 if self.noisy_at_zero else self.local_exponents[0], self.local_exponents[1]

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


def _slope_at(place: Float[Any, " 1"], law: ScalarNoiseLaw) -> Float[Any, ""]:
    return law._resistance_slope(place[0])


@formula
def _local_exponents(profile: Callable, noise_ratio: Any, scale: Any, prefactor: Any) -> Any:
    def local(log_loss):
        slope = jax.grad(lambda x: jnp.log(profile(jnp.exp(x))))(log_loss)
        return prefactor * slope + 2 / noise_ratio * jnp.exp(log_loss) / profile(jnp.exp(log_loss))

    return jax.vmap(local)(jnp.log(scale) + jnp.log(jnp.array([1e-10, 1e8])))


def root_profile(loss: Float[Any, ""]) -> Float[Any, ""]:
    """√(1 + L)."""
    return jnp.sqrt(1 + loss)
