"""What SGD minimises: a loss, with the data it is a mean over where there are data."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count, finite_array
from statsgd.problems.parameters import as_arrays, leaf_names, ravel, require_real
from statsgd.problems.sums import chunk_size, gradient_sum, loss_sum, mean_over_chunks

type Loss = Callable[[PyTree], Float[Any, ""]]
type ExampleLoss = Callable[[PyTree, PyTree], Float[Any, ""]]


class Problem(eqx.Module):
    """A loss to minimise over a pytree of parameters.

    `loss` is the mean loss without any regulariser: weight decay belongs to the update rule.
    """

    @abc.abstractmethod
    def loss(self, params: PyTree) -> Float[Any, ""]:
        """Mean loss at `params`."""

    @abc.abstractmethod
    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from; the same for every key if the problem fixes them."""

    def gradient(self, params: PyTree) -> PyTree:
        """Gradient of `loss`, a pytree like `params`."""
        return jax.grad(self.loss)(params)

    @property
    def template(self) -> PyTree:
        """Shapes and dtypes of the parameters."""
        return jax.eval_shape(lambda: self.initial_params(jax.random.key(0)))

    @property
    def dimension(self) -> int:
        """Number of scalar parameters d."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.template))

    @property
    def names(self) -> list[str]:
        """Names of the parameter leaves in flattening order."""
        return leaf_names(self.template)

    def flatten(self, params: PyTree) -> Float[Any, " d"]:
        """`params` as one vector of length `dimension`."""
        return ravel(params)

    def unflatten(self, vector: Float[Any, " d"]) -> PyTree:
        """The pytree that flattens to `vector`; its dtype is kept."""
        leaves, structure = jax.tree.flatten(self.template)
        ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])[:-1]
        parts = jnp.split(jnp.asarray(vector), ends)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)


class SampledProblem(Problem):
    """A problem whose loss is the mean of `example_loss(params, example)` over examples."""

    @abc.abstractmethod
    def example_loss(self, params: PyTree, example: PyTree) -> Float[Any, ""]:
        """Loss of one example."""

    def batch_loss(self, params: PyTree, batch: PyTree) -> Float[Any, ""]:
        """Mean loss over a batch of examples (leading axis of every leaf)."""
        return jnp.mean(jax.vmap(self.example_loss, in_axes=(None, 0))(params, batch))

    def batch_gradient(self, params: PyTree, batch: PyTree) -> PyTree:
        """Gradient of `batch_loss`: one differentiation, not one an example."""
        return jax.grad(self.batch_loss)(params, batch)


class EmpiricalRisk(SampledProblem):
    """Mean loss over a data set; made by `empirical_risk`."""

    examples: PyTree
    per_example: ExampleLoss
    start: "Start"
    memory_budget: int | None = eqx.field(static=True, default=None, kw_only=True)
    """Bytes that what is computed for a chunk of examples may take; None for the default."""

    @property
    def num_examples(self) -> int:
        """Number of examples N."""
        return jax.tree.leaves(self.examples)[0].shape[0]

    @property
    def without_examples(self) -> "EmpiricalRisk":
        """The same without its data: what a loss of given examples needs."""
        return eqx.tree_at(lambda problem: problem.examples, self, None)

    def example_loss(self, params: PyTree, example: PyTree) -> Float[Any, ""]:
        """Loss of one example."""
        return self.per_example(self.start.complete(params), example)

    def loss(self, params: PyTree) -> Float[Any, ""]:
        """Mean loss over the whole data set, chunk by chunk where the memory budget asks for it."""
        if chunk_size(self, params) < self.num_examples:
            return mean_over_chunks(self, loss_sum, params)
        return self.batch_loss(params, jax.tree.map(jnp.asarray, self.examples))

    def gradient(self, params: PyTree) -> PyTree:
        """Gradient of `loss`, a pytree like `params`, chunk by chunk as that."""
        if chunk_size(self, params) < self.num_examples:
            return mean_over_chunks(self, gradient_sum, params)
        return jax.grad(self.loss)(params)

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)

    def take(self, indices: Int[Any, " S"]) -> PyTree:
        """The examples at `indices`, which must lie in [0, N): they are not checked."""
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf).at[indices].get(mode="promise_in_bounds"), self.examples
        )

    def minibatch_gradient(self, params: PyTree, indices: Int[Any, " S"]) -> PyTree:
        """Gradient of the mean loss over the examples at `indices`."""
        return self.batch_gradient(params, self.take(indices))

    def example_gradients(self, params: PyTree, indices: Int[Any, " S"]) -> PyTree:
        """Gradient of each example in `indices`: leaves gain a leading axis of that length."""
        gradient = jax.grad(self.example_loss)
        return jax.vmap(gradient, in_axes=(None, 0))(params, self.take(indices))


class PopulationRisk(SampledProblem):
    """Expected loss over fresh examples; made by `population_risk`."""

    draw_example: Callable[[PRNGKeyArray], PyTree]
    per_example: ExampleLoss
    start: "Start"
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
        return self.batch_loss(params, self.draw_examples(jax.random.key(0), self.loss_examples))

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)


class Landscape(Problem):
    """A loss without data; made by `landscape`. Gradient noise must be given."""

    function: Loss
    start: "Start"

    def loss(self, params: PyTree) -> Float[Any, ""]:
        """The loss."""
        return self.function(self.start.complete(params))

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)


class Start(eqx.Module):
    """Where parameters come from: a pytree, or a function of a key.

    A model may hold leaves that are not numbers (an activation function, say). They are kept aside
    and put back by `complete` before the user's loss sees the parameters; a function of a key must
    give the same ones for every key.
    """

    params: PyTree | None
    draw: Callable[[PRNGKeyArray], PyTree] | None
    fixed: PyTree

    @classmethod
    def of(cls, initial_params: Any) -> "Start":
        """From a params pytree or a function `key -> params`."""
        numbers, rest = eqx.partition(initial_params, eqx.is_inexact_array_like)
        if jax.tree.leaves(numbers):
            require_real("initial_params", numbers)
            for name, leaf in zip(leaf_names(numbers), jax.tree.leaves(numbers), strict=True):
                finite_array(f"initial_params {name!r}", leaf)
            return cls(as_arrays(numbers), None, rest)
        if not callable(initial_params):
            raise ValueError(
                "initial_params must be a pytree of floating arrays or a function of a key, "
                f"got {initial_params!r}"
            )
        numbers, rest = eqx.partition(initial_params(jax.random.key(0)), _is_inexact)
        if not jax.tree.leaves(numbers):
            raise ValueError("initial_params(key) must return a pytree with at least one array")
        require_real("initial_params(key)", numbers)
        return cls(None, initial_params, rest)

    def __call__(self, key: PRNGKeyArray) -> PyTree:
        """Parameters for `key`."""
        if self.draw is None:
            return as_arrays(self.params)
        return as_arrays(eqx.filter(self.draw(key), _is_inexact))

    def complete(self, params: PyTree) -> PyTree:
        """`params` with the parts that are not parameters put back."""
        return eqx.combine(params, self.fixed)


def _is_inexact(leaf: Any) -> bool:
    # Equinox's own test of the like fails for tracers.
    number = isinstance(leaf, float | complex | np.generic | np.ndarray | jax.Array)
    return number and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def empirical_risk(
    example_loss: ExampleLoss,
    examples: PyTree,
    initial_params: PyTree,
    *,
    memory_budget: int | None = None,
) -> EmpiricalRisk:
    """Mean of `example_loss` over a data set.

    Sums over all examples run in chunks, one after the other, at once on all local devices.

    **Arguments:**

    - `example_loss`: `(params, example) -> scalar`, differentiable in `params`.
    - `examples`: pytree of arrays with the same leading axis N (`(inputs, targets)`, a dict, …).
    - `initial_params`: params pytree, or a function `key -> params`, which gives every replica a
      start of its own. Equinox modules are split into their arrays (the parameters) and the rest.
    - `memory_budget`: bytes that what is computed on the way to the losses of a chunk may take on a
      device, by default `problems.sums.MEMORY_BUDGET`, the fastest on most networks.

    Raises `ValueError` for ragged, empty or non-finite data and for a loss that is not scalar.
    """
    leaves, structure = jax.tree.flatten(examples, is_leaf=lambda x: isinstance(x, list))
    if not leaves:
        raise ValueError("examples must hold at least one array, got an empty pytree")
    checked = [_data(f"examples[{i}]", leaf) for i, leaf in enumerate(leaves)]
    sizes = {leaf.shape[0] for leaf in checked}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "examples must be arrays with one common, non-empty leading axis, got shapes "
            f"{[leaf.shape for leaf in checked]}"
        )
    problem = EmpiricalRisk(
        jax.tree.unflatten(structure, checked),
        example_loss,
        Start.of(initial_params),
        memory_budget=None if memory_budget is None else count("memory_budget", memory_budget),
    )
    _check_example_loss(problem, jax.tree.map(lambda leaf: leaf[0], problem.examples))
    return problem


def population_risk(
    example_loss: ExampleLoss,
    draw_example: Callable[[PRNGKeyArray], PyTree],
    initial_params: PyTree,
    *,
    exact_loss: Loss | None = None,
    loss_examples: int = 4096,
) -> PopulationRisk:
    """Expected `example_loss` over examples drawn afresh: every step sees new data.

    **Arguments:**

    - `example_loss`: `(params, example) -> scalar`, differentiable in `params`.
    - `draw_example`: `key -> example`.
    - `initial_params`: as in `empirical_risk`.
    - `exact_loss`: `params -> expected loss`, if known in closed form. Without it `loss` and
      everything computed from it (Hessian, minimum) is an average over a fixed sample of
      `loss_examples` draws, with the error of such an average.
    """
    problem = PopulationRisk(
        draw_example,
        example_loss,
        Start.of(initial_params),
        exact_loss,
        count("loss_examples", loss_examples),
    )
    _check_example_loss(problem, jax.eval_shape(draw_example, jax.random.key(0)))
    return problem


def landscape(loss: Loss, initial_params: PyTree) -> Landscape:
    """A loss with no data behind it. `loss` is `params -> scalar`, differentiable."""
    problem = Landscape(loss, Start.of(initial_params))
    _check_scalar("loss", jax.eval_shape(problem.loss, problem.template))
    return problem


def _data(name: str, leaf: Any) -> Any:
    # Integer leaves (labels, token ids) must stay integers: they index.
    try:
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array, got ragged rows") from None
    if array.ndim == 0:
        raise ValueError(f"{name} must have a leading axis over examples, got a scalar")
    if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
        return array
    return finite_array(name, array)


def _check_example_loss(problem: SampledProblem, example: PyTree) -> None:
    _check_scalar("example_loss", jax.eval_shape(problem.example_loss, problem.template, example))


def _check_scalar(name: str, result: Any) -> None:
    if not (hasattr(result, "shape") and result.shape == ()):
        raise ValueError(f"{name} must return one scalar, got {result}")
