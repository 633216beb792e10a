"""What a diagnosis reads off the gradients of all examples, a few of them at a time."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.dynamics.noise import GradientNoise, Minibatch
from statsgd.estimate import Estimate
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk, Problem
from statsgd.problems.parameters import floating
from statsgd.problems.sums import loss_sum, mean_over_chunks, mean_over_examples
from statsgd.problems.weighted import squared_gradient

#: Stochastic gradients that are drawn for what is no mean over examples.
DRAWS = 16


def of_examples(problem: Problem, noise: GradientNoise) -> bool:
    """Whether a stochastic gradient is the mean of known gradients of a data set's examples."""
    return (
        isinstance(noise, Minibatch)
        and isinstance(problem, EmpiricalRisk)
        and noise.knows_examples(problem)
    )


class Standing(NamedTuple):
    """Loss and force at one point."""

    loss: Any
    gradient: Float[Any, " d"]
    """∇L, without weight decay."""


def standing(problem: Problem, params: PyTree, *, double: bool = True) -> Standing:
    """L and ∇L at `params`, in double precision; `double=False`: of a data set, in theirs."""
    at = floating(params)
    if isinstance(problem, EmpiricalRisk):
        loss, gradient = mean_over_chunks(problem, _of_chunk, at, double=double, progress=False)
    else:
        loss, gradient = in_double_precision(_of_problem, problem, at)
    return Standing(loss, np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)]))


def loss_at(problem: Problem, params: PyTree) -> float:
    """L at `params`, in double precision."""
    at = floating(params)
    if isinstance(problem, EmpiricalRisk):
        return float(mean_over_chunks(problem, loss_sum, at, double=True, progress=False))
    return float(in_double_precision(_loss, problem, at))


def noise_trace(
    problem: Problem, params: PyTree, noise: GradientNoise, gradient: Any, draws: Any
) -> Estimate:
    """Tr C of one stochastic gradient: exact for batches `of_examples`, else from `draws`.

    `gradient` is ∇L there, and `draws` are those of `noise_draws`.
    """
    if of_examples(problem, noise):
        mean_square = mean_over_examples(
            problem, squared_gradient, floating(params), double=True, progress=False
        )
        factor = noise.variance_factor(problem)  # type: ignore[attr-defined]
        return Estimate(float(factor * (mean_square - gradient @ gradient)), 0.0)
    squares = np.sum(draws**2, axis=1)
    return Estimate(float(squares.mean()), float(squares.std(ddof=1) / np.sqrt(len(squares))))


def noise_draws(
    problem: Problem, params: PyTree, noise: GradientNoise, gradient: Any, seed: int
) -> Float[Any, "draws d"]:
    """ĝ − ∇L of some independent stochastic gradients, whose mean outer product is C."""
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    drawn = in_double_precision(_drawn, problem, floating(params), noise, keys)
    return np.asarray(drawn) - gradient


_of_chunk = jax.value_and_grad(loss_sum, argnums=1)


def _of_problem(problem: Problem, params: PyTree) -> tuple[Any, Any]:
    return problem.loss(params), problem.gradient(params)


def _loss(problem: Problem, params: PyTree) -> Any:
    return problem.loss(params)


def _drawn(problem: Any, params: PyTree, noise: Any, keys: Any) -> Float[Any, "n d"]:
    return jax.lax.map(lambda key: problem.flatten(noise.draw(key, problem, params)), keys)
