"""Laws on a problem's whole loss with weight decay, known through a potential."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from statsgd.laws.bases.tabulated import TabulatedLaw
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss


class ObjectiveLaw(TabulatedLaw):
    """A law whose potential is made of U = L + (λ/2)|θ|²."""

    problem: Problem
    weight_decay: Float[Any, ""]

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.problem.dimension

    def objective(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U(θ) = L + (λ/2)|θ|², for flat params."""
        return FlatLoss(self.problem, self.weight_decay)(params)

    def origin(self) -> Float[Any, " d"]:
        """The problem's initial params, flat."""
        start = self.problem.initial_params(jax.random.key(0))
        return np.asarray(self.problem.flatten(start), dtype=np.float64)
