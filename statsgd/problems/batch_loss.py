"""Losses in which the examples of a batch meet: batch normalisation, contrastive losses."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count
from statsgd.estimate import Estimate, exact, sample_mean
from statsgd.problems.examples import checked_examples, example_template, take
from statsgd.problems.problem import Problem, check_scalar
from statsgd.problems.randomness import in_one_form, takes_key
from statsgd.problems.start import Start, Trainable
from statsgd.problems.sums import accumulated, in_halves, mean_one_by_one

type BatchLoss = Callable[..., Float[Any, ""]]
"""`(params, batch) -> scalar`, or `(params, batch, key)` of one that is random."""

#: Batches up to whose number all are gone through.
ENUMERATED = 1024

_BATCHES_AT_ONCE = 16  # whose losses are computed together


class BatchRisk(Problem):
    """Expected loss of a batch; made by `batch_risk`."""

    examples: PyTree
    per_batch: BatchLoss
    start: Start
    batch_size: int | None = eqx.field(static=True)
    randomised: bool = eqx.field(static=True)
    loss_batches: int = eqx.field(static=True)

    @property
    def num_examples(self) -> int:
        """Number of examples N."""
        return jax.tree.leaves(self.examples)[0].shape[0]

    @property
    def exact_loss(self) -> bool:
        """Whether `loss` is of all batches, and not of some drawn ones."""
        return not self.randomised and self._number_of_batches() <= ENUMERATED

    def batch_loss(
        self, params: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
    ) -> Float[Any, ""]:
        """Loss of one batch; of one that is random, for `key`."""
        model = self.start.complete(params)
        given = (model, batch, key) if self.randomised else (model, batch)
        loss = self.per_batch(*given)
        return loss.astype(accumulated(loss.dtype))

    def batch_gradient(
        self, params: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
    ) -> PyTree:
        """Gradient of `batch_loss`."""
        return jax.grad(self.batch_loss)(params, batch, key)

    def losses(self, params: PyTree) -> Float[Any, " batches"]:
        """The losses of the batches that `loss` is the mean of."""

        # A derivative holds what is computed on the way for a few batches at once, not for all.
        @jax.checkpoint
        def one(batch: tuple[Any, Any]) -> Float[Any, ""]:
            return self.batch_loss(params, self.take(batch[0]), batch[1])

        return jax.lax.map(one, self._batches_and_keys(), batch_size=_BATCHES_AT_ONCE)

    def _batches_and_keys(self) -> tuple[Any, Any]:
        indices = self._batches()
        return jnp.asarray(indices), jax.random.split(jax.random.key(0), len(indices))

    def loss(self, params: PyTree) -> Float[Any, ""]:
        """E of the loss of a batch of `batch_size` examples without repeats, all equally likely.

        Of all batches where these are at most `ENUMERATED` (and nothing else is random), else of
        `loss_batches` fixed ones. Without a batch size the data are one batch.
        """
        return jnp.mean(self.losses(params))

    def gradient(self, params: PyTree) -> PyTree:
        """Gradient of `loss`, a pytree like `params` in single precision or better."""
        params = self.parameters(params)
        if not in_halves(params):
            return super().gradient(params)

        def one(at: PyTree, batch: tuple[Any, Any]) -> PyTree:
            return self.batch_gradient(at, self.take(batch[0]), batch[1])

        return mean_one_by_one(one, params, self._batches_and_keys())

    def loss_estimate(self, params: PyTree) -> Estimate:
        """`loss` with its standard error over batches, zero where they are all.

        Batches of one epoch share no example: the error is rather too large than too small.
        """
        losses = self.losses(params)
        return exact(jnp.mean(losses)) if self.exact_loss else sample_mean(losses)

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)

    def take(self, indices: Int[Any, " S"]) -> PyTree:
        """The examples at `indices`, which must lie in [0, N): they are not checked."""
        return take(self.examples, indices)

    def stochastic_gradient(
        self,
        key: PRNGKeyArray,
        params: PyTree,
        indices: Int[Any, " S"],
        kept: Int[Any, ""] | None = None,
    ) -> PyTree:
        """Gradient of the loss of the batch at `indices`, for `key` where it is random.

        With `kept` the first so many of the indices are the batch: all of them, or as many as are
        left of the data.
        """

        def of(number: int) -> PyTree:
            return self.batch_gradient(params, self.take(indices[:number]), key)

        size = indices.shape[0]
        rest = self.num_examples % size
        if kept is None or not rest:
            return of(size)
        return jax.lax.cond(kept < size, lambda: of(rest), lambda: of(size))

    def _number_of_batches(self) -> int:
        return math.comb(self.num_examples, self.batch_size or self.num_examples)

    def _batches(self) -> Int[np.ndarray, "batches S"]:
        number, size = self.num_examples, self.batch_size or self.num_examples
        if self._number_of_batches() == 1:
            rows = np.arange(number)[None]
            return np.repeat(rows, self.loss_batches, axis=0) if self.randomised else rows
        if self.exact_loss:
            return np.array(list(itertools.combinations(range(number), size)))
        # Those of whole epochs: every example counts alike, or the loss's minimum would leave out
        # what was not drawn, and SGD would move on from there.
        rng, of_epoch = np.random.default_rng(0), number // size
        epochs = [
            rng.permutation(number)[: of_epoch * size].reshape(of_epoch, size)
            for _ in range(-(-self.loss_batches // of_epoch))
        ]
        return np.concatenate(epochs)[: self.loss_batches]


def batch_risk(
    batch_loss: BatchLoss,
    examples: PyTree,
    initial_params: PyTree,
    *,
    batch_size: int | None = None,
    trainable: Trainable | None = None,
    randomised: bool | None = None,
    loss_batches: int = 128,
) -> BatchRisk:
    """Expected loss of a batch, where the loss is not a mean over examples.

    For batch normalisation, contrastive losses and whatever else compares the examples of a batch.
    The loss of the problem is L(θ) = E `batch_loss(θ, B)` over batches B of `batch_size` examples
    without repeats. Another batch size is another problem, with another loss.

    **Arguments:**

    - `batch_loss`: `(params, batch) -> scalar`, differentiable in `params`, or `(params, batch,
      key)` of one that is random; a batch is a pytree like `examples`.
    - `examples`, `initial_params`, `trainable` and `randomised`: as in `empirical_risk`.
    - `batch_size`: of the loss; `noise.Minibatch` must have the same. None: the loss is that of all
      examples as one batch, and a noise of any batch size may act. Batches with repeats, which
      `Minibatch` draws by default, have an expectation that differs by O(1/N).
    - `loss_batches`: fixed batches, of shuffled epochs, that the loss is a mean over where there
      are too many to go through all; `loss_estimate` has the error. With a multiple of N/S of them
      every example counts alike. More of them take time, not memory: derivatives hold what is
      computed on the way for a few batches at once.

    Raises `ValueError` as `empirical_risk`, for a batch size above N, and for a loss that is no
    scalar.

    >>> import jax.numpy as jnp, numpy as np
    >>> problem = batch_risk(lambda params, batch: jnp.var(params * batch), np.arange(4.0), 1.0)
    >>> float(problem.loss(1.0))
    1.25
    """
    random = takes_key(batch_loss, randomised)
    data = checked_examples(examples)
    number = jax.tree.leaves(data)[0].shape[0]
    size = None if batch_size is None else count("batch_size", batch_size, at_most=number)
    problem = BatchRisk(
        data,
        in_one_form(batch_loss) if random else batch_loss,
        Start.of(initial_params, trainable),
        size,
        random,
        count("loss_batches", loss_batches, at_least=2),
    )
    one = example_template(data)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size or number, *leaf.shape), leaf.dtype), one
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    check_scalar("batch_loss", jax.eval_shape(problem.batch_loss, problem.template, batch, key))
    return problem
