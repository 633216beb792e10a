"""Laws known through a potential U: p ∝ exp(−U), sampled by a Langevin kernel."""

import abc
from typing import Any, ClassVar

import jax
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from statsgd.laws.law import Law


class PotentialLaw(Law):
    """A law p(θ) = exp(−U(θ))/Z on ℝᵈ. A final class gives `potential` and `dimension`.

    Its NumPyro model is a flat prior times exp(−U). Where Z is known a final class sets
    `normalized` and returns log Z from `log_normalizer`.
    """

    normalized: ClassVar[bool] = False
    generative: ClassVar[bool] = False

    @abc.abstractmethod
    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U(θ), dimensionless; differentiable in JAX."""

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """Where θ may lie: all of ℝᵈ unless a final class narrows it."""
        return dist.constraints.real_vector

    def log_normalizer(self) -> Float[Any, ""] | float:
        """log Z, or zero where `normalized` is False."""
        return 0.0

    def log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """−U(θ) − log Z; unnormalised where `normalized` is False."""
        self.require_proper()
        return -self.potential(params) - self.log_normalizer()

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`: a flat prior on ℝᵈ with the factor exp(−U)/Z.

        Conditioning on `obs` needs a normalised law, else `ValueError`: Z depends on parameters.
        """
        self.require_proper()
        if obs is not None and not self.normalized:
            raise ValueError(
                f"{type(self).__name__} is not normalised: its parameters cannot be inferred "
                "from obs"
            )
        flat = dist.ImproperUniform(self.constraint, (), (self.dimension,))
        if obs is None:
            params = numpyro.sample("params", flat)
            numpyro.factor("stationary_law", self.log_density(params))
        else:
            with numpyro.plate("replica", obs.shape[0]):
                params = numpyro.sample("params", flat, obs=obs)
                numpyro.factor("stationary_law", jax.vmap(self.log_density)(params))
