"""Stochastic-gradient Langevin dynamics."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import is_traced, non_negative, positive
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.stochastic_gradient import (
    GradientEstimate,
    StochasticGradientKernel,
    follow,
    settle,
    start,
)
from statsgd.kernels.tree import random_like


class State(NamedTuple):
    """Position with the estimate of potential and gradient there."""

    position: PyTree
    estimate: GradientEstimate

    @property
    def potential(self) -> Float[Any, ""]:
        """The estimate of U."""
        return self.estimate.potential


def init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> State:
    """State at `position`."""
    return State(position, start(position, potential, parameters))


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """θ' = θ − hP∇Û_b(θ) + √(2hT) P^½ ξ, then the next minibatch at θ'."""
    h, temperature = parameters["step_size"], parameters["temperature"]
    scales = parameters["preconditioner"]
    white = jax.tree.map(
        lambda g, n: -h * g + jnp.sqrt(2 * h * temperature) * n,
        scales.pull(state.estimate.gradient),
        random_like(key, state.position),
    )
    position = jax.tree.map(jnp.add, state.position, scales.push(white))
    return settle(State(position, follow(state.estimate, position, potential)), state)


@register
class SGLD(StochasticGradientKernel):
    """Stochastic-gradient Langevin dynamics: `ULA` with the gradient of a minibatch.

        θ ← θ − h P∇Û_b(θ) + √(2hT) P^½ ξ

    Leaves exp(−U/T) invariant up to O(h). On U = ½λθ² with P = 1, additive gradient noise of
    variance C (of ∇Û_b, the factor N/S within) and independent batches the variance is

        (T + hC/2) / (λ(1 − hλ/2)),      0 < hλ < 2

    of which hC/2 is the minibatches' share: with N examples C ≈ λN/S, so that it is small only for
    hλN/S ≪ 1. `sgld_variance` is this formula. See `SGWORLD` for reshuffled batches, whose share is
    of higher order.

    Source: Welling, Teh (2011); the variance is derived.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> problem = problems.linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> SGLD.from_problem(problem, noise.Minibatch(1), step_size=0.01)
    SGLD(step_size=0.01, temperature=1)
    """

    exactness: ClassVar[str] = "bias O(step size), and O(step size × N/S) from minibatches"
    citation: ClassVar[str] = "Welling, Teh (2011)"

    core_init = staticmethod(init)
    core_step = staticmethod(step)


def sgld_variance(
    step_size: Any, curvature: Any, gradient_variance: Any = 0.0, temperature: Any = 1.0
) -> Float[Any, "..."]:
    """Stationary variance of `SGLD` on ½λθ², (T + hC/2)/(λ(1 − hλ/2)).

    **Arguments:** `step_size` h, `curvature` λ, `gradient_variance` C of one batch's ∇Û_b,
    `temperature` T; numbers or arrays that broadcast. Raises `ValueError` unless hλ < 2.

    >>> round(float(sgld_variance(0.1, 1.0)), 4)  # 1/(1 − ε/2)
    1.0526
    """
    h, stiffness = stable_step(step_size, curvature)
    noise = non_negative("gradient_variance", gradient_variance)
    return (positive("temperature", temperature) + h * noise / 2) / (
        stiffness * (1 - h * stiffness / 2)
    )


def stable_step(step_size: Any, curvature: Any) -> tuple[Any, Any]:
    """h and λ, checked for 0 < hλ < 2."""
    h, stiffness = positive("step_size", step_size), positive("curvature", curvature)
    if not is_traced(h, stiffness) and not np.all(h * stiffness < 2):
        raise ValueError(
            f"step_size*curvature must be below 2, got {np.max(h * stiffness):.6g}: no stationary "
            "variance"
        )
    return h, stiffness
