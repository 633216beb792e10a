"""The noise of real SGD: gradients of random minibatches."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count, one_of
from statsgd.dynamics import sampling
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.dynamics.noise.sampled_covariance import (
    batches_product,
    covariance_of_batches,
    covariance_of_draws,
    draws_product,
)
from statsgd.estimate import Estimate, exact
from statsgd.precision import in_double_precision
from statsgd.problems import BatchRisk, EmpiricalRisk, PopulationRisk, Problem
from statsgd.problems.parameters import floating
from statsgd.problems.stored import Stored
from statsgd.problems.sums import accumulated, gradient_sum, mean_over_chunks

#: Numbers in the matrix of all example gradients up to which it is formed.
GRADIENTS_AT_ONCE = 2**25

_KEYS = 0x6B657973  # keeps the keys of random losses apart from those of indices


@register
class Minibatch(GradientNoise):
    """Gradient of a minibatch of S examples: a mean over them, or what a `batch_risk` makes of it.

    **Arguments:**

    - `batch_size`: S, examples per step.
    - `sampling`: `"with_replacement"` (S independent examples), `"without_replacement"` (a fresh
      uniform subset each step), `"reshuffle"` (each epoch of N/S steps goes through the data once,
      in a fresh random order), `"single_shuffle"` (one random order per run, for ever) or
      `"fresh"` (new examples each step, for a `population_risk`).
    - `drop_last`: what shuffled epochs do with the N mod S examples that are left in the end, as
      the argument of PyTorch's `DataLoader`: `True` leaves them out (others in each epoch of
      `"reshuffle"`, the same ones for ever in `"single_shuffle"`), which makes ⌊N/S⌋ steps an
      epoch; `False` makes a last, smaller batch of them, whose gradient is the mean over it, which
      makes ⌈N/S⌉. There is no default (PyTorch's is `False`): without it S must divide N.

    C = Σ₁/S with replacement and fresh, Σ₁(N−S)/(S(N−1)) without and for one whole batch of a
    shuffled epoch; Σ₁ is the centred covariance of one example's gradient, normalised by N. A loss
    that takes keys is given fresh ones at every use: what these add is divided by S alone. Shuffled
    noise is not white: at fixed θ the M = N/S batches of an epoch have covariance −C/(M−1) with one
    another and their mean is ∇L exactly; laws of epochs ask for an S that divides N. An order
    belongs to a replica and, for `reshuffle`, an epoch of its batch size; its memory does not grow
    with N.

    >>> Minibatch(16, "reshuffle")
    Minibatch(batch_size=16 examples, sampling='reshuffle')
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
    drop_last: bool | None = eqx.field(static=True)

    def __init__(
        self,
        batch_size: int,
        sampling: str = "with_replacement",
        *,
        drop_last: bool | None = None,
    ):
        self.batch_size = count("batch_size", batch_size)
        self.sampling = one_of("sampling", sampling, self.SAMPLING)
        if drop_last is not None and self.white:
            raise ValueError(
                "drop_last must go with sampling 'reshuffle' or 'single_shuffle', which have last "
                f"batches, got {drop_last!r} with {sampling!r}"
            )
        self.drop_last = None if drop_last is None else bool(drop_last)

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
        if isinstance(problem, BatchRisk) and problem.batch_size not in (None, self.batch_size):
            raise ValueError(
                f"batch_size must be {problem.batch_size}, that of the batch_risk, whose loss is "
                f"of such batches, got {self.batch_size}"
            )
        if not isinstance(problem, EmpiricalRisk | BatchRisk):
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
        if not self.white and self.drop_last is None:
            self.require_equal_batches(n, "drop_last=True or False allows other sizes")

    def require_equal_batches(
        self, num_examples: int, otherwise: str = "white sampling needs no epochs"
    ) -> None:
        """Raise `ValueError` unless shuffled epochs go through all examples in equal batches.

        Theories of epochs need it, whatever `drop_last` is.
        """
        n = num_examples
        if not self.white and n % self.batch_size:
            raise ValueError(
                f"batch_size must divide num_examples for sampling {self.sampling!r}, got "
                f"batch_size {self.batch_size} and num_examples {n}, remainder "
                f"{n % self.batch_size}; {otherwise}"
            )

    def batches_per_epoch(self, num_examples: int) -> int:
        """Steps in which an epoch goes through the data, ⌊N/S⌋ or, with a smaller last one, ⌈N/S⌉.

        The steps of `simulate` are such a multiple for whole epochs.
        """
        whole, rest = divmod(num_examples, self.batch_size)
        return whole + bool(rest and self.drop_last is False)

    def knows_examples(self, problem: Problem) -> bool:
        """Whether C follows from one gradient of every example: nothing else is random."""
        return not isinstance(problem, BatchRisk) and not getattr(problem, "loss_draws", 0)

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
        if isinstance(problem, PopulationRisk):
            return problem.batch_gradient(params, self.batch(key, step, problem))
        number = problem.num_examples
        own = jax.random.fold_in(jax.random.fold_in(key, step), _KEYS)
        indices = self.indices(key, step, number)
        return problem.stochastic_gradient(own, params, indices, self._kept(step, number))

    def _kept(self, step: Int[Any, ""], num_examples: int) -> Int[Any, ""] | None:
        """Examples of the batch of step `step` where not all batches are equal."""
        rest = num_examples % self.batch_size
        if not rest or self.drop_last is not False:
            return None
        batches = self.batches_per_epoch(num_examples)
        return jnp.where(step % batches == batches - 1, rest, self.batch_size)

    def batch(self, key: PRNGKeyArray, step: Int[Any, ""], problem: Any) -> PyTree:
        """The examples of step `step`, stacked along a leading axis.

        A smaller last batch of an epoch is filled up with copies of its last example.
        """
        if isinstance(problem, PopulationRisk):
            return problem.draw_examples(jax.random.fold_in(key, step), self.batch_size)
        return problem.take(self.indices(key, step, problem.num_examples))

    def indices(self, key: PRNGKeyArray, step: Int[Any, ""], num_examples: int) -> Int[Any, " S"]:
        """Which examples step `step` uses, out of `num_examples`, as in `batch`."""
        choose = getattr(sampling, self.sampling)
        if self.white:
            return choose(jax.random.fold_in(key, step), num_examples, self.batch_size)
        batches = self.batches_per_epoch(num_examples)
        return choose(key, step, num_examples, self.batch_size, batches)

    def covariance(self, problem: Any, params: PyTree) -> Float[Any, "d d"]:
        """C(θ) from every example's gradient, chunk by chunk where these do not fit in memory.

        Of one whole batch. On a `population_risk` an average over a sample, with a relative error
        of about √(2/`loss_examples`); for random losses and a `batch_risk` the value of
        `covariance_estimate`.
        """
        return self.covariance_estimate(problem, params).value

    def covariance_estimate(self, problem: Any, params: PyTree) -> Estimate:
        """C(θ) with standard errors, `(d, d)` each: zero where every example's gradient is known.

        For losses that take keys a mean over pairs of fixed keys of every example, and for a
        `batch_risk` the sample covariance of the gradients of 1024 fixed batches (of all batches
        without repeats where those are few); neither has a bias.
        """
        params = problem.parameters(params)
        if isinstance(problem, BatchRisk):
            return covariance_of_batches(self, problem, params)
        factor = self.variance_factor(problem)
        if not self.knows_examples(problem):
            return covariance_of_draws(problem, params, factor, 1 / self.batch_size)
        return exact(factor * example_covariance(problem, params))

    def covariance_along(
        self, problem: Any, params: PyTree, directions: Float[Any, "d k"]
    ) -> Estimate:
        """VᵀCV of what `knows_examples` denies, `(k, k)`: `covariance_estimate` along V."""
        params = problem.parameters(params)
        if isinstance(problem, BatchRisk):
            return in_double_precision(covariance_of_batches, self, problem, params, directions)
        ask = (self.variance_factor(problem), 1 / self.batch_size, directions)
        return covariance_of_draws(problem, floating(params), *ask, double=True)

    def key_covariance_along(
        self, problem: Any, params: PyTree, directions: Float[Any, "d k"]
    ) -> Estimate:
        """What of `covariance_along` the keys of random losses add, on the same draws."""
        ask = (0.0, 1 / self.batch_size, directions)
        return covariance_of_draws(problem, floating(problem.parameters(params)), *ask, double=True)

    def covariance_product(
        self, problem: Any, params: PyTree, vector: Float[Any, " d"]
    ) -> Float[Any, " d"]:
        """C v of what `knows_examples` denies, without the matrix of `covariance_estimate`."""
        if isinstance(problem, BatchRisk):
            return in_double_precision(batches_product, self, problem, params, vector)
        ask = (self.variance_factor(problem), 1 / self.batch_size, vector)
        return draws_product(problem, params, *ask, double=True)


def example_covariance(problem: Any, params: PyTree) -> Float[Any, "d d"]:
    """Σ₁, the centred covariance of one example's gradient; memory d² and a chunk's gradients."""
    if not isinstance(problem, EmpiricalRisk) or (
        not problem.on_disk and problem.num_examples * problem.dimension <= GRADIENTS_AT_ONCE
    ):
        rows = centred_example_gradients(problem, params)
        return rows.T @ rows / rows.shape[0]
    mean = problem.flatten(mean_over_chunks(problem, gradient_sum, params))
    width = 4 * problem.dimension * mean.dtype.itemsize
    return mean_over_chunks(problem, _outer_products, params, mean, width=width)


def centred_example_gradients(problem: Any, params: PyTree) -> Float[Any, "n d"]:
    """Gradient of every example at `params` minus their mean, flattened; memory n × d."""
    rows = _example_gradients(problem, params, all_examples(problem))
    return rows - jnp.mean(rows, axis=0)


def _example_gradients(problem: Any, params: PyTree, examples: PyTree) -> Float[Any, "n d"]:
    gradient = jax.grad(problem.example_loss)
    rows = jax.vmap(lambda example: problem.flatten(gradient(params, example)))(examples)
    return rows.astype(accumulated(rows.dtype))


def _outer_products(
    problem: Any, params: PyTree, chunk: PyTree, weights: Any, mean: Float[Any, " d"]
) -> Float[Any, "d d"]:
    rows = _example_gradients(problem, params, chunk) - mean
    return (weights[:, None] * rows).T @ rows


def all_examples(problem: Any) -> PyTree:
    """The data set, in memory, or for a `population_risk` its fixed sample of `loss_examples`."""
    if isinstance(problem, EmpiricalRisk):
        return jax.tree.map(
            lambda leaf: (
                leaf.fetch(jnp.arange(leaf.shape[0]))
                if isinstance(leaf, Stored)
                else jnp.asarray(leaf)
            ),
            problem.examples,
        )
    return problem.draw_examples(jax.random.key(0), problem.loss_examples)
