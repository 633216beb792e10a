"""The noise of real SGD: gradients of random minibatches."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, one_of
from statsgd.dynamics import sampling
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.problems import EmpiricalRisk, PopulationRisk, Problem, SampledProblem


@register
class Minibatch(GradientNoise):
    """Mean gradient over a minibatch of S examples.

    **Arguments:**

    - `batch_size`: S, examples per step.
    - `sampling`: `"with_replacement"` (S independent examples), `"without_replacement"` (a fresh
      uniform subset each step) or `"fresh"` (new examples each step, for a `population_risk`).

    C = Σ₁/S with replacement and fresh, Σ₁(N−S)/(S(N−1)) without; Σ₁ is the centred covariance of
    one example's gradient, normalised by N.
    """

    SAMPLING: ClassVar[tuple[str, ...]] = ("with_replacement", "without_replacement", "fresh")

    batch_size: int = eqx.field(static=True)
    sampling: str = eqx.field(static=True)

    def __init__(self, batch_size: int, sampling: str = "with_replacement"):
        self.batch_size = count("batch_size", batch_size)
        self.sampling = one_of("sampling", sampling, self.SAMPLING)

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless `problem` has the data this scheme draws from."""
        if self.sampling == "fresh":
            if not isinstance(problem, PopulationRisk):
                raise ValueError(
                    "sampling must be 'with_replacement' or 'without_replacement' on a data set, "
                    "got 'fresh', which needs a population_risk"
                )
            return
        if not isinstance(problem, EmpiricalRisk):
            raise ValueError(
                f"sampling must be 'fresh' on a population_risk and noise other than Minibatch on "
                f"a landscape, got {self.sampling!r} on {type(problem).__name__}"
            )
        if self.sampling == "without_replacement" and self.batch_size > problem.num_examples:
            raise ValueError(
                f"batch_size must be at most num_examples = {problem.num_examples} without "
                f"replacement, got {self.batch_size}"
            )

    def variance_factor(self, problem: Problem) -> float:
        """C/Σ₁: 1/S, times (N−S)/(N−1) without replacement."""
        if self.sampling != "without_replacement":
            return 1 / self.batch_size
        n = problem.num_examples
        return (n - self.batch_size) / (self.batch_size * max(n - 1, 1))

    def draw(self, key: PRNGKeyArray, problem: SampledProblem, params: PyTree) -> PyTree:
        """Mean gradient over one minibatch."""
        return problem.batch_gradient(params, self.draw_batch(key, problem))

    def draw_batch(self, key: PRNGKeyArray, problem: SampledProblem) -> PyTree:
        """The examples of one minibatch, stacked along a leading axis."""
        if self.sampling == "fresh":
            return problem.draw_examples(key, self.batch_size)
        choose = getattr(sampling, self.sampling)
        return problem.take(choose(key, problem.num_examples, self.batch_size))

    def covariance(self, problem: SampledProblem, params: PyTree) -> Float[Any, "d d"]:
        """C(θ) from every example's gradient; on a `population_risk` an average over a sample.

        Memory N × d. On a `population_risk` the relative error is about √(2/`loss_examples`).
        """
        gradients = centred_example_gradients(problem, params)
        return self.variance_factor(problem) * gradients.T @ gradients / gradients.shape[0]


def centred_example_gradients(problem: SampledProblem, params: PyTree) -> Float[Any, "n d"]:
    """Gradient of every example at `params` minus their mean, flattened; memory n × d."""
    examples = all_examples(problem)
    gradient = jax.grad(problem.example_loss)
    rows = jax.vmap(lambda example: problem.flatten(gradient(params, example)))(examples)
    return rows - jnp.mean(rows, axis=0)


def all_examples(problem: SampledProblem) -> PyTree:
    """The data set, or for a `population_risk` its fixed sample of `loss_examples` draws."""
    if isinstance(problem, EmpiricalRisk):
        return jax.tree.map(jnp.asarray, problem.examples)
    return problem.draw_examples(jax.random.key(0), problem.loss_examples)
