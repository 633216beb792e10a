"""What SGD minimises: a loss, with the data it is a mean over where there are data."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import means
from statsgd.display import html
from statsgd.problems.parameters import leaf_names, ravel
from statsgd.problems.start import Start, Trainable
from statsgd.problems.sums import accumulated

type Loss = Callable[[PyTree], Float[Any, ""]]


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
        """Gradient of `loss`, a pytree like `params` in single precision or better."""
        gradient = jax.grad(self.loss)(self.parameters(params))
        return jax.tree.map(lambda leaf: leaf.astype(accumulated(leaf.dtype)), gradient)

    def parameters(self, given: PyTree) -> PyTree:
        """The parameters of a whole model, such as a trained one, or parameters as they are.

        Constants of the model are left aside: those of the problem count. Axes of length one need
        not be there. So many numbers in another structure stay as they are, for `flatten` to read.
        Raises `ValueError` for what has other parameters than the problem.
        """
        start = getattr(self, "start", None)
        if not isinstance(start, Start):
            return given
        try:
            params = start.select(given)
        except ValueError:
            leaves = jax.tree.leaves(given)
            numbers = all(
                isinstance(leaf, float | int | np.generic | np.ndarray | jax.Array)
                for leaf in leaves
            )
            if numbers and sum(np.size(leaf) for leaf in leaves) == self.dimension:
                return given
            raise
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.template)]
        leaves, structure = jax.tree.flatten(params)
        found = [np.shape(leaf) for leaf in leaves]
        if found == shapes:
            return params
        # A number is an array of one; a matrix is not its transpose.
        if [_without_ones(shape) for shape in found] != [_without_ones(shape) for shape in shapes]:
            raise ValueError(f"params must have leaves of shapes {shapes}, got {found}")
        pairs = zip(leaves, shapes, strict=True)
        return jax.tree.unflatten(structure, [jnp.reshape(leaf, shape) for leaf, shape in pairs])

    def model(self, params: PyTree | Float[Any, " d"]) -> PyTree:
        """The user's model, which runs, with these parameters: the inverse of `parameters`.

        A flat vector `(d,)` is `unflatten`ed first; arrays get the dtypes of `template`. For
        problems of plain parameters these themselves.
        """
        if isinstance(params, np.ndarray | jax.Array) and params.shape == (self.dimension,):
            params = self.unflatten(params)
        found = jax.tree.map(
            lambda leaf, like: jnp.asarray(leaf, like.dtype), self.parameters(params), self.template
        )
        start = getattr(self, "start", None)
        return start.complete(found) if isinstance(start, Start) else found

    def __repr__(self) -> str:
        said = [f"{self.dimension} parameters {', '.join(self.names[:4])}"]
        said[0] += ", …" if len(self.names) > 4 else ""
        examples = getattr(self, "num_examples", None)
        said += [] if examples is None else [f"{examples} examples"]
        function = getattr(self, "function", getattr(self, "per_example", None))
        name = str(getattr(function, "__name__", "_"))
        said += [] if name.startswith("_") else [f"loss {name}"]
        return f"{type(self).__name__}({'; '.join(said)})"

    def _repr_html_(self) -> str:
        return html(self)

    @property
    def template(self) -> PyTree:
        """Shapes and dtypes of the parameters."""
        # Kept beside the fields, of which none ever changes; every call of a problem asks for it.
        known, width = vars(self).setdefault("_templates", {}), bool(jax.config.jax_enable_x64)
        if width not in known:
            known[width] = jax.eval_shape(lambda: self.initial_params(jax.random.key(0)))
        return known[width]

    @property
    def dimension(self) -> int:
        """Number of scalar parameters d."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.template))

    @property
    def names(self) -> list[str]:
        """Names of the parameter leaves in flattening order."""
        return leaf_names(self.template)

    def flatten(self, params: PyTree) -> Float[Any, " d"]:
        """`params`, or those of a whole model, as one vector of length `dimension`."""
        return ravel(self.parameters(params))

    def unflatten(self, vector: Float[Any, " d"]) -> PyTree:
        """The pytree that flattens to `vector`; its dtype is kept."""
        leaves, structure = jax.tree.flatten(self.template)
        ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])[:-1]
        parts = jnp.split(jnp.asarray(vector), ends)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


class SampledProblem(Problem):
    """A problem whose loss is the mean of `example_loss(params, example)` over examples."""

    @abc.abstractmethod
    def example_loss(self, params: PyTree, example: PyTree) -> Float[Any, ""]:
        """Loss of one example."""

    def batch_loss(self, params: PyTree, batch: PyTree) -> Float[Any, ""]:
        """Mean loss over a batch of examples (leading axis of every leaf)."""
        losses = jax.vmap(self.example_loss, in_axes=(None, 0))(params, batch)
        return jnp.mean(losses.astype(accumulated(losses.dtype)))

    def batch_gradient(self, params: PyTree, batch: PyTree) -> PyTree:
        """Gradient of `batch_loss`: one differentiation, not one an example."""
        return jax.grad(self.batch_loss)(params, batch)


class Landscape(Problem):
    """A loss without data; made by `landscape`. Gradient noise must be given."""

    function: Loss
    start: Start

    def loss(self, params: PyTree) -> Float[Any, ""]:
        """The loss."""
        return self.function(self.start.complete(self.parameters(params)))

    def initial_params(self, key: PRNGKeyArray) -> PyTree:
        """Parameters to start from."""
        return self.start(key)


def landscape(
    loss: Loss, initial_params: PyTree, *, trainable: Trainable | None = None
) -> Landscape:
    """A loss with no data behind it. `loss` is `params -> scalar`, differentiable.

    >>> landscape(lambda x: (x[0] - 1) ** 2, [0.0]).names
    ['params']

    **Arguments:** `initial_params` and `trainable` as in `empirical_risk`; a list of numbers is an
    array. Parameters have JAX's default precision. Raises `ValueError` for a loss that is not
    scalar and for parameters that are no finite numbers.
    """
    problem = Landscape(loss, Start.of(initial_params, trainable))
    check_scalar("loss", jax.eval_shape(problem.loss, problem.template))
    return problem


def check_scalar(name: str, result: Any) -> None:
    """Raise `ValueError` unless a loss called `name` gives one number."""
    if not (hasattr(result, "shape") and result.shape == ()):
        raise ValueError(f"{name} must return one scalar, got {result}")


means("problem", Problem, "a Problem, as statsgd.problems makes")
