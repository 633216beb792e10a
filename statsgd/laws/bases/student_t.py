"""Multivariate Student-t laws: everything but the parameters."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jaxtyping import Float
from scipy.stats import t as student_t

from statsgd.laws.law import Law
from statsgd.precision import formula


class StudentTLaw(Law):
    """A law θ ~ Student-t with ν degrees of freedom about `location`, with a scale matrix S.

        p(θ) ∝ (1 + (θ−location)ᵀ S⁻¹ (θ−location)/ν)^(−(ν+d)/2),     Cov θ = S ν/(ν−2)

    A final class computes `location`, `scale` S `(d, d)` and `degrees_of_freedom` ν when it is
    built, and refuses ν ≤ 0 in `require_proper`. The mean is NaN for ν ≤ 1 and the covariance
    infinite for ν ≤ 2.
    """

    location: Float[Any, " d"]
    scale: Float[Any, "d d"]
    degrees_of_freedom: Float[Any, ""]

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.location.shape[-1]

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`, a multivariate Student-t."""
        self.ensure_proper()
        if obs is None:
            numpyro.sample("params", self._distribution())
            return
        with numpyro.plate("replica", obs.shape[0]):
            numpyro.sample("params", self._distribution(), obs=obs)

    def _distribution(self) -> dist.Distribution:
        tril = jnp.linalg.cholesky(jnp.asarray(self.scale))
        return dist.MultivariateStudentT(self.degrees_of_freedom, self.location, tril)

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        tril, nu = jnp.linalg.cholesky(jnp.asarray(self.scale)), self.degrees_of_freedom
        white = solve_triangular(tril, params - self.location, lower=True)
        shape = (nu + self.dimension) / 2 * jnp.log1p(jnp.sum(white**2) / nu)
        volume = jnp.sum(jnp.log(jnp.diagonal(tril)))
        return _log_constant(jnp.asarray(nu), self.dimension) - volume - shape

    def _mean(self, variable: str) -> Float[Any, " d"]:
        return _mean(self.location, self.degrees_of_freedom)

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        return _covariance(self.scale, self.degrees_of_freedom)

    # SciPy's, on the host: JAX has neither the distribution function nor its inverse.

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        deviation = (params - self.location) / np.sqrt(np.diagonal(self.scale))
        return student_t.cdf(deviation, self.degrees_of_freedom)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        width = np.sqrt(np.diagonal(self.scale))
        standard = student_t.ppf(np.asarray(probability)[..., None], self.degrees_of_freedom)
        return self.location + width * standard


def _log_constant(nu: Any, d: int) -> Any:
    """log [Γ((ν+d)/2)/(Γ(ν/2) (πν)^(d/2))], also where both functions are huge."""
    z, a = nu / 2, d / 2
    # Their ratio over z^a, by its series where the difference of logarithms has lost its digits.
    many = z > 1e3 * (a + 1) ** 2
    far = jnp.where(many, z, 1.0)
    series = a * (a - 1) / (2 * far) * (1 - (2 * a - 1) / (6 * far) + a * (a - 1) / (6 * far**2))
    near = jnp.where(many, 1.0, z)
    exact = gammaln(near + a) - gammaln(near) - a * jnp.log(near)
    return jnp.where(many, series, exact) - a * jnp.log(2 * jnp.pi)


@formula
def _mean(location: Any, nu: Any) -> Any:
    return jnp.where(nu > 1, location, jnp.nan)


@formula
def _covariance(scale: Any, nu: Any) -> Any:
    finite = nu > 2
    return jnp.where(finite, scale * nu / jnp.where(finite, nu - 2, 1.0), jnp.inf)
