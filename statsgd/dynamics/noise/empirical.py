"""Recorded gradient noise, drawn again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import finite_array
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.problems import Problem


@register
class Empirical(GradientNoise):
    """Gradients that were recorded, drawn again: ∇L plus the deviation of one from their mean.

    The law of the noise is that of the records wherever SGD goes, without any model of it; it is
    bounded by the largest of them. C is their covariance, normalised by their number.

    **Arguments:** `gradients` `(n, d)` in flat coordinates, n ≥ 2, loss/params: of examples, of
    minibatches, or noise of any other origin (`measures.gradient_noise` records some).

    >>> import numpy as np
    >>> from statsgd import problems
    >>> recorded = Empirical(np.array([[-1.0, 0.0], [1.0, 0.0]]))
    >>> recorded.covariance(problems.quadratic(np.eye(2)), np.zeros(2))
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """

    deviations: Float[Any, "n d"]

    def __init__(self, gradients: Any):
        rows = np.asarray(finite_array("gradients", gradients, ndim=2), dtype=np.float64)
        if len(rows) < 2:
            raise ValueError(f"gradients must have at least two rows, got shape {rows.shape}")
        self.deviations = rows - rows.mean(axis=0)

    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """∇L plus one of the deviations."""
        rows = jnp.asarray(self.deviations)
        noise = rows[jax.random.randint(key, (), 0, rows.shape[0])]
        return jax.tree.map(
            lambda g, n: (g + n).astype(g.dtype),
            problem.gradient(params),
            problem.unflatten(noise),
        )

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """The covariance of the records."""
        rows = jnp.asarray(self.deviations)
        return rows.T @ rows / rows.shape[0]

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless the records have one entry for each parameter."""
        if self.deviations.shape[1] != problem.dimension:
            raise ValueError(
                f"gradients must have shape (n, {problem.dimension}) for this problem, got "
                f"{self.deviations.shape}"
            )
