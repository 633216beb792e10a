"""Laws known through a potential U: p ∝ exp(−U), sampled by a Langevin kernel."""

import abc
from typing import Any

import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from statsgd.laws.law import Law


class PotentialLaw(Law):
    """A law p(θ) = exp(−U(θ))/Z on ℝᵈ. A final class gives `potential` and `dimension`.

    Its NumPyro model is a flat prior times exp(−U). Where Z is known a final class says so by
    `normalized` and gives log Z by `_log_normalizer`.
    """

    @property
    def exact_draws(self) -> bool:
        """No, unless a final class knows better."""
        return False

    @property
    def normalized(self) -> bool:
        """No, unless a final class knows Z."""
        return False

    @abc.abstractmethod
    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U(θ) of one point, dimensionless; differentiable in JAX."""

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """Where θ may lie: all of ℝᵈ unless a final class narrows it."""
        return dist.constraints.real_vector

    def log_normalizer(self) -> Float[Any, ""]:
        """log Z, Z = ∫exp(−U)dθ; `IntractableError` unless `normalized`."""
        self.ensure_proper()
        if not self.normalized:
            self._cannot_say("normaliser")
        return self._log_normalizer()

    def _log_normalizer(self) -> Any:
        """log Z, or zero where it is not known."""
        return 0.0

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        return -self.potential(params) - self._log_normalizer()

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`: a flat prior on ℝᵈ with the factor exp(−U)/Z.

        Conditioning on `obs` needs a normalised law, else `ValueError`: Z depends on parameters.
        """
        self.ensure_proper()
        if obs is not None and not self.normalized:
            raise ValueError(
                f"{type(self).__name__} is not normalised: its parameters cannot be inferred "
                "from obs"
            )
        density_model(self, self.constraint, obs)


def density_model(
    law: Law, constraint: dist.constraints.Constraint, obs: Float[Any, "n d"] | None = None
) -> None:
    """The site `params`, or the observed ones, with a flat prior times the density of `law`."""
    flat = dist.ImproperUniform(constraint, (), (law.dimension,))
    if obs is None:
        params = numpyro.sample("params", flat)
        numpyro.factor("stationary_law", law.log_density(params))
        return
    with numpyro.plate("replica", obs.shape[0]):
        params = numpyro.sample("params", flat, obs=obs)
        numpyro.factor("stationary_law", law.log_density(params))
