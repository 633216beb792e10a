"""The pure power law of a cosine loss on the torus: a mixture with exact draws."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln, i0e, i1e
from jaxtyping import Bool, Float

from statsgd.arguments import count, one_of, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.line import (
    LineTable,
    nowhere,
    one_well,
    require_resolved,
    resolved,
    tabulate,
)
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.loss_noise.loss_potential import require_above_critical_noise
from statsgd.laws.loss_noise.setting import READINGS, loss_exponent, steepness
from statsgd.precision import formula, in_double_precision
from statsgd.problems import Problem

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

    Proper iff α < q/2. log t is tabulated, with an `error_estimate`, and drawn by inversion. Steps
    must be short next to the circle and next to the way to collapse: η/(1 − 2α/q) ≤ 0.1 and
    ηε ≤ 0.1 keep the total variation of L from that of the chain below 5 % (measured for q = 3 and
    5). **Arguments:**
    `codimension` q, `noise_ratio` ε = ησ, `reading` as in `LossScaledLaw`.

    Source: derived; the noise is Wojtowytsch (2021), arXiv:2106.02588.

    >>> import jax
    >>> law = TorusPowerOfLossLaw(codimension=5, noise_ratio=2.0)
    >>> law.draw(jax.random.key(0), (3,)).shape
    (3, 5)
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
    table: LineTable
    """Of log t."""

    def __init__(self, codimension: int, noise_ratio: Any, reading: str = "ito"):
        self.codimension = count("codimension", codimension)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.reading = one_of("reading", reading, READINGS)
        try:
            self.require_proper()
            settings = self.loss_exponent, self.codimension
            found = resolved(partial(in_double_precision, _tabulated, *settings))
        except ImproperLawError:
            found = nowhere()
        self.table = found

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

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """See `LineTable.error_estimate`."""
        return self.table.error_estimate

    def _log_normalizer(self) -> Float[Any, ""]:
        log_mass = require_resolved(self.table).log_normalizer
        return _log_partition(log_mass, self.loss_exponent, self.codimension)

    def mean_loss(self) -> float:
        """E L."""
        self.require_proper()
        return float(in_double_precision(_mean_loss, self.table, self.codimension))

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
        log_t = self.table.quantile(numpyro.sample("level", dist.Uniform(0.0, 1.0)))
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
def _log_partition(log_mass: Any, alpha: Any, q: int) -> Float[Any, ""]:
    return q * jnp.log(2 * jnp.pi) + log_mass - gammaln(alpha)


def _tabulated(alpha: Any, q: int, number: int) -> LineTable:
    """The density of log t, where all mass but e^(−42) lies: fine about t = 1, where it bends."""

    def log_mass(log_t: Float[Any, " n"]) -> Float[Any, " n"]:
        return alpha * log_t + q * _log_scaled_bessel(log_t)

    low, high = -42 / alpha, 42 / (q / 2 - alpha)
    return tabulate(log_mass, one_well(0.0, 1.0), low, high, number)


def _mean_loss(table: LineTable, q: int) -> Float[Any, ""]:
    log_t = table.points
    t, inverse = jnp.exp(jnp.minimum(log_t, 8.0)), jnp.exp(-jnp.maximum(log_t, 8.0))
    away = jnp.where(log_t > 8.0, inverse / 2 * (1 + inverse / 4), 1 - i1e(t) / i0e(t))
    return q * jnp.sum(table.weights * away)


def _log_scaled_bessel(log_t: Any) -> Any:
    """log(e^(−t) I₀(t)); by its asymptotic series where t itself would overflow."""
    inverse = jnp.exp(-jnp.maximum(log_t, 8.0))
    far = jnp.log1p(inverse / 8 + 9 * inverse**2 / 128) - 0.5 * (jnp.log(2 * jnp.pi) + log_t)
    return jnp.where(log_t > 8.0, far, jnp.log(i0e(jnp.exp(jnp.minimum(log_t, 8.0)))))
