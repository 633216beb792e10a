"""The pure power law of a cosine loss on the torus: a mixture with exact draws."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln, i0e, i1e, logsumexp
from jaxtyping import Bool, Float

from statsgd.arguments import count, one_of, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.loss_potential import require_above_critical_noise
from statsgd.laws.loss_noise.setting import READINGS, loss_exponent, steepness
from statsgd.precision import formula
from statsgd.problems import Problem

_KNOTS = 20_001
_KNOTS_OF_DRAWS = 4097
#: Concentration above which a von Mises draw is a scaled one at this concentration.
_CONCENTRATED = 1e3

#: Where each parameter of a periodic law lies.
ANGLES = dist.constraints.independent(dist.constraints.interval(-np.pi, np.pi), 1)


@register
class TorusPowerOfLossLaw(PotentialLaw):
    """The pure power law of L(θ) = Σ_{i≤q} (1 − cos θ_i) on the q-torus, with exact draws.

    L^(−α) = ∫ t^(α−1) e^(−tL) dt/Γ(α), so the angles are independent von Mises variables of one
    random concentration t with density ∝ t^(α−1) (e^(−t)I₀(t))^q, and

        Z = (2π)^q/Γ(α) ∫₀^∞ t^(α−1) (e^(−t)I₀(t))^q dt,     E L = q E[1 − I₁(t)/I₀(t)]

    Proper iff α < q/2. t is drawn by inversion on a fine grid of log t. Steps must be short next to
    the circle and next to the way to collapse: η/(1 − 2α/q) ≤ 0.1 and ηε ≤ 0.1 keep the total
    variation of L from that of the chain below 5 % (measured for q = 3 and 5). **Arguments:**
    `codimension` q, `noise_ratio` ε = ησ, `reading` as in `LossScaledLaw`.

    Source: derived; the noise is Wojtowytsch (2021), arXiv:2106.02588.
    """

    setting: ClassVar[str] = "SGD on a cosine loss on the torus, noise proportional to the loss"
    exactness: ClassVar[str] = (
        "exact for its SDE; for the chain within 5 % where η/(1 − 2α/q) ≤ 0.1 and ηε ≤ 0.1"
    )
    citation: ClassVar[str] = "derived, for noise as in Wojtowytsch (2021), arXiv:2106.02588"
    exact_draws: ClassVar[bool] = True
    normalized: ClassVar[bool] = True

    codimension: int = eqx.field(static=True)
    noise_ratio: Float[Any, ""]
    reading: str = eqx.field(static=True)
    log_partition: Float[Any, ""]
    """log Z."""
    expected_loss: Float[Any, ""]

    def __init__(self, codimension: int, noise_ratio: Any, reading: str = "ito"):
        self.codimension = count("codimension", codimension)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.reading = one_of("reading", reading, READINGS)
        try:
            self.require_proper()
            found = _partition(self.loss_exponent, self.codimension)
        except ImproperLawError:
            found = np.float64(np.nan), np.float64(np.nan)
        self.log_partition, self.expected_loss = found

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
        return loss_exponent(self.noise_ratio, self.reading)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless α < q/2."""
        require_above_critical_noise(self.noise_ratio, self.codimension, self.reading)

    def small_numbers(self, problem: Problem, sgd: SGD) -> Sequence[SmallNumber]:
        """η/(1 − 2α/q), for curvature one, and ηε."""
        step = float(sgd.learning_rate)
        way = steepness(self.noise_ratio, self.codimension, self.reading)
        return (
            SmallNumber("η ÷ (1 − 2α/q)", step / way, 0.1),
            SmallNumber("ηε", step * float(self.noise_ratio), 0.1),
        )

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = α log L."""
        return self.loss_exponent * jnp.log(cosine_loss(params))

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        return jnp.where(are_angles(params), super()._log_density(params), -jnp.inf)

    def _log_normalizer(self) -> Float[Any, ""]:
        return self.log_partition

    def mean_loss(self) -> float:
        """E L."""
        self.require_proper()
        return float(self.expected_loss)

    def _mean(self, variable: str) -> Float[Any, " d"]:
        return np.zeros(self.dimension)  # by symmetry

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `level` (uniform; the concentration is its quantile) and `angle`; `params` of them.

        With `obs` the density itself is used.
        """
        if obs is not None:
            super().model(obs)
            return
        self.require_proper()
        grid, log_weight = _concentrations(self.loss_exponent, self.codimension, _KNOTS_OF_DRAWS)
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


def are_angles(params: Float[Any, " d"]) -> Bool[Any, ""]:
    """Whether all numbers lie in [−π, π], whose ends single precision rounds outwards."""
    return jnp.all(jnp.abs(params) <= np.pi * (1 + 1e-6))


def cosine_loss(params: Float[Any, " d"]) -> Float[Any, ""]:
    """Σ(1 − cos θ_i), in a form that keeps its digits near zero."""
    return 2 * jnp.sum(jnp.sin(params / 2) ** 2)


@formula
def _partition(alpha: Any, q: int) -> tuple[Any, Any]:
    """log Z and E L, by the trapezoidal rule in log t."""
    grid, log_weight = _concentrations(alpha, q, _KNOTS)
    total = logsumexp(log_weight)
    log_z = (
        q * jnp.log(2 * jnp.pi)
        + total
        + jnp.log((grid[-1] - grid[0]) / (_KNOTS - 1))
        - gammaln(alpha)
    )
    t = jnp.exp(jnp.minimum(grid, 8.0))
    inverse = jnp.exp(-jnp.maximum(grid, 8.0))
    away = jnp.where(grid > 8.0, inverse / 2 * (1 + inverse / 4), 1 - i1e(t) / i0e(t))
    return log_z, q * jnp.sum(jnp.exp(log_weight - total) * away)


def _concentrations(alpha: Any, q: int, knots: int) -> tuple[Any, Any]:
    """log t on a grid that holds all mass but e^(−42), and the log density of log t there."""
    grid = jnp.linspace(-42 / alpha, 42 / (q / 2 - alpha), knots)
    return grid, alpha * grid + q * _log_scaled_bessel(grid)


def _log_scaled_bessel(log_t: Any) -> Any:
    """log(e^(−t) I₀(t)); by its asymptotic series where t itself would overflow."""
    inverse = jnp.exp(-jnp.maximum(log_t, 8.0))
    far = jnp.log1p(inverse / 8 + 9 * inverse**2 / 128) - 0.5 * (jnp.log(2 * jnp.pi) + log_t)
    return jnp.where(log_t > 8.0, far, jnp.log(i0e(jnp.exp(jnp.minimum(log_t, 8.0)))))
