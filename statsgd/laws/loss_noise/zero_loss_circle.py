"""A circle of zero loss with varying normal curvature, under loss-scaled noise that saturates."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import i0e
from jaxtyping import Float
from scipy.special import ive

from statsgd.arguments import count, one_of, positive, real
from statsgd.laws.bases.potential import density_model
from statsgd.laws.law import Law, register
from statsgd.laws.loss_noise.flatness_functionals import flatness_weight
from statsgd.laws.loss_noise.loss_potential import require_above_critical_noise
from statsgd.laws.loss_noise.saturated_loss import SaturatedLoss
from statsgd.laws.loss_noise.torus import are_angles
from statsgd.precision import formula


@register
class ZeroLossCircleLaw(Law):
    """Stationary law of SGD about a circle of zero loss whose sharpness varies along it.

    θ = (ϕ, y), ϕ an angle in (−π, π], y ∈ ℝ^q, L = ½ e^(a cos ϕ)|y|², C = σL/(1 + L/L_sat) I.
    Whatever the law g(L), the marginal of ϕ is ∝ h(ϕ)^(−q/2), von Mises about π with
    concentration qa/2, independent of L (the mixture of `SaturatingLossScaledLaw`). Near the
    circle three answers differ: conditional on the LOSS tube L < s it stays qa/2; conditional on
    the DISTANCE tube |y| < δ → 0 the concentration becomes αa (weight A_α(H)); Gibbs would be
    uniform in that tube.

    **Arguments:** `codimension` q ≥ 3, `modulation` a, `noise_ratio` ε = ησ, `saturation` L_sat.

    Source: derived; the noise is Wojtowytsch (2021), arXiv:2106.02588.

    >>> import jax
    >>> law = ZeroLossCircleLaw(codimension=3, modulation=1.0, noise_ratio=6.0, saturation=1.0)
    >>> law.draw(jax.random.key(0), (3,)).shape  # (ϕ, y₁, y₂, y₃)
    (3, 4)
    """

    setting: ClassVar[str] = "SGD about a circle of zero loss, noise σL/(1 + L/L_sat)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain"
    citation: ClassVar[str] = "derived, for noise as in Wojtowytsch (2021), arXiv:2106.02588"

    codimension: int = eqx.field(static=True)
    modulation: Float[Any, ""]
    noise_ratio: Float[Any, ""]
    saturation: Float[Any, ""]

    def __init__(self, codimension: int, modulation: Any, noise_ratio: Any, saturation: Any):
        self.codimension = count("codimension", codimension)
        self.modulation = real("modulation", modulation, allowed="finite", valid=np.isfinite)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.saturation = positive("saturation", saturation)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Three normal directions, and ten."""
        return cls(3, 1.0, 8.0, 1.0), cls(10, 0.4, 0.8, 0.5)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise below the critical ratio."""
        return (cls(3, 1.0, 3.5, 1.0),)

    @property
    def dimension(self) -> int:
        """1 + q."""
        return 1 + self.codimension

    @property
    def loss_law(self) -> SaturatedLoss:
        """The law of L."""
        return SaturatedLoss(self.codimension, self.noise_ratio, self.saturation)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ε > 4/(q−2)."""
        require_above_critical_noise(self.noise_ratio, self.codimension)

    @formula
    def curvature(self, angle: Any) -> Any:
        """h(ϕ) = e^(a cos ϕ)."""
        return jnp.exp(self.modulation * jnp.cos(angle))

    def concentration(self, tube: str = "loss") -> float:
        """Von Mises concentration of ϕ about π: qa/2 (`"loss"` tube and marginal) or αa
        (`"distance"` tube)."""
        self.require_proper()
        one_of("tube", tube, ("loss", "distance"))
        power = self.codimension / 2 if tube == "loss" else self.loss_law.loss_exponent
        return float(power * self.modulation)

    def mean_cosine(self, tube: str = "loss") -> float:
        """E cos ϕ = −I₁(κ)/I₀(κ): negative where the flat side, ϕ = π, is preferred."""
        kappa = self.concentration(tube)
        return float(-ive(1, kappa) / ive(0, kappa))

    def point_weight(self, angle: float, tube: str = "loss") -> float:
        """Unnormalised weight of a point of the circle: det(H)^(−1/2), or A_α(H)."""
        h = np.full(self.codimension, float(self.curvature(angle)))
        exponent = self.codimension / 2 if tube == "loss" else self.loss_law.loss_exponent
        return flatness_weight(h, exponent)

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `angle`, `loss` and `direction`; `params` = (ϕ, y). With `obs` the density."""
        self.require_proper()
        q = self.codimension
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        # Concentration must not be negative: a < 0 moves the flat side to ϕ = 0.
        kappa = q * self.modulation / 2
        flat_side = jnp.where(kappa < 0, 0.0, jnp.pi)
        angle = numpyro.sample("angle", dist.VonMises(flat_side, jnp.abs(kappa)))
        loss = numpyro.sample("loss", self.loss_law.distribution())
        normal = numpyro.sample("direction", dist.Normal(0, 1).expand([q]).to_event(1))
        radius = jnp.sqrt(2 * loss / self.curvature(angle))
        y = radius * normal / jnp.linalg.norm(normal)
        numpyro.deterministic("params", jnp.concatenate([angle[None], y]))

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        loss = 0.5 * self.curvature(params[0]) * jnp.sum(params[1:] ** 2)
        kappa = jnp.abs(self.codimension * self.modulation / 2)
        log_circle = jnp.log(2 * jnp.pi * i0e(kappa)) + kappa
        value = self.loss_law.log_profile(loss) - log_circle - self.loss_law.log_mass()
        return jnp.where(are_angles(params[:1]), value, -jnp.inf)

    def _mean(self, variable: str) -> Float[Any, " d"]:
        return np.zeros(self.dimension)  # by symmetry, also of the angle about 0
