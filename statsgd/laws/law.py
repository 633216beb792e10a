"""What a stationary law is: a NumPyro model with a density, and a refusal to lie."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.handlers
from jaxtyping import Float, PRNGKeyArray

#: Every public law by name; `register` fills it. Tests, tables and the catalogue run over it.
LAWS: dict[str, type["Law"]] = {}


def register(law: type["Law"]) -> type["Law"]:
    """Add a law to `LAWS`."""
    LAWS[law.__name__] = law
    return law


class ImproperLawError(ValueError):
    """The law cannot be normalised, or has no stationary state, at the given parameters.

    The message states the condition with both sides of the inequality.
    """


class Law(eqx.Module):
    """A stationary law of SGD over flat parameters of shape `(d,)`.

    A law can be built at any parameters; everything that reads it first calls `require_proper`.
    """

    #: One line each for the catalogue: where the law applies, how exact it is, who published it.
    setting: ClassVar[str]
    exactness: ClassVar[str]
    citation: ClassVar[str]
    #: Whether `log_density` integrates to one.
    normalized: ClassVar[bool] = True
    #: Whether running `model` forward draws from the law exactly.
    generative: ClassVar[bool] = True
    #: Whether `model` has discrete latent sites; Markov chains then run on the density instead.
    has_discrete_sites: ClassVar[bool] = False
    #: Names of the variables the law speaks about, sites of `model`.
    variables: ClassVar[tuple[str, ...]] = ("params",)

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """Number of parameters d."""

    @abc.abstractmethod
    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """NumPyro model with the sites `variables`; `obs` are endpoints to condition on."""

    @abc.abstractmethod
    def log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """Log density of `params` with respect to Lebesgue measure."""

    @abc.abstractmethod
    def require_proper(self) -> None:
        """Raise `ImproperLawError` if the law does not exist at these parameters."""

    @classmethod
    @abc.abstractmethod
    def examples(cls) -> Sequence[Self]:
        """Instances at ordinary parameters, in dimensions that quadrature reaches where possible.

        The test battery, the catalogue and the documentation run over them: a new law gets all
        three by listing a few.
        """

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Instances that `require_proper` must refuse; empty if every instance is proper."""
        return ()

    def draw(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Any, "*shape d"]:
        """Exact independent draws of `params`, where `generative`."""
        return self.draw_variables(key, shape)["params"]

    def draw_variables(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> Mapping[str, Float[Any, "*shape d"]]:
        """Exact independent joint draws of all `variables`, where `generative`."""
        self.require_proper()
        if not self.generative:
            raise ValueError(f"{type(self).__name__} has no exact sampler: use statsgd.sample")

        def once(key):
            trace = numpyro.handlers.trace(numpyro.handlers.seed(self.model, key)).get_trace()
            return {name: trace[name]["value"] for name in self.variables}

        number = int(np.prod(shape, dtype=int))
        draws = jax.vmap(once)(jax.random.split(key, number))
        return {name: value.reshape(*shape, *value.shape[1:]) for name, value in draws.items()}

    def chain_model(self) -> None:
        """The NumPyro model that Markov chains run on: `model`, unless it has discrete sites.

        Then the same law without them: a flat prior on `params` times the density.
        """
        if not self.has_discrete_sites:
            self.model()
            return
        flat = dist.ImproperUniform(dist.constraints.real_vector, (), (self.dimension,))
        params = numpyro.sample("params", flat)
        numpyro.factor("stationary_law", self.log_density(params))

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number ..."]] | None:
        """Where `number` chains on `chain_model` do well to start, as values of its latent sites.

        None where the law has nothing better to offer than random points. Laws that can be drawn
        from, though not through that model, start chains at such draws: in every well.
        """
        return {"params": self.draw(key, (number,))} if self.has_discrete_sites else None

    def describe(self) -> dict[str, Any]:
        """Name, setting, exactness and citation, for provenance and reports."""
        return {
            "name": type(self).__name__,
            "setting": self.setting,
            "exactness": self.exactness,
            "citation": self.citation,
        }
