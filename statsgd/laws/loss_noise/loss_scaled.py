"""Pure loss-scaled noise: the stationary law is a power of the loss."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float

from statsgd.arguments import one_of
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import register
from statsgd.laws.loss_noise.loss_potential import (
    LossPotentialLaw,
    require_above_critical_noise,
    require_tail,
    unequal_wells,
)
from statsgd.laws.loss_noise.setting import READINGS, loss_exponent, loss_scaled_noise
from statsgd.laws.loss_noise.torus import (
    ANGLES,
    TorusPowerOfLossLaw,
    are_angles,
    cosine_loss,
)
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss


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

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> sgd = SGD(1.0, noise.LossScaled(8.0))
    >>> bowl = problems.quadratic(np.eye(1))
    >>> float(LossScaledLaw.from_sgd(bowl, sgd, codimension=3).noise_ratio)  # ησ
    8.0
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
        super().__init__(loss, dimension, noise_ratio, codimension, growth)
        self.periodic = bool(periodic)
        self.reading = one_of("reading", reading, READINGS)
        self._complete((-np.pi, np.pi) if self.periodic else None)

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
    def examples(cls) -> Iterable[Self]:
        """Wells without zero loss in one dimension, and a point of zero loss on the 3-torus."""
        yield cls(unequal_wells, 1, 0.5, codimension=None)
        yield cls(cosine_loss, 3, 8.0, codimension=3, periodic=True)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Collapse, a codimension too low for any noise, a heavy tail and an explosion."""

        return (
            cls(cosine_loss, 3, 3.0, codimension=3, periodic=True),
            cls(cosine_loss, 2, 30.0, codimension=2, periodic=True),
            cls(cosine_loss, 3, 8.0, codimension=3),
            cls(_sixth_power, 12, 1.5, codimension=12, growth=6.0),
        )

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε (Itô), ½ + 2/ε (Stratonovich), 2/ε (anti-Itô)."""
        return loss_exponent(self.noise_ratio, self.reading)

    def exponents(self) -> tuple[Any, Any]:
        """α at both ends; the torus has no infinity."""
        return self.loss_exponent, np.inf if self.periodic else self.loss_exponent

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = α log L."""
        return self.loss_exponent * jnp.log(self.loss(params))

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        value = super()._log_density(params)
        return jnp.where(are_angles(params), value, -jnp.inf) if self.periodic else value

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """Angles on the torus, else all of ℝᵈ."""
        return ANGLES if self.periodic else super().constraint

    def require_proper(self) -> None:
        """Raise `ImproperLawError` outside the conditions at 𝓜 and, unless periodic, at ∞."""
        require_above_critical_noise(self.noise_ratio, self.codimension, self.reading)
        if not self.periodic:
            require_tail(self.loss_exponent, self.growth, self.dimension)


def _sixth_power(params: Float[Any, " d"]) -> Float[Any, ""]:
    return jnp.sum(params**2) ** 3
