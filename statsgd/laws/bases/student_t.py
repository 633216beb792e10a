"""Multivariate Student-t laws: everything but the parameters."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.special import gammaln
from scipy.stats import t as student_t

from statsgd.arguments import is_traced
from statsgd.laws.law import Law


class StudentTLaw(Law):
    """A law θ ~ Student-t with ν degrees of freedom about `location`, with a scale matrix S.

        p(θ) ∝ (1 + (θ−location)ᵀ S⁻¹ (θ−location)/ν)^(−(ν+d)/2),     Cov θ = S ν/(ν−2)

    A final class computes `location`, `scale` S `(d, d)` and `degrees_of_freedom` ν when it is
    built, and refuses ν ≤ 0 in `require_proper`.
    """

    variables: ClassVar[tuple[str, ...]] = ("params",)

    location: Float[Any, " d"]
    scale: Float[Any, "d d"]
    degrees_of_freedom: Float[Any, ""]

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.location.shape[-1]

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`, a multivariate Student-t."""
        self.require_proper()
        tril = jnp.linalg.cholesky(jnp.asarray(self.scale))
        law = dist.MultivariateStudentT(self.degrees_of_freedom, self.location, tril)
        if obs is None:
            numpyro.sample("params", law)
            return
        with numpyro.plate("replica", obs.shape[0]):
            numpyro.sample("params", law, obs=obs)

    def log_density(self, params: Float[Any, "... d"]) -> Float[Any, "..."]:
        """Log density of `params`; leading axes are batch axes. Concrete values give float64."""
        self.require_proper()
        if is_traced(params, self.location, self.scale, self.degrees_of_freedom):
            tril = jnp.linalg.cholesky(jnp.asarray(self.scale))
            law = dist.MultivariateStudentT(self.degrees_of_freedom, self.location, tril)
            return law.log_prob(params)
        nu, d = self.degrees_of_freedom, self.dimension
        deviation = np.asarray(params, dtype=np.float64) - self.location
        square = np.sum(deviation * np.linalg.solve(self.scale, deviation[..., None])[..., 0], -1)
        log_peak = (
            gammaln((nu + d) / 2)
            - gammaln(nu / 2)
            - d / 2 * np.log(np.pi * nu)
            - np.linalg.slogdet(self.scale)[1] / 2
        )
        return log_peak - (nu + d) / 2 * np.log1p(square / nu)

    def mean(self) -> Float[Any, " d"]:
        """The location, or NaN for ν ≤ 1, where the mean does not exist."""
        self.require_proper()
        xp = jnp if is_traced(self.location, self.degrees_of_freedom) else np
        return xp.where(self.degrees_of_freedom > 1, self.location, np.nan)

    def covariance(self) -> Float[Any, "d d"]:
        """S ν/(ν−2), or infinite entries for ν ≤ 2."""
        self.require_proper()
        nu = self.degrees_of_freedom
        xp = jnp if is_traced(self.scale, nu) else np
        finite = nu > 2
        return xp.where(finite, self.scale * nu / xp.where(finite, nu - 2, 1.0), np.inf)

    def cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal distribution function of each coordinate."""
        return student_t.cdf(self._standardised(params), self.degrees_of_freedom)

    def quantile(self, probability: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal quantiles; the last axis of `probability` is broadcast over coordinates."""
        self.require_proper()
        width = np.sqrt(np.diagonal(self.scale))
        return self.location + width * student_t.ppf(probability, self.degrees_of_freedom)

    def _standardised(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        self.require_proper()
        deviation = np.asarray(params, dtype=np.float64) - self.location
        return deviation / np.sqrt(np.diagonal(self.scale))
