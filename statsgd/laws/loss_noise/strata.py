"""A zero-loss set with two strata: a segment and a point, of codimension three and four."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import is_traced, positive
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import register
from statsgd.laws.loss_noise.loss_scaled import require_above_critical_noise
from statsgd.laws.loss_noise.saturating import SaturatedLoss

_KNOTS = 100_001


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
    """

    setting: ClassVar[str] = "SGD, a segment and a point of zero loss, noise σL/(1 + L/L_sat)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain"
    citation: ClassVar[str] = "derived, for noise as in Wojtowytsch (2021), arXiv:2106.02588"
    normalized: ClassVar[bool] = True

    noise_ratio: Float[Any, ""]
    saturation: Float[Any, ""]

    def __init__(self, noise_ratio: Any, saturation: Any = 1.0):
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.saturation = positive("saturation", saturation)

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
        return -self._loss_law.log_profile(self.loss(params), jnp)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ε > 4, the critical ratio of the segment."""
        if not is_traced(self.noise_ratio):
            alpha = float(self._loss_law.loss_exponent)
            require_above_critical_noise(float(self.noise_ratio), alpha, 3)

    def log_normalizer(self) -> Float[Any, ""]:
        """log Z, by quadrature over the loss."""
        # On {L} the volume of y is 4π√(2L − s²) dL at distance s from the zero-loss set along z.
        segment, rest = self._masses()
        mass = segment + rest
        return (jnp if is_traced(mass) else np).log(4 * np.pi * mass)

    def segment_probability(self) -> float:
        """P(z ∈ [0, 1])."""
        self.require_proper()
        segment, rest = self._masses()
        return float(segment / (segment + rest))

    def point_probability(self) -> float:
        """P(z > 1.5) = (1 − P(z ∈ [0, 1]))/2, the basin of the point."""
        return (1 - self.segment_probability()) / 2

    def draw_variables(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> Mapping[str, Float[Any, "*shape 4"]]:
        """Exact independent draws, by rejection: at least half of all proposals are taken."""
        self.require_proper()
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        number = int(np.prod(shape, dtype=int))
        found = np.empty((0, 4))
        while len(found) < number:
            found = np.concatenate([found, self._propose(rng, number + 16)])
        return {"params": jnp.asarray(found[:number].reshape(*shape, 4), dtype=float)}

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

    def _masses(self) -> tuple[Any, Any]:
        """∫ g √(2L) dL and ∫ g [πL + 2J(L)] dL, by the trapezoidal rule in log L."""
        law = self._loss_law
        xp = jnp if is_traced(law.shape, law.rate) else np
        log_loss = xp.linspace(-42 / law.shape, xp.log(80 / law.rate), _KNOTS)
        step = log_loss[1] - log_loss[0]
        # The first factors stay in logarithms: for small a the loss itself underflows.
        log_weight = law.log_profile(xp.exp(log_loss), xp, log_loss) + log_loss
        log_radius = (np.log(2) + log_loss) / 2
        segment = xp.sum(xp.exp(log_weight + log_radius))
        # J(L) = ∫₀^s √(2L − x²) dx with s = min(½, √(2L)) = √(2L) sin(angle)
        angle = xp.arcsin(xp.exp(xp.minimum(np.log(0.5) - log_radius, 0)))
        caps = 2 * (angle + xp.sin(angle) * xp.cos(angle))
        rest = xp.sum(xp.exp(log_weight + log_loss) * (np.pi + caps))
        return step * segment, step * rest
