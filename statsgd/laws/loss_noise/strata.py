"""A zero-loss set with two strata: a segment and a point, of codimension three and four."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import positive
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.loss_potential import require_above_critical_noise
from statsgd.laws.loss_noise.saturated_loss import SaturatedLoss
from statsgd.precision import formula

_KNOTS = 4001


@register
class StrataLaw(PotentialLaw):
    """Stationary law of SGD on a loss that vanishes on a segment and at a point.

    θ = (y, z) ∈ ℝ³ × ℝ, L = ½|y|² + ½w(z), w = dist(z, [0, 1])² for z < 1.5 and (z−2)² above;
    C = σL/(1 + L/L_sat) I. Proper for ε = ησ > 4. For 2 < ε < 4 the segment (codimension 3)
    absorbs while the point (codimension 4) repels; for ε < 2 both absorb. As ε ↓ 4 all mass goes
    to the segment: loss-scaled noise prefers low codimension, whatever the curvatures.

    Draws are exact, though not through the model: beside the segment y is that of the
    `SaturatingLossScaledLaw` in three dimensions, beyond its ends and about the point (y, z) is
    that in four, with what falls beyond z = 1.5 drawn again.

    **Arguments:** `noise_ratio` ε > 0, `saturation` L_sat > 0. Source: derived.

    >>> import jax
    >>> law = StrataLaw(noise_ratio=6.0, saturation=1.0)
    >>> law.draw(jax.random.key(0), (3,)).shape, round(float(law.segment_share), 2)
    ((3, 4), 0.28)
    """

    setting: ClassVar[str] = "SGD, a segment and a point of zero loss, noise σL/(1 + L/L_sat)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain"
    citation: ClassVar[str] = "derived, for noise as in Wojtowytsch (2021), arXiv:2106.02588"
    exact_draws: ClassVar[bool] = True
    normalized: ClassVar[bool] = True

    noise_ratio: Float[Any, ""]
    saturation: Float[Any, ""]
    log_partition: Float[Any, ""]
    """log Z."""
    segment_share: Float[Any, ""]
    """P(z ∈ [0, 1])."""

    def __init__(self, noise_ratio: Any, saturation: Any = 1.0):
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.saturation = positive("saturation", saturation)
        try:
            self.require_proper()
            found = _partition(self._loss_law)
        except ImproperLawError:
            found = np.float64(np.nan), np.float64(np.nan)
        self.log_partition, self.segment_share = found

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Well above the critical noise of the segment."""
        return (cls(8.0),)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """The segment absorbs."""
        return (cls(3.0),)

    @property
    def dimension(self) -> int:
        """4."""
        return 4

    @property
    def _loss_law(self) -> SaturatedLoss:
        return SaturatedLoss(3, self.noise_ratio, self.saturation)

    @staticmethod
    def loss(params: Float[Any, "4"]) -> Float[Any, ""]:
        """L(y, z)."""
        z = params[3]
        to_segment = jnp.maximum(jnp.maximum(-z, z - 1), 0.0)
        distance = jnp.where(z < 1.5, to_segment, z - 2)
        return 0.5 * (jnp.sum(params[:3] ** 2) + distance**2)

    def potential(self, params: Float[Any, "4"]) -> Float[Any, ""]:
        """U = −log[(1 + L/L_sat) L^(−α) e^(−bL)]."""
        return -self._loss_law.log_profile(self.loss(params))

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ε > 4, the critical ratio of the segment."""
        require_above_critical_noise(self.noise_ratio, 3)

    def _log_normalizer(self) -> Float[Any, ""]:
        return self.log_partition

    def segment_probability(self) -> float:
        """P(z ∈ [0, 1])."""
        self.require_proper()
        return float(self.segment_share)

    def point_probability(self) -> float:
        """P(z > 1.5) = (1 − P(z ∈ [0, 1]))/2, the basin of the point."""
        return (1 - self.segment_probability()) / 2

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Float[Any, "number 4"]]:
        # By rejection: at least half of all proposals are taken.
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        found = np.empty((0, 4))
        while len(found) < number:
            found = np.concatenate([found, self._propose(rng, number + 16)])
        return {"params": found[:number]}

    def _propose(self, rng: np.random.Generator, number: int) -> Float[Any, "n 4"]:
        """Draws of the segment with two whole balls of codimension four, less the overlap."""
        ratio, saturation = float(self.noise_ratio), float(self.saturation)
        plane, ball = (SaturatedLoss(q, ratio, saturation) for q in (3, 4))
        # One ball is cut in two by the segment, the other is that of the point.
        log_odds = np.log(2) + ball.log_mass() - plane.log_mass()
        beside = rng.random(number) < 1 / (1 + np.exp(log_odds))
        normal = rng.normal(size=(number, 4))
        normal[beside, 3] = 0.0
        loss = np.where(beside, plane.sample(rng, number), ball.sample(rng, number))
        params = normal * np.sqrt(2 * loss / np.sum(normal**2, axis=1))[:, None]
        along = params[:, 3]
        at_point = ~beside & (rng.random(number) < 0.5)
        params[:, 3] = np.select(
            [beside, at_point, along > 0], [rng.random(number), 2 + along, 1 + along], along
        )
        # The half balls about z = 1 and z = 2 end where they meet.
        inside = np.where(at_point, params[:, 3] >= 1.5, params[:, 3] < 1.5)
        return params[inside]


@formula
def _partition(law: SaturatedLoss) -> tuple[Any, Any]:
    """log Z and P(z ∈ [0, 1]): the segment with two whole balls, less where the balls overlap.

    Both balls of codimension four end halfway between, at z = 1.5, each without the cap beyond, at
    loss L over more than the angle gd(u) from the axis for L = cosh²(u)/8. The integrand is even
    and analytic in u and falls off doubly exponentially: the trapezoidal rule converges faster than
    any power.
    """
    plane, ball = (law._replace(codimension=q).log_mass() for q in (3, 4))
    u = jnp.linspace(0.0, jnp.arcsinh(jnp.sqrt(8 * 80 / law.rate)), _KNOTS)
    step, edge = u[1] - u[0], jnp.where(u == 0, 0.5, 1.0)
    loss, sharp = jnp.cosh(u) ** 2 / 8, jnp.tanh(u)
    # ∫ √(2L − x²) dx over |x| > ½ is L (gd(u) − tanh u sech u), and dL = cosh u sinh u du/4.
    beyond = loss * (jnp.arctan(jnp.sinh(u)) - sharp / jnp.cosh(u))
    caps = jnp.exp(law.log_profile(loss)) * beyond * jnp.cosh(u) * jnp.sinh(u) / 4
    log_caps = jnp.log(2 * 4 * jnp.pi * step * jnp.sum(edge * caps))
    balls = ball + jnp.log(2 - jnp.exp(log_caps - ball))
    return jnp.logaddexp(plane, balls), jnp.exp(plane - jnp.logaddexp(plane, balls))
