"""Gaussian laws of the pair (parameters, momentum buffer): everything but the moments."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.special import ndtr

from statsgd.arguments import is_traced, one_of
from statsgd.laws.law import ImproperLawError, Law


class Modes(NamedTuple):
    """Eigenvalues h and eigenvectors (columns) of H + λI."""

    curvatures: Float[Any, " d"]
    vectors: Float[Any, "d d"]


class GaussianLaw(Law):
    """A Gaussian law of parameters θ and momentum buffer m near a minimum with Hessian H.

    A final class computes `location` and the `(2d, 2d)` `joint` covariance of (θ − location, m)
    when it is built; m has mean zero. A law of θ alone names `variables` so and has a `(d, d)`
    `joint`. Where the law does not exist, `joint` holds NaN and `require_proper` raises.
    """

    variables: ClassVar[tuple[str, ...]] = ("params", "momentum_buffer")

    location: Float[Any, " d"]
    joint: Float[Any, "size size"]
    hessian: Float[Any, "d d"]
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.location.shape[-1]

    def modes(self) -> Modes:
        """Eigenvalues h (ascending) and eigenvectors of H + λI."""
        return eigenmodes(self.hessian, self.weight_decay)

    def mean(self, variable: str = "params") -> Float[Any, " d"]:
        """Mean of `"params"` or `"momentum_buffer"`."""
        self.require_proper()
        one_of("variable", variable, self.variables)
        return self.location if variable == "params" else 0 * self.location

    def covariance(self, variable: str = "params", other: str | None = None) -> Float[Any, "d d"]:
        """Covariance of a variable, or the cross-covariance Cov(variable, other)."""
        self.require_proper()
        rows = self._slice(variable)
        return self.joint[rows, self._slice(variable if other is None else other)]

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """The sites `variables`, pushed forward from a standard normal `z`.

        With `obs`, `params` are observed and `momentum_buffer` is left out.
        """
        self.require_proper()
        d = self.dimension
        if obs is not None:
            tril = jnp.linalg.cholesky(self.joint[:d, :d])
            with numpyro.plate("replica", obs.shape[0]):
                numpyro.sample(
                    "params", dist.MultivariateNormal(self.location, scale_tril=tril), obs=obs
                )
            return
        size = d * len(self.variables)
        z = numpyro.sample("z", dist.Normal(0, 1).expand([size]).to_event(1))
        state = square_root(self.joint) @ z
        numpyro.deterministic("params", self.location + state[:d])
        if "momentum_buffer" in self.variables:
            numpyro.deterministic("momentum_buffer", state[d:])

    def log_density(
        self, params: Float[Any, " d"], momentum_buffer: Float[Any, " d"] | None = None
    ) -> Float[Any, ""]:
        """Log density of `params`, or of the pair; leading axes are batch axes.

        Concrete values give a float64 result. Raises `ImproperLawError` where the covariance is
        singular, so that there is no density.
        """
        self.require_proper()
        deviation = params - self.location
        if momentum_buffer is None:
            return normal_log_density(deviation, self.joint[: self.dimension, : self.dimension])
        if "momentum_buffer" not in self.variables:
            raise ValueError(f"{type(self).__name__} is a law of params alone: no momentum_buffer")
        xp = jnp if is_traced(deviation, momentum_buffer, self.joint) else np
        return normal_log_density(
            xp.concatenate([deviation, xp.asarray(momentum_buffer)], axis=-1), self.joint
        )

    def cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal distribution function of each coordinate of θ."""
        deviation = np.asarray(params, dtype=np.float64) - self.location
        return ndtr(deviation / np.sqrt(np.diagonal(self.covariance())))

    def _slice(self, variable: str) -> slice:
        position = self.variables.index(one_of("variable", variable, self.variables))
        return slice(position * self.dimension, (position + 1) * self.dimension)


def eigenmodes(hessian: Any, weight_decay: Any) -> Modes:
    """Eigenvalues (ascending) and eigenvectors of H + λI."""
    xp = jnp if is_traced(hessian, weight_decay) else np
    values, vectors = xp.linalg.eigh(hessian)
    return Modes(values + weight_decay, vectors)


def square_root(covariance: Any) -> Any:
    """A matrix R with R Rᵀ = covariance, also where that is singular.

    Rows are scaled to unit variance first: θ and m differ by orders of magnitude.
    """
    xp = jnp if is_traced(covariance) else np
    scale = xp.sqrt(xp.diagonal(covariance))
    scale = xp.where(scale > 0, scale, 1.0)
    values, vectors = xp.linalg.eigh(covariance / scale[:, None] / scale)
    return scale[:, None] * vectors * xp.sqrt(xp.clip(values, 0, None))


def normal_log_density(deviation: Any, covariance: Any) -> Any:
    """Log density of a centred Gaussian, in float64 unless something is traced."""
    if is_traced(deviation, covariance):
        normal = dist.MultivariateNormal(0.0, covariance_matrix=covariance)
        return normal.log_prob(deviation)
    deviation = np.asarray(deviation, dtype=np.float64)
    scale = np.sqrt(np.diagonal(covariance))
    values, vectors = (
        np.linalg.eigh(covariance / scale[:, None] / scale)
        if np.all(scale > 0)
        else (np.zeros(1), np.eye(len(scale)))
    )
    if values[0] <= 1e-13 * values[-1]:
        raise ImproperLawError(
            "the covariance must be positive definite for a density, got a relative smallest "
            f"eigenvalue of {values[0]:.3g}: project the noiseless directions out"
        )
    white = (deviation / scale) @ vectors / np.sqrt(values)
    log_determinant = 2 * np.sum(np.log(scale)) + np.sum(np.log(values))
    return -0.5 * (np.sum(white**2, -1) + log_determinant + len(scale) * np.log(2 * np.pi))


def join_blocks(params: Any, cross: Any, buffer: Any) -> Any:
    """The joint covariance from Cov θ, Cov(θ, m) and Cov m."""
    xp = jnp if is_traced(params) else np
    return xp.block([[params, cross], [cross.T, buffer]])
