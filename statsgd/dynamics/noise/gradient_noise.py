"""What gradient noise is: a stochastic gradient with a known covariance."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import means
from statsgd.display import html, spoken
from statsgd.problems import Problem

#: Every public noise model by name; `register` fills it.
NOISES: dict[str, type["GradientNoise"]] = {}


def register(noise: type["GradientNoise"]) -> type["GradientNoise"]:
    """Add a noise model to `NOISES`, over which tests and tables run."""
    NOISES[noise.__name__] = noise
    return noise


class GradientNoise(eqx.Module):
    """A stochastic gradient ĝ with E ĝ = ∇L and Cov ĝ = C(θ)."""

    def __repr__(self) -> str:
        return spoken(self)

    def _repr_html_(self) -> str:
        return html(self)

    @property
    def white(self) -> bool:
        """Whether ĝ at different steps are independent given θ: what white-noise laws need."""
        return True

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """One stochastic gradient at `params`, a pytree like `params`."""

    @abc.abstractmethod
    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """C(θ): centred covariance of one `draw` in flattened coordinates, batch size included."""

    def require_variance(self) -> None:
        """Raise `ValueError` where a draw has no finite variance, so that there is no C(θ)."""

    def root(self, problem: Problem, params: PyTree) -> Float[Any, "..."]:
        """R(θ) with R Rᵀ = C(θ): a `(d, r)` matrix, or a number where C is isotropic."""
        return symmetric_root(self.covariance(problem, params))

    def at_step(
        self, key: PRNGKeyArray, step: Int[Any, ""], problem: Problem, params: PyTree
    ) -> PyTree:
        """The stochastic gradient at step `step` of the run whose key is `key`."""
        return self.draw(jax.random.fold_in(key, step), problem, params)

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` if this noise cannot act on `problem`."""


def symmetric_root(covariance: Float[Any, "d d"]) -> Float[Any, "d d"]:
    """R with R Rᵀ = covariance, which may be singular; tiny negative eigenvalues count as zero."""
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.clip(values, 0, None))


@register
class NoNoise(GradientNoise):
    """The exact gradient: full-batch gradient descent.

    >>> NoNoise()
    NoNoise()
    """

    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """∇L(θ)."""
        return problem.gradient(params)

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """Zero."""
        return jnp.zeros((problem.dimension, problem.dimension))

    def root(self, problem: Problem, params: PyTree) -> Float[Any, ""]:
        """Zero."""
        return jnp.zeros(())


means("noise", GradientNoise, "one of statsgd.noise")
