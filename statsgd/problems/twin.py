"""The linear twin of a problem: the loss of every example or batch to second order at a point."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import kinds_checked
from statsgd.problems.batch_loss import BatchRisk
from statsgd.problems.parameters import as_arrays
from statsgd.problems.risk import EmpiricalRisk
from statsgd.problems.start import Start


class LinearTwin(EmpiricalRisk):
    """Examples whose gradients are linear in the parameters; made by `linear_twin`."""

    original: EmpiricalRisk
    """The problem itself, without its examples."""
    origin: PyTree
    """θ₀."""

    def example_loss(
        self, params: PyTree, example: PyTree, key: PRNGKeyArray | None = None
    ) -> Float[Any, ""]:
        """ℓ(θ₀) + x·∇ℓ(θ₀) + ½ xᵀ∇²ℓ(θ₀)x, x = θ − θ₀; of a random ℓ that of the same key."""

        def loss(at: PyTree) -> Any:
            return self._of_my_draws.example_loss(at, example, key)

        return _second_order(loss, self.origin, params)

    def batch_gradient(self, params: PyTree, batch: PyTree) -> PyTree:
        """g + Hx of a batch at θ₀, by one derivative of its gradient along x."""

        def gradient(at: PyTree) -> PyTree:
            return self._of_my_draws.batch_gradient(at, batch)

        return _first_order(gradient, self.origin, params)

    @property
    def _of_my_draws(self) -> EmpiricalRisk:
        """The problem itself as a mean over as many keys as the twin's."""
        if not self.loss_draws:
            return self.original
        return dataclasses.replace(self.original, loss_draws=self.loss_draws)


class BatchTwin(BatchRisk):
    """Batches whose gradients are linear in the parameters; made by `linear_twin`."""

    original: BatchRisk
    """The problem itself, without its examples."""
    origin: PyTree
    """θ₀."""

    def batch_loss(
        self, params: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
    ) -> Float[Any, ""]:
        """ℓ(θ₀) + x·∇ℓ(θ₀) + ½ xᵀ∇²ℓ(θ₀)x of a batch, x = θ − θ₀, for the same key."""

        def loss(at: PyTree) -> Any:
            return self.original.batch_loss(at, batch, key)

        return _second_order(loss, self.origin, params)

    def batch_gradient(
        self, params: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
    ) -> PyTree:
        """g + Hx of a batch at θ₀, by one derivative of its gradient along x."""

        def gradient(at: PyTree) -> PyTree:
            return self.original.batch_gradient(at, batch, key)

        return _first_order(gradient, self.origin, params)


def _second_order(loss: Callable[[PyTree], Any], origin: PyTree, params: PyTree) -> Any:
    away = jax.tree.map(jnp.subtract, params, origin)

    def slope(at: PyTree) -> tuple[Any, Any]:
        return jax.jvp(loss, (at,), (away,))

    (value, first), (_, second) = jax.jvp(slope, (origin,), (away,))
    return value + first + second / 2


def _first_order(gradient: Callable[[PyTree], PyTree], origin: PyTree, params: PyTree) -> PyTree:
    away = jax.tree.map(jnp.subtract, params, origin)
    here, along = jax.jvp(gradient, (origin,), (away,))
    return jax.tree.map(jnp.add, here, along)


@kinds_checked
def linear_twin(problem: EmpiricalRisk | BatchRisk, params: PyTree) -> LinearTwin | BatchTwin:
    """The problem that `problem` is to second order at θ₀ = `params`, example by example.

    A `batch_risk` is so batch by batch, and random losses for every key: the loss that a key, of
    dropout say, makes of an example is expanded as it is for that key.

    `simulate` with the same settings and seed takes the same batches and keys on both, so that its
    runs are a reference and a control variate for real ones: they know how noise grows with
    displacement to first order, and nothing non-linear. A step costs two to three of the problem's
    own. On least squares the twin is the problem itself. Far from θ₀ it diverges where SGD does
    not.

    Raises `ValueError` for a problem without a data set, or params of other shapes.

    >>> import jax, numpy as np
    >>> from statsgd.problems import multilayer_perceptron
    >>> network = multilayer_perceptron(np.eye(3), np.ones((3, 1)), hidden=[2])
    >>> twin = linear_twin(network, network.initial_params(jax.random.key(0)))
    >>> twin.dimension == network.dimension
    True
    """
    if not isinstance(problem, EmpiricalRisk | BatchRisk):
        raise ValueError(f"problem must have a data set, got {type(problem).__name__}")
    origin, start = as_arrays(problem.parameters(params)), problem.start
    if jax.tree.map(jnp.shape, origin) != jax.tree.map(jnp.shape, problem.template):
        raise ValueError(
            f"params must have the shapes {jax.tree.map(jnp.shape, problem.template)}, got "
            f"{jax.tree.map(jnp.shape, origin)}"
        )
    begin = Start(origin, None, start.chosen, start.constants, start.graphs)
    if isinstance(problem, BatchRisk):
        return BatchTwin(
            problem.examples,
            problem.per_batch,
            begin,
            problem.batch_size,
            problem.randomised,
            problem.loss_batches,
            eqx.tree_at(lambda whole: whole.examples, problem, None),
            origin,
        )
    return LinearTwin(
        problem.examples,
        problem.per_example,
        begin,
        problem.without_examples,
        origin,
        memory_budget=problem.memory_budget,
        loss_draws=problem.loss_draws,
    )
