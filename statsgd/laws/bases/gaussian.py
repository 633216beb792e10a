"""Normal laws of parameters, or of the pair with the momentum buffer."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Float

from statsgd.arguments import is_traced, location_vector, symmetric
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.precision import formula

#: Both variables of phase space; a law of θ alone has the first.
PAIR = ("params", "momentum_buffer")


class NormalLaw(Law):
    """A normal law of parameters θ, or of θ and the momentum buffer m.

    A final class computes `location` and the `joint` covariance when it is built: `(d, d)` of
    θ − location, or `(2d, 2d)` of (θ − location, m), where m has mean zero unless `_buffer_mean`
    says otherwise. Where the law does not exist `joint` holds NaN and `require_proper` raises.
    """

    location: Float[Any, " d"]
    joint: Float[Any, "size size"]

    @property
    def variables(self) -> tuple[str, ...]:
        """`params`, and `momentum_buffer` where `joint` is of the pair."""
        return PAIR[: self.joint.shape[0] // self.dimension]

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.location.shape[-1]

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """The sites `variables`, pushed forward from a standard normal `z`.

        With `obs`, `params` are observed and `momentum_buffer` is left out.
        """
        self.ensure_proper()
        d = self.dimension
        if obs is not None:
            self._require_density(("params",))
            tril = jnp.linalg.cholesky(self.joint[:d, :d])
            # Checked when the law was made; NumPyro's own checks compile some forty programs.
            normal = dist.MultivariateNormal(self.location, scale_tril=tril, validate_args=False)
            with numpyro.plate("replica", obs.shape[0]):
                numpyro.sample("params", normal, obs=obs)
            return
        z = numpyro.sample("z", dist.Normal(0, 1).expand([self.joint.shape[0]]).to_event(1))
        state = square_root(self.joint) @ z
        numpyro.deterministic("params", self.location + state[:d])
        if len(self.variables) == 2:
            numpyro.deterministic("momentum_buffer", self._buffer_mean() + state[d:])

    def _buffer_mean(self) -> Float[Any, " d"]:
        """The mean of the momentum buffer."""
        return 0 * self.location

    def _require_density(self, variables: tuple[str, ...]) -> None:
        """Raise `ImproperLawError` where the covariance is singular."""
        size = self.dimension * len(variables)
        require_positive_definite(self.joint[:size, :size])

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        d = self.dimension
        return normal_log_density(params - self.location, self.joint[:d, :d])

    def _joint_log_density(
        self, params: Float[Any, " d"], momentum_buffer: Float[Any, " d"]
    ) -> Float[Any, ""]:
        deviations = params - self.location, momentum_buffer - self._buffer_mean()
        return normal_log_density(jnp.concatenate(deviations), self.joint)

    def _mean(self, variable: str) -> Float[Any, " d"]:
        return self.location if variable == "params" else self._buffer_mean()

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        rows, columns = (
            slice(PAIR.index(name) * self.dimension, (PAIR.index(name) + 1) * self.dimension)
            for name in (variable, other)
        )
        return self.joint[rows, columns]

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return normal_cdf(params - self.location, self._spread())

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        return _normal_quantile(probability, self.location, self._spread())

    def _spread(self) -> Float[Any, " d"]:
        return self.joint.diagonal()[: self.dimension] ** 0.5


@register
class GaussianLaw(NormalLaw):
    """A normal law of parameters by its moments: a law by itself, from whatever theory.

    **Arguments:** `mean` `(d,)`; `covariance` `(d, d)`, symmetric and positive semi-definite,
    params². Where the covariance is singular there are draws and moments, but no density.

    Source: textbook.

    >>> import numpy as np
    >>> GaussianLaw([1.0], [[4.0]]).cdf(np.array([1.0])).round(4)
    array([0.5])
    """

    setting: ClassVar[str] = "any: a mean and a covariance that the user gives"
    exactness: ClassVar[str] = "as exact as its moments and normality are"
    citation: ClassVar[str] = "textbook"

    def __init__(self, mean: Any, covariance: Any):
        self.joint = symmetric("covariance", covariance, definite="semi")
        self.location = location_vector(mean, self.joint.shape[0], name="mean")

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """One number, and two that are correlated."""
        return cls([0.5], [[2.0]]), cls([0.5, -1.0], [[1.0, 0.6], [0.6, 0.8]])

    def require_proper(self) -> None:
        """Every instance is proper: the constructor refuses what is no covariance."""


@formula
def square_root(covariance: Float[Any, "... d d"]) -> Float[Any, "... d d"]:
    """A matrix R with R Rᵀ = covariance, also where that is singular.

    Rows are scaled to unit variance first: θ and m differ by orders of magnitude.
    """
    scale = jnp.sqrt(jnp.diagonal(covariance, axis1=-2, axis2=-1))[..., None]
    scale = jnp.where(scale > 0, scale, 1.0)
    values, vectors = jnp.linalg.eigh(covariance / scale / jnp.swapaxes(scale, -2, -1))
    return scale * vectors * jnp.sqrt(jnp.clip(values, 0, None))[..., None, :]


def normal_log_density(
    deviation: Float[Any, " d"], covariance: Float[Any, "d d"]
) -> Float[Any, ""]:
    """Log density of a centred normal law with a positive definite covariance, in JAX."""
    scale = jnp.sqrt(jnp.diagonal(covariance))
    tril = jnp.linalg.cholesky(covariance / scale[:, None] / scale)
    white = solve_triangular(tril, deviation / scale, lower=True)
    log_determinant = 2 * jnp.sum(jnp.log(scale) + jnp.log(jnp.diagonal(tril)))
    return -0.5 * (jnp.sum(white**2) + log_determinant + len(scale) * jnp.log(2 * jnp.pi))


def require_positive_definite(covariance: Float[Any, "... d d"]) -> None:
    """Raise `ImproperLawError` for a covariance that is singular after scaling its rows."""
    if is_traced(covariance):
        return
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))[..., None]
    smallest = 0.0
    if np.all(scale > 0):
        values = np.linalg.eigvalsh(covariance / scale / np.swapaxes(scale, -2, -1))
        smallest = np.min(values[..., 0] / values[..., -1])
    if not smallest > 1e-13:
        raise ImproperLawError(
            "the covariance must be positive definite for a density, got a relative smallest "
            f"eigenvalue of {smallest:.3g}: project the noiseless directions out"
        )


@formula
def normal_cdf(deviation: Any, spread: Any) -> Any:
    """Distribution function of a centred normal number, a step where its `spread` is zero."""
    certain = jnp.where(deviation >= 0, 1.0, 0.0)
    return jnp.where(spread > 0, ndtr(deviation / jnp.where(spread > 0, spread, 1.0)), certain)


@formula
def _normal_quantile(probability: Any, location: Any, spread: Any) -> Any:
    return location + spread * ndtri(probability)[..., None]
