"""The Gibbs law on two parabolas cut where they meet: a mixture that can be sampled exactly."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from jaxtyping import Float
from scipy.special import log_ndtr as log_ndtr64
from scipy.special import ndtr

from statsgd.arguments import is_traced, positive
from statsgd.laws.law import Law, register
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
    def examples(cls) -> Sequence[Self]:
        """Equal heights, and a raised flat well."""
        return cls(0.2), cls(0.1, 1.0, 9.0, 0.05)

    @property
    def dimension(self) -> int:
        """One."""
        return 1

    def flat_probability(self) -> Float[Any, ""]:
        """P(flat): the mass left of `split`."""
        xp = self._numbers()
        left, right = self._log_weights()
        return 1 / (1 + xp.exp(right - left))

    def log_normalizer(self) -> Float[Any, ""]:
        """log ∫exp(−L/τ)dx."""
        return self._numbers().logaddexp(*self._log_weights())

    def log_density(self, params: Float[Any, "... 1"]) -> Float[Any, "..."]:
        """Log density, normalised; leading axes are batch axes."""
        self.require_proper()
        xp = jnp if is_traced(params, self) else np
        x = xp.asarray(params)[..., 0]
        left = self.loss.flat * (x + 1) ** 2 / 2 + self.loss.height
        right = self.loss.sharp * (x - 1) ** 2 / 2
        energy = xp.where(x < self.loss.split(), left, right)
        return -energy / self.temperature - self.log_normalizer()

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Site `flat_well` (Bernoulli), a truncated normal for each well, and `params`."""
        self.require_proper()
        if obs is not None:
            with numpyro.plate("replica", obs.shape[0]):
                flat = dist.ImproperUniform(dist.constraints.real_vector, (), (1,))
                numpyro.sample("params", flat, obs=obs)
                numpyro.factor("stationary_law", self.log_density(jnp.asarray(obs)))
            return
        in_flat = numpyro.sample("flat_well", dist.Bernoulli(self.flat_probability()))
        split = self.loss.split()
        left = numpyro.sample(
            "left",
            dist.TruncatedNormal(-1.0, jnp.sqrt(self.temperature / self.loss.flat), high=split),
        )
        right = numpyro.sample(
            "right",
            dist.TruncatedNormal(1.0, jnp.sqrt(self.temperature / self.loss.sharp), low=split),
        )
        numpyro.deterministic("params", jnp.where(in_flat, left, right)[None])

    def cdf(self, params: Float[Any, "... 1"]) -> Float[Any, "... 1"]:
        """Distribution function."""
        x = np.asarray(params, dtype=np.float64)
        flat, split = self.flat_probability(), self.loss.split()
        left, at_split = self._standardised(np.minimum(x, split))[0], self._standardised(split)
        right = self._standardised(np.maximum(x, split))[1]
        below = flat * ndtr(left) / ndtr(at_split[0])
        # From the right end, so that no digits are lost where the split is far in the tail.
        return below + (1 - flat) * (1 - ndtr(-right) / ndtr(-at_split[1]))

    def mean(self) -> Float[Any, " 1"]:
        """Mean, shape (1,)."""
        flat, (left, right), _ = self._parts()
        return np.array([flat * left + (1 - flat) * right])

    def covariance(self) -> Float[Any, "1 1"]:
        """Variance, shape (1, 1)."""
        flat, (left, right), (spread_left, spread_right) = self._parts()
        within = flat * spread_left + (1 - flat) * spread_right
        return np.array([[within + flat * (1 - flat) * (left - right) ** 2]])

    def require_proper(self) -> None:
        """Every instance is proper."""

    def _numbers(self) -> Any:
        return jnp if is_traced(self) else np

    def _standardised(self, x: Any) -> tuple[Any, Any]:
        """(x − minimum)/√(τ/h) for both wells."""
        xp = self._numbers()
        scale = xp.sqrt(self.temperature)
        return (x + 1) * xp.sqrt(self.loss.flat) / scale, (x - 1) * xp.sqrt(self.loss.sharp) / scale

    def _log_weights(self) -> tuple[Any, Any]:
        """log of ∫exp(−L/τ) over each side of the split."""
        xp = self._numbers()
        log_cdf = log_ndtr if xp is jnp else log_ndtr64
        left, right = self._standardised(self.loss.split())
        gauss = 0.5 * xp.log(2 * np.pi * self.temperature)
        return (
            gauss
            - 0.5 * xp.log(self.loss.flat)
            - self.loss.height / self.temperature
            + log_cdf(left),
            gauss - 0.5 * xp.log(self.loss.sharp) + log_cdf(-right),
        )

    def _parts(self) -> tuple[Any, tuple[Any, Any], tuple[Any, Any]]:
        """P(flat), and means and variances of the two truncated normals."""
        a, b = self._standardised(self.loss.split())
        # Hazards of the standard normal cut above at a, and below at b.
        above = np.exp(-0.5 * a**2 - log_ndtr64(a)) / np.sqrt(2 * np.pi)
        below = np.exp(-0.5 * b**2 - log_ndtr64(-b)) / np.sqrt(2 * np.pi)
        scales = (
            np.sqrt(self.temperature / self.loss.flat),
            np.sqrt(self.temperature / self.loss.sharp),
        )
        means = -1 - scales[0] * above, 1 + scales[1] * below
        spreads = (
            scales[0] ** 2 * (1 - a * above - above**2),
            scales[1] ** 2 * (1 + b * below - below**2),
        )
        return self.flat_probability(), means, spreads
