"""Laws known through a potential U: p ∝ exp(−U), sampled by a Langevin kernel."""

import abc
from typing import ClassVar

import jax
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from statsgd.laws.law import Law


class PotentialLaw(Law):
    """A law p(θ) = exp(−U(θ))/Z on ℝᵈ. A final class gives `potential` and `dimension`.

    Its NumPyro model is a flat prior times exp(−U). Where Z is known a final class sets
    `normalized` and returns log Z from `log_normalizer`.
    """

    normalized: ClassVar[bool] = False
    generative: ClassVar[bool] = False

    @abc.abstractmethod
    def potential(self, params: Float[Array, " d"]) -> Float[Array, ""]:
        """U(θ), dimensionless; differentiable in JAX."""

    def log_normalizer(self) -> Float[Array, ""]:
        """log Z, or zero where `normalized` is False."""
        return 0.0

    def flat_prior(self) -> dist.Distribution:
        """The flat measure that exp(−U) is a density of: Lebesgue measure on ℝᵈ unless replaced."""
        return dist.ImproperUniform(dist.constraints.real_vector, (), (self.dimension,))

    def log_density(self, params: Float[Array, " d"]) -> Float[Array, ""]:
        """−U(θ) − log Z; unnormalised where `normalized` is False."""
        self.require_proper()
        return -self.potential(params) - self.log_normalizer()

    def model(self, obs: Float[Array, "n d"] | None = None) -> None:
        """Site `params`: the flat prior with the factor exp(−U)/Z.

        Conditioning on `obs` needs a normalised law, else `ValueError`: Z depends on parameters.
        """
        self.require_proper()
        if obs is not None and not self.normalized:
            raise ValueError(
                f"{type(self).__name__} is not normalised: its parameters cannot be inferred "
                "from obs"
            )
        flat = self.flat_prior()
        if obs is None:
            params = numpyro.sample("params", flat)
            numpyro.factor("stationary_law", self.log_density(params))
        else:
            with numpyro.plate("replica", obs.shape[0]):
                params = numpyro.sample("params", flat, obs=obs)
                numpyro.factor("stationary_law", jax.vmap(self.log_density)(params))
