"""The linear twin of a problem: every example's loss to second order around one point."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import kinds_checked
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
        """ℓ(θ₀) + x·∇ℓ(θ₀) + ½ xᵀ∇²ℓ(θ₀)x, x = θ − θ₀."""
        away = jax.tree.map(jnp.subtract, params, self.origin)

        def loss(at: PyTree) -> Any:
            return self.original.example_loss(at, example)

        def slope(at: PyTree) -> tuple[Any, Any]:
            return jax.jvp(loss, (at,), (away,))

        (value, first), (_, second) = jax.jvp(slope, (self.origin,), (away,))
        return value + first + second / 2

    def batch_gradient(self, params: PyTree, batch: PyTree) -> PyTree:
        """g + Hx of a batch at θ₀, by one derivative of its gradient along x."""
        away = jax.tree.map(jnp.subtract, params, self.origin)

        def gradient(at: PyTree) -> PyTree:
            return self.original.batch_gradient(at, batch)

        here, along = jax.jvp(gradient, (self.origin,), (away,))
        return jax.tree.map(jnp.add, here, along)


@kinds_checked
def linear_twin(problem: EmpiricalRisk, params: PyTree) -> LinearTwin:
    """The problem that `problem` is to second order around θ₀ = `params`, example by example.

    `simulate` with the same settings and seed takes the same batches on both, so that its runs are
    a reference and a control variate for real ones: they know how noise grows with displacement to
    first order, and nothing non-linear. A step costs two to three of the problem's own. On least
    squares the twin is the problem itself. Far from θ₀ it diverges where SGD does not.

    Raises `ValueError` for a problem without a data set or of random losses, or params of other
    shapes.

    >>> import jax, numpy as np
    >>> from statsgd.problems import multilayer_perceptron
    >>> network = multilayer_perceptron(np.eye(3), np.ones((3, 1)), hidden=[2])
    >>> twin = linear_twin(network, network.initial_params(jax.random.key(0)))
    >>> twin.dimension == network.dimension
    True
    """
    if not isinstance(problem, EmpiricalRisk):
        raise ValueError(f"problem must have a data set, got {type(problem).__name__}")
    if problem.loss_draws:
        raise ValueError("problem must have losses that are not random, got losses of a key")
    origin, start = as_arrays(problem.parameters(params)), problem.start
    if jax.tree.map(jnp.shape, origin) != jax.tree.map(jnp.shape, problem.template):
        raise ValueError(
            f"params must have the shapes {jax.tree.map(jnp.shape, problem.template)}, got "
            f"{jax.tree.map(jnp.shape, origin)}"
        )
    return LinearTwin(
        problem.examples,
        problem.per_example,
        Start(origin, None, start.chosen, start.constants, start.graphs),
        problem.without_examples,
        origin,
        memory_budget=problem.memory_budget,
    )
