"""The law of a quadratic loss under noise that saturates: a mixture of two Gamma laws."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import gammainc

from statsgd.laws.loss_noise.setting import loss_exponent
from statsgd.precision import formula


class SaturatedLoss(NamedTuple):
    """The law of the loss in q normal directions: a mixture of two Gamma laws.

    g(L) = (1 + L/L_sat) L^(−α) e^(−bL),    b = (α−1)/L_sat,    a = q/2 − α,    w = a/(q/2−1)
    L ~ (1−w) Gamma(a, rate b) + w Gamma(a+1, rate b)
    """

    codimension: int
    noise_ratio: Any
    saturation: Any

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε."""
        return loss_exponent(self.noise_ratio)

    @property
    def shape(self) -> Any:
        """a = q/2 − α > 0; the mass concentrates on zero loss as it vanishes."""
        return self.codimension / 2 - self.loss_exponent

    @property
    def rate(self) -> Any:
        """b, 1/loss."""
        return (self.loss_exponent - 1) / self.saturation

    @property
    def weight(self) -> Any:
        """w, the weight of the Gamma law with the larger shape."""
        return self.shape / (self.codimension / 2 - 1)

    def distribution(self) -> dist.Distribution:
        """The mixture as a NumPyro distribution."""
        weights = jnp.stack([1 - self.weight, jnp.asarray(self.weight)])
        shapes = jnp.stack([jnp.asarray(self.shape), jnp.asarray(self.shape + 1)])
        return dist.MixtureSameFamily(dist.Categorical(weights), dist.Gamma(shapes, self.rate))

    def sample(self, rng: np.random.Generator, number: int) -> Float[Any, " n"]:
        """Independent losses, in double precision; of concrete parameters."""
        shapes = self.shape + (rng.random(number) < self.weight)
        return rng.gamma(shapes) / self.rate

    def mean(self) -> Any:
        """E L = (a + w)/b."""
        return (self.shape + self.weight) / self.rate

    def cdf(self, loss: Any) -> Float[Any, "..."]:
        """P(L ≤ loss)."""
        x = self.rate * np.asarray(loss, dtype=np.float64)
        w = self.weight
        return (1 - w) * gammainc(self.shape, x) + w * gammainc(self.shape + 1, x)

    def quantile(self, probability: float) -> float:
        """The loss below which the mass is `probability`."""

        def excess(log_loss: float) -> float:
            return float(self.cdf(np.exp(log_loss))) - probability

        high = float(np.log(50 * (self.shape + 1) / self.rate))
        return float(np.exp(brentq(excess, high - 700, high, xtol=1e-13)))

    @formula
    def log_profile(self, loss: Any, log_loss: Any = None) -> Any:
        """log g(L); `log_loss` may be given where the loss underflows."""
        logs = jnp.log(loss) if log_loss is None else log_loss
        return jnp.log1p(loss / self.saturation) - self.loss_exponent * logs - self.rate * loss

    @formula
    def log_mass(self) -> Any:
        """log of ∫ g(½|z|²) dz over ℝ^q."""
        q, a, b = self.codimension, self.shape, self.rate
        # The two terms of g integrate to Γ(a)b^(−a) and w/(1−w) of it.
        total = gammaln(a) - a * jnp.log(b) - jnp.log1p(-self.weight)
        return q / 2 * jnp.log(2 * jnp.pi) - gammaln(q / 2) + total
