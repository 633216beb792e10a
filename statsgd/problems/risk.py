"""Losses that are means over examples: of a data set, or drawn afresh."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count
from statsgd.estimate import Estimate, exact, sample_mean
from statsgd.problems.chunk_sizes import chunk_size
from statsgd.problems.examples import checked_examples, example_template, take
from statsgd.problems.problem import Loss, SampledProblem, check_scalar
from statsgd.problems.randomness import OfPair, WithKey, example_key, in_one_form, takes_key
from statsgd.problems.start import Start, Trainable
from statsgd.problems.stored import Stored
from statsgd.problems.sums import (
    accumulated,
    gradient_sum,
    in_halves,
    loss_sum,
    mean_one_by_one,
    mean_over_chunks,
    mean_over_examples,
)

type ExampleLoss = Callable[..., Float[Any, ""]]
"""`(params, example) -> scalar`, or `(params, example, key)` of one that is random."""


class EmpiricalRisk(SampledProblem):
    """Mean loss over a data set; made by `empirical_risk`."""

    examples: PyTree
    per_example: ExampleLoss
    start: Start
    memory_budget: int | None = eqx.field(static=True, default=None, kw_only=True)
    """Bytes that what is computed for a chunk of examples may take; None for the default."""
    loss_draws: int = eqx.field(static=True, default=0, kw_only=True)
    """Keys of every example that the loss is a mean over; 0 where nothing is random."""

    @property
    def num_examples(self) -> int:
        """Number of examples N."""
        return jax.tree.leaves(self.examples)[0].shape[0]

    @property
    def without_examples(self) -> "EmpiricalRisk":
        """The same without its data: what a loss of given examples needs."""
        return eqx.tree_at(lambda problem: problem.examples, self, None)

    def example_loss(
        self, params: PyTree, example: PyTree, key: PRNGKeyArray | None = None
    ) -> Float[Any, ""]:
        """Loss of one example; of one that is random, for `key` or the mean over its fixed keys."""
        if self.loss_draws and key is None:
            losses = self.losses_of_draws(params, example)
            return jnp.mean(losses.astype(accumulated(losses.dtype)))
        model = self.start.complete(params)
        given = (model, example, key) if self.loss_draws else (model, example)
        return self.per_example(*given)

    def losses_of_draws(self, params: PyTree, example: PyTree) -> Float[Any, " draws"]:
        """The loss of one example for each of its fixed keys."""
        keys = jax.random.split(example_key(example), self.loss_draws)
        return jax.vmap(lambda key: self.example_loss(params, example, key))(keys)

    def loss(self, params: PyTree) -> Float[Any, ""]:
        """Mean loss over the whole data set, chunk by chunk where the memory budget asks for it."""
        params = self.parameters(params)
        if self._in_chunks(params):
            return mean_over_chunks(self, loss_sum, params)
        return self.batch_loss(params, jax.tree.map(jnp.asarray, self.examples))

    def gradient(self, params: PyTree) -> PyTree:
        """Gradient of `loss`, a pytree like `params` in single precision or better; as that.

        Of parameters of 16 bits every example of a chunk has its own, in memory and time.
        """
        params = self.parameters(params)
        if in_halves(params) or self._in_chunks(params):
            return mean_over_chunks(self, gradient_sum, params)
        return super().gradient(params)

    @property
    def on_disk(self) -> bool:
        """Whether some of the data are read from a disk as they are needed."""
        return any(isinstance(leaf, Stored) for leaf in jax.tree.leaves(self.examples))

    def _in_chunks(self, params: PyTree) -> bool:
        return self.on_disk or chunk_size(self, params) < self.num_examples

    def loss_estimate(self, params: PyTree) -> Estimate:
        """`loss` with the standard error of the mean over keys, zero where nothing is random."""
        if not self.loss_draws:
            return exact(self.loss(params))
        return sample_mean(mean_over_examples(self, _each_draw, self.parameters(params)))

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)

    def take(self, indices: Int[Any, " S"]) -> PyTree:
        """The examples at `indices`, which must lie in [0, N): they are not checked."""
        return take(self.examples, indices)

    def minibatch_gradient(self, params: PyTree, indices: Int[Any, " S"]) -> PyTree:
        """Gradient of the mean loss over the examples at `indices`."""
        return self.batch_gradient(params, self.take(indices))

    def stochastic_gradient(
        self,
        key: PRNGKeyArray,
        params: PyTree,
        indices: Int[Any, " S"],
        kept: Int[Any, ""] | None = None,
    ) -> PyTree:
        """`minibatch_gradient` with fresh keys for losses that are random.

        With `kept` the first so many of the indices make the batch.
        """
        size = indices.shape[0]
        if kept is None and not self.loss_draws:
            return self.minibatch_gradient(params, indices)
        batch, number = self.take(indices), size if kept is None else kept
        weights = jnp.where(jnp.arange(size) < number, 1 / jnp.asarray(number, float), 0.0)
        if not self.loss_draws:
            return jax.grad(loss_sum, argnums=1)(self, params, batch, weights)

        def loss(at: PyTree) -> Float[Any, ""]:
            keys = jax.random.split(key, size)
            losses = jax.vmap(self.example_loss, in_axes=(None, 0, 0))(at, batch, keys)
            return jnp.sum(weights * losses)

        return jax.grad(loss)(params)

    def example_gradients(self, params: PyTree, indices: Int[Any, " S"]) -> PyTree:
        """Gradient of each example in `indices`: leaves gain a leading axis of that length."""
        gradient, params = jax.grad(self.example_loss), self.parameters(params)
        return jax.vmap(gradient, in_axes=(None, 0))(params, self.take(indices))


def _each_draw(problem: Any, params: PyTree, example: PyTree) -> Float[Any, " draws"]:
    return problem.losses_of_draws(params, example)


class PopulationRisk(SampledProblem):
    """Expected loss over fresh examples; made by `population_risk`."""

    draw_example: Callable[[PRNGKeyArray], PyTree]
    per_example: ExampleLoss
    start: Start
    exact_loss: Loss | None
    loss_examples: int = eqx.field(static=True)

    def example_loss(self, params: PyTree, example: PyTree) -> Float[Any, ""]:
        """Loss of one example."""
        return self.per_example(self.start.complete(params), example)

    def draw_examples(self, key: PRNGKeyArray, number: int) -> PyTree:
        """`number` independent examples, stacked along a leading axis."""
        return jax.vmap(self.draw_example)(jax.random.split(key, number))

    def loss(self, params: PyTree) -> Float[Any, ""]:
        """Expected loss: exact if given, else the mean over a fixed sample of `loss_examples`."""
        if self.exact_loss is not None:
            return self.exact_loss(self.start.complete(params))
        return self.batch_loss(params, self._examples())

    def gradient(self, params: PyTree) -> PyTree:
        """Gradient of `loss`, a pytree like `params` in single precision or better."""
        params = self.parameters(params)
        if self.exact_loss is None and in_halves(params):
            return mean_one_by_one(jax.grad(self.example_loss), params, self._examples())
        return super().gradient(params)

    def _examples(self) -> PyTree:
        return self.draw_examples(jax.random.key(0), self.loss_examples)

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)


def empirical_risk(
    example_loss: ExampleLoss,
    examples: PyTree,
    initial_params: PyTree,
    *,
    trainable: Trainable | None = None,
    randomised: bool | None = None,
    loss_draws: int = 16,
    memory_budget: int | None = None,
) -> EmpiricalRisk:
    """Mean of `example_loss` over a data set.

    Sums over all examples run in chunks, one after the other, at once on all local devices. Their
    memory does not grow with the number of examples, nor does that of examples on disk.

    **Arguments:**

    - `example_loss`: `(params, example) -> scalar`, differentiable in `params`; or `(params,
      example, key)` of one that is random (dropout, augmentation). `params` is what was given as
      `initial_params`: a whole model, if that was one.
    - `examples`: pytree of arrays with the same leading axis N (`(inputs, targets)`, a dict, …), in
      memory or on disk (`np.memmap`, Zarr and the like, which are read in slices). Or an iterable
      of batches of them (a loader of Grain, tf.data or PyTorch), or a function that returns one: it
      is gone through once, into temporary files of the size of the data, so that every sum and
      every order of batches is of the same examples. It must end: data that repeat are refused when
      they fill half of the disk, or `problems.stored.DISK_BUDGET` bytes.
    - `initial_params`: a model or any pytree, whose inexact arrays are the parameters
      (`problems.start.Start` says what is not), or a function `key -> model`, which gives every
      replica a start of its own. bfloat16 and float16 arrays stay so and are computed in; sums over
      examples are in single precision or better.
    - `trainable`: which of the parameters are trained, by default all: names or a function of them,
      truth values in the structure of the model, or a filter of Flax NNX, such as `nnx.LoRAParam`
      (`problems.start.Start.of`).
    - `randomised`: whether `example_loss` takes a key, by default what its signature says. The loss
      of the problem is its expectation over keys, a mean over `loss_draws` fixed ones of every
      example (`loss_estimate` has the error); `noise.Minibatch` draws fresh ones at every step, and
      what they add is gradient noise.
    - `memory_budget`: bytes that what is computed on the way to the losses of a chunk may take on a
      device, by default `problems.chunk_sizes.MEMORY_BUDGET`, the fastest on most networks.

    Raises `ValueError` for ragged, empty or non-finite data, for a loss that is not scalar, for
    complex parameters, and for a model with batch statistics, which `batch_risk` takes.

    >>> import numpy as np
    >>> def loss(params, example):
    ...     return 0.5 * (params["slope"] * example[0] - example[1]) ** 2
    >>> problem = empirical_risk(loss, (np.ones(3), np.array([1.0, 2.0, 3.0])), {"slope": 0.0})
    >>> problem.num_examples, problem.names, round(float(problem.loss({"slope": 2.0})), 4)
    (3, ['slope'], 0.3333)
    """
    random = takes_key(example_loss, randomised)
    problem = EmpiricalRisk(
        checked_examples(examples),
        in_one_form(example_loss) if random else example_loss,
        Start.of(initial_params, trainable, batch_statistics=False),
        memory_budget=None if memory_budget is None else count("memory_budget", memory_budget),
        loss_draws=count("loss_draws", loss_draws, at_least=4) if random else 0,
    )
    _check_example_loss(problem, example_template(problem.examples))
    return problem


def population_risk(
    example_loss: ExampleLoss,
    draw_example: Callable[[PRNGKeyArray], PyTree],
    initial_params: PyTree,
    *,
    exact_loss: Loss | None = None,
    loss_examples: int = 4096,
    trainable: Trainable | None = None,
    randomised: bool | None = None,
) -> PopulationRisk:
    """Expected `example_loss` over examples drawn afresh: every step sees new data.

    **Arguments:**

    - `example_loss`: `(params, example) -> scalar`, differentiable in `params`, or `(params,
      example, key)`: with a key an example is a pair of what was drawn and of a key.
    - `draw_example`: `key -> example`.
    - `initial_params`, `trainable` and `randomised`: as in `empirical_risk`.
    - `exact_loss`: `params -> expected loss`, if known in closed form. Without it `loss` and
      everything computed from it (Hessian, minimum) is an average over a fixed sample of
      `loss_examples` draws, with the error of such an average.

    >>> import jax
    >>> problem = population_risk(
    ...     lambda params, x: 0.5 * (params - x) ** 2, lambda key: jax.random.normal(key), 0.0
    ... )
    >>> problem.dimension
    1
    """
    if takes_key(example_loss, randomised):
        draw_example, example_loss = WithKey(draw_example), OfPair(in_one_form(example_loss))
    problem = PopulationRisk(
        draw_example,
        example_loss,
        Start.of(initial_params, trainable, batch_statistics=False),
        exact_loss,
        count("loss_examples", loss_examples),
    )
    _check_example_loss(problem, jax.eval_shape(draw_example, jax.random.key(0)))
    return problem


def _check_example_loss(problem: SampledProblem, example: PyTree) -> None:
    check_scalar("example_loss", jax.eval_shape(problem.example_loss, problem.template, example))
