"""Stochastic-gradient Hamiltonian Monte Carlo."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import is_traced, positive, single
from statsgd.kernels.kernel_state import Info, KernelState, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.stochastic_gradient import (
    GradientEstimate,
    StochasticGradientKernel,
    follow,
    settle,
    start,
)
from statsgd.kernels.tree import random_like, squared_norm


class State(NamedTuple):
    """Position and velocity, with the estimate of potential and gradient there."""

    position: PyTree
    velocity: PyTree
    estimate: GradientEstimate
    kinetic: Float[Any, ""]
    """½ vᵀP⁻¹v."""

    @property
    def potential(self) -> Float[Any, ""]:
        """The estimate of U."""
        return self.estimate.potential

    @property
    def energy(self) -> Float[Any, ""]:
        """Potential plus kinetic energy."""
        return self.estimate.potential + self.kinetic


def init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> State:
    """At rest at `position`."""
    estimate = start(position, potential, parameters)
    rest = jax.tree.map(jnp.zeros_like, position)
    return State(position, rest, estimate, jnp.zeros_like(estimate.potential))


def pushed(
    key: PRNGKeyArray,
    state: Any,
    keep: Float[Any, ""],
    noise: Float[Any, ""],
    parameters: Mapping[str, Any],
) -> PyTree:
    """v' = βv − hP∇Û_b + √(2hAT) P^½ ξ, with β = `keep` and A = `noise`."""
    h, temperature = parameters["step_size"], parameters["temperature"]
    scales = parameters["preconditioner"]
    white = jax.tree.map(
        lambda g, n: -h * g + jnp.sqrt(2 * h * noise * temperature) * n,
        scales.pull(state.estimate.gradient),
        random_like(key, state.position),
    )
    kick = scales.push(white)
    return jax.tree.map(lambda v, k: keep * v + k, state.velocity, kick)


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """v' = (1 − hζ)v − hP∇Û_b(θ) + √(2hζT) P^½ ξ,  θ' = θ + hv'.

    A step to where potential or gradient are not finite is not made: the velocity is reversed.
    """
    friction = parameters["friction"]
    h = parameters["step_size"]
    velocity = pushed(key, state, 1 - h * friction, friction, parameters)
    position = jax.tree.map(lambda x, v: x + h * v, state.position, velocity)
    kinetic = squared_norm(parameters["preconditioner"].whiten(velocity)) / 2
    moved = State(position, velocity, follow(state.estimate, position, potential), kinetic)
    bounced = state._replace(velocity=jax.tree.map(jnp.negative, state.velocity))
    return settle(moved, state, bounced)


class ThermalKernel(StochasticGradientKernel):
    """Stochastic-gradient kernels with a velocity and noise of a given friction.

    **Arguments:** as `StochasticGradientKernel`, and `friction` ζ > 0 (1/time).

    Raises `ValueError` for a friction that is not positive, or hζ ≥ 2.
    """

    def __init__(self, *model: Any, friction: Any = 1.0, **options: Any):
        super().__init__(*model, **options)
        friction = self.parameters["friction"] = single("friction", positive("friction", friction))
        h = self.parameters["step_size"]
        if not is_traced(friction, h) and not (h * friction < 2).all():
            raise ValueError(
                f"step_size*friction must be below 2, got {float((h * friction).max())}"
            )

    def report(self, state: KernelState) -> dict[str, Any]:
        """Adds the energy, which ArviZ's energy diagnostics read."""
        return super().report(state) | {"energy": state.energy}


@register
class SGHMC(ThermalKernel):
    """Stochastic-gradient Hamiltonian Monte Carlo: underdamped Langevin dynamics on minibatches.

        v ← (1 − hζ)v − h P∇Û_b(θ) + √(2hζT) P^½ ξ,      θ ← θ + hv

    Heavy-ball SGD of learning rate h² and momentum β = 1 − hζ on U, with noise. P is the inverse
    mass, `step_size` h a time. Leaves exp(−(U + ½vᵀP⁻¹v)/T) invariant up to O(h); with an exact
    gradient the positions are those of the BBK integrator, whose bias is O(h²). On U = ½λθ² with
    P = 1 and additive gradient noise of variance C the variances are

        Var θ = (T + hC/(2ζ)) · 2(1+β) / (λ[2(1+β) − h²λ])
        Var v = (T + hC/(2ζ)) · 4/[2(1+β) − h²λ]

    The gradient noise heats by hC/(2ζ): less at higher friction; `SGNHT` finds and removes it.
    Chains start at rest. Stable on the mode iff h²λ < 2(1+β), for hζ < 2.

    **Arguments:** as `StochasticGradientKernel`, and `friction` ζ > 0 (1/time).

    Raises `ValueError` for a friction that is not positive, or hζ ≥ 2.

    Source: Chen, Fox, Guestrin (2014), arXiv:1402.4102; the variances are derived.

    >>> SGHMC(step_size=0.1, friction=2.0)
    SGHMC(step_size=0.1, temperature=1, friction=2)
    """

    exactness: ClassVar[str] = "bias O(step size), and O(step size/friction) from minibatches"
    citation: ClassVar[str] = "Chen, Fox, Guestrin (2014), arXiv:1402.4102"

    core_init = staticmethod(init)
    core_step = staticmethod(step)
