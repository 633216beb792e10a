"""The Gibbs law on two parabolas cut where they meet: a mixture that can be sampled exactly."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Float

from statsgd.arguments import positive
from statsgd.laws.bases.potential import density_model
from statsgd.laws.law import Law, register
from statsgd.precision import formula
from statsgd.problems.landscapes import KinkedWells, kinked_loss


@register
class KinkedWellsGibbs(Law):
    """Gibbs law exp(−L/τ) on two parabolas, h_f(x+1)²/2 + Δ and h_s(x−1)²/2.

    Cut where the parabolas meet between the minima (`problems.landscapes.kinked_wells`), it is a
    mixture of two truncated normals, at −1 with variance τ/h_f and at +1 with variance τ/h_s. At
    equal heights (Δ = 0) the flat well holds

        P(flat) = √h_s/(√h_s + √h_f)   at every temperature, so at every batch size

    A law for checking samplers: the discrete chain feels the kink (h = (1, 9), η = 0.05, τ = 0.2
    gives 0.864 and not 0.75).

    **Arguments:** `temperature` τ > 0; `flat` h_f and `sharp` h_s, curvatures of the wells at −1
    and +1; `height` Δ of the well at −1 above the other, 0 ≤ Δ < 2h_s.

    Source: derived.

    >>> import numpy as np
    >>> law = KinkedWellsGibbs(temperature=0.01, flat=1.0, sharp=9.0)
    >>> round(float(law.cdf(np.zeros(1))[0]), 3)  # √h_s/(√h_s + √h_f)
    0.75
    """

    setting: ClassVar[str] = "SGD in two parabolic wells, constant isotropic noise"
    exactness: ClassVar[str] = "exact for its SDE; not for the chain, which feels the kink"
    citation: ClassVar[str] = "derived"
    has_discrete_sites: ClassVar[bool] = True

    temperature: Float[Any, ""]
    loss: KinkedWells

    def __init__(self, temperature: Any, flat: Any = 1.0, sharp: Any = 9.0, height: Any = 0.0):
        self.temperature = positive("temperature", temperature)
        self.loss = kinked_loss(flat, sharp, height)

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Equal heights, and a raised flat well."""
        yield cls(0.2)
        yield cls(0.1, 1.0, 9.0, 0.05)

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    def require_proper(self) -> None:
        """Every instance is proper."""

    def flat_probability(self) -> Float[Any, ""]:
        """P(flat): the mass left of `split`."""
        return _flat_probability(self)

    def log_normalizer(self) -> Float[Any, ""]:
        """log ∫exp(−L/τ)dx."""
        return _log_normalizer(self)

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Site `flat_well` (Bernoulli), a truncated normal for each well, and `params`."""
        self.require_proper()
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        in_flat = numpyro.sample("flat_well", dist.Bernoulli(self.flat_probability()))
        split = self.loss.split()
        widths = _widths(self)
        left = numpyro.sample("left", dist.TruncatedNormal(-1.0, widths[0], high=split))
        right = numpyro.sample("right", dist.TruncatedNormal(1.0, widths[1], low=split))
        numpyro.deterministic("params", jnp.where(in_flat, left, right)[None])

    def _log_density(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        return -self.loss(params) / self.temperature - _log_normalizer(self)

    def _mean(self, variable: str) -> Float[Any, " 1"]:
        return _moments(self)[0]

    def _covariance(self, variable: str, other: str) -> Float[Any, "1 1"]:
        return _moments(self)[1]

    def _cdf(self, params: Float[Any, "... 1"]) -> Float[Any, "... 1"]:
        return _distribution(self, params)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... 1"]:
        return _quantile(self, probability)[..., None]


def _widths(law: KinkedWellsGibbs) -> tuple[Any, Any]:
    """Standard deviations of the normal laws of the left and the right well."""
    return (law.temperature / law.loss.flat) ** 0.5, (law.temperature / law.loss.sharp) ** 0.5


def _standardised(law: KinkedWellsGibbs, x: Any) -> tuple[Any, Any]:
    """Distances from both minima, in those."""
    left, right = _widths(law)
    return (x + 1) / left, (x - 1) / right


def _log_weights(law: KinkedWellsGibbs) -> tuple[Any, Any]:
    """log of ∫exp(−L/τ) over each side of the split."""
    left, right = _standardised(law, law.loss.split())
    gauss = [0.5 * jnp.log(2 * jnp.pi) + jnp.log(width) for width in _widths(law)]
    raised = law.loss.height / law.temperature
    return gauss[0] - raised + log_ndtr(left), gauss[1] + log_ndtr(-right)


@formula
def _flat_probability(law: KinkedWellsGibbs) -> Any:
    left, right = _log_weights(law)
    return 1 / (1 + jnp.exp(right - left))


@formula
def _log_normalizer(law: KinkedWellsGibbs) -> Any:
    return jnp.logaddexp(*_log_weights(law))


@formula
def _distribution(law: KinkedWellsGibbs, x: Any) -> Any:
    flat, split = _flat_probability(law), law.loss.split()
    a, b = _standardised(law, split)
    left, right = (
        _standardised(law, clip(x, split))[side]
        for side, clip in enumerate((jnp.minimum, jnp.maximum))
    )
    # From the right end, so that no digits are lost where the split is far in the tail.
    above = ndtr(-right) / ndtr(-b)
    return flat * ndtr(left) / ndtr(a) + (1 - flat) * (1 - above)


@formula
def _quantile(law: KinkedWellsGibbs, probability: Any) -> Any:
    flat = _flat_probability(law)
    a, b = _standardised(law, law.loss.split())
    left, right = _widths(law)
    below = jnp.clip(probability / flat, 0, 1)
    above = jnp.clip((1 - probability) / (1 - flat), 0, 1)
    return jnp.where(
        probability < flat,
        -1 + left * ndtri(below * ndtr(a)),
        1 - right * ndtri(above * ndtr(-b)),
    )


@formula
def _moments(law: KinkedWellsGibbs) -> tuple[Any, Any]:
    """Mean and covariance, from those of the two truncated normals."""
    a, b = _standardised(law, law.loss.split())
    # Hazards of the standard normal cut above at a, and below at b.
    above = jnp.exp(-0.5 * a**2 - log_ndtr(a)) / jnp.sqrt(2 * jnp.pi)
    below = jnp.exp(-0.5 * b**2 - log_ndtr(-b)) / jnp.sqrt(2 * jnp.pi)
    widths, flat = _widths(law), _flat_probability(law)
    left, right = -1 - widths[0] * above, 1 + widths[1] * below
    within = flat * widths[0] ** 2 * (1 - a * above - above**2)
    within += (1 - flat) * widths[1] ** 2 * (1 + b * below - below**2)
    mean = flat * left + (1 - flat) * right
    between = flat * (1 - flat) * (left - right) ** 2
    return jnp.reshape(mean, (1,)), jnp.reshape(within + between, (1, 1))
