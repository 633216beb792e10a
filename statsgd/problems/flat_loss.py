"""The loss of a problem as a function of flat parameters, with weight decay."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from statsgd.problems.problem import Problem


class FlatLoss(eqx.Module):
    """L + (λ/2)|θ|² at the pytree that flattens to θ: one object where a closure would be many."""

    problem: Problem
    weight_decay: Any = 0.0

    def __call__(self, vector: Float[Any, " d"]) -> Float[Any, ""]:
        """The loss at one point."""
        loss = self.problem.loss(self.problem.unflatten(vector))
        return loss + 0.5 * self.weight_decay * jnp.sum(vector**2)
