"""The noise of real SGD: gradients of random minibatches."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count, one_of
from statsgd.dynamics import sampling
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.problems import EmpiricalRisk, PopulationRisk, Problem


@register
class Minibatch(GradientNoise):
    """Mean gradient over a minibatch of S examples.

    **Arguments:**

    - `batch_size`: S, examples per step.
    - `sampling`: `"with_replacement"` (S independent examples), `"without_replacement"` (a fresh
      uniform subset each step), `"reshuffle"` (each epoch of N/S steps goes through the data once,
      in a fresh random order), `"single_shuffle"` (one random order per run, for ever) or
      `"fresh"` (new examples each step, for a `population_risk`).

    C = Σ₁/S with replacement and fresh, Σ₁(N−S)/(S(N−1)) without and for one batch of a shuffled
    epoch; Σ₁ is the centred covariance of one example's gradient, normalised by N. Shuffled noise
    is not white: at fixed θ the M = N/S batches of an epoch have covariance −C/(M−1) with one
    another and their mean is ∇L exactly. S must divide N for it. An order belongs to a replica
    and, for `reshuffle`, an epoch of its batch size; its memory does not grow with N.
    """

    SAMPLING: ClassVar[tuple[str, ...]] = (
        "with_replacement",
        "without_replacement",
        "reshuffle",
        "single_shuffle",
        "fresh",
    )

    batch_size: int = eqx.field(static=True)
    sampling: str = eqx.field(static=True)

    def __init__(self, batch_size: int, sampling: str = "with_replacement"):
        self.batch_size = count("batch_size", batch_size)
        self.sampling = one_of("sampling", sampling, self.SAMPLING)

    @property
    def white(self) -> bool:
        """False for shuffled epochs, whose batches depend on one another."""
        return self.sampling not in ("reshuffle", "single_shuffle")

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless `problem` has the data this scheme draws from."""
        if self.sampling == "fresh":
            if not isinstance(problem, PopulationRisk):
                raise ValueError(
                    f"sampling must be one of {self.SAMPLING[:-1]} on a data set, got 'fresh', "
                    "which needs a population_risk"
                )
            return
        if not isinstance(problem, EmpiricalRisk):
            raise ValueError(
                f"sampling must be 'fresh' on a population_risk and noise other than Minibatch on "
                f"a landscape, got {self.sampling!r} on {type(problem).__name__}"
            )
        self.check_number(problem.num_examples)

    def check_number(self, num_examples: int) -> None:
        """Raise `ValueError` unless batches of this size can be drawn from so many examples."""
        n = num_examples
        if self.sampling != "with_replacement" and self.batch_size > n:
            raise ValueError(
                f"batch_size must be at most num_examples = {n} for sampling {self.sampling!r}, "
                f"got {self.batch_size}"
            )
        if not self.white and n % self.batch_size:
            raise ValueError(
                f"batch_size must divide num_examples for sampling {self.sampling!r}, got "
                f"batch_size {self.batch_size} and num_examples {n}, remainder "
                f"{n % self.batch_size}"
            )

    def variance_factor(self, problem: Any) -> float:
        """C/Σ₁: 1/S, times (N−S)/(N−1) unless examples can repeat."""
        if self.sampling in ("with_replacement", "fresh"):
            return 1 / self.batch_size
        n = problem.num_examples
        return (n - self.batch_size) / (self.batch_size * max(n - 1, 1))

    def draw(self, key: PRNGKeyArray, problem: Any, params: PyTree) -> PyTree:
        """Mean gradient over one minibatch, which for shuffled epochs is a uniform subset."""
        return self.at_step(key, jnp.zeros((), jnp.int32), problem, params)

    def at_step(
        self, key: PRNGKeyArray, step: Int[Any, ""], problem: Any, params: PyTree
    ) -> PyTree:
        """Mean gradient over the minibatch of step `step` of the run whose key is `key`."""
        if isinstance(problem, EmpiricalRisk):
            return problem.minibatch_gradient(params, self.indices(key, step, problem.num_examples))
        return problem.batch_gradient(params, self.batch(key, step, problem))

    def batch(self, key: PRNGKeyArray, step: Int[Any, ""], problem: Any) -> PyTree:
        """The examples of step `step`, stacked along a leading axis."""
        if isinstance(problem, PopulationRisk):
            return problem.draw_examples(jax.random.fold_in(key, step), self.batch_size)
        return problem.take(self.indices(key, step, problem.num_examples))

    def indices(self, key: PRNGKeyArray, step: Int[Any, ""], num_examples: int) -> Int[Any, " S"]:
        """Which examples step `step` uses, out of `num_examples`."""
        choose = getattr(sampling, self.sampling)
        if self.white:
            return choose(jax.random.fold_in(key, step), num_examples, self.batch_size)
        return choose(key, step, num_examples, self.batch_size)

    def covariance(self, problem: Any, params: PyTree) -> Float[Any, "d d"]:
        """C(θ) from every example's gradient; on a `population_risk` an average over a sample.

        Memory N × d. On a `population_risk` the relative error is about √(2/`loss_examples`).
        """
        gradients = centred_example_gradients(problem, params)
        return self.variance_factor(problem) * gradients.T @ gradients / gradients.shape[0]


def centred_example_gradients(problem: Any, params: PyTree) -> Float[Any, "n d"]:
    """Gradient of every example at `params` minus their mean, flattened; memory n × d."""
    examples = all_examples(problem)
    gradient = jax.grad(problem.example_loss)
    rows = jax.vmap(lambda example: problem.flatten(gradient(params, example)))(examples)
    return rows - jnp.mean(rows, axis=0)


def all_examples(problem: Any) -> PyTree:
    """The data set, or for a `population_risk` its fixed sample of `loss_examples` draws."""
    if isinstance(problem, EmpiricalRisk):
        return jax.tree.map(jnp.asarray, problem.examples)
    return problem.draw_examples(jax.random.key(0), problem.loss_examples)
