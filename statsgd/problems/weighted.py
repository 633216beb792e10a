"""Sums over examples with weights of their own, and sums of squares of their gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.problems.risk import EmpiricalRisk
from statsgd.problems.sums import accumulated, gradient_sum, mean_over_chunks, mean_over_examples


class Weighted(EmpiricalRisk):
    """Examples (example, w) of loss wℓ; made by `weighted_gradient`."""

    original: EmpiricalRisk
    """The problem itself, without its examples."""

    def example_loss(
        self, params: PyTree, example: PyTree, key: PRNGKeyArray | None = None
    ) -> Float[Any, ""]:
        """wℓ."""
        return example[1] * self.original.example_loss(params, example[0], key)


def weighted_gradient(
    problem: EmpiricalRisk, params: PyTree, weights: Float[Any, " N"]
) -> Float[Any, " d"]:
    """(1/N) Σ w_n ∇ℓ_n at `params`, flat and in double precision, at the cost of one gradient."""
    weighted = Weighted(
        (problem.examples, np.asarray(weights, dtype=np.float64)),
        problem.per_example,
        problem.start,
        problem.without_examples,
        memory_budget=problem.memory_budget,
    )
    found = mean_over_chunks(weighted, gradient_sum, params, double=True)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])


def example_square(problem: EmpiricalRisk, params: PyTree) -> float:
    """(1/N) Σ |∇ℓ_n|² at `params`, in double precision; holds the gradients of a chunk at once."""
    return float(mean_over_examples(problem, squared_gradient, params, double=True))


def squared_gradient(problem: Any, params: PyTree, example: PyTree) -> Float[Any, ""]:
    """|∇ℓ|² of one example, in single precision or better."""
    gradient = jax.grad(problem.example_loss)(params, example)
    wide = [leaf.astype(accumulated(leaf.dtype)) for leaf in jax.tree.leaves(gradient)]
    return jnp.asarray(sum(jnp.sum(leaf**2) for leaf in wide))
