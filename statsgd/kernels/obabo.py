"""OBABO with a Metropolis test: underdamped Langevin dynamics without bias."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from statsgd.kernels.kernel_state import Info, KernelState, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.tree import all_finite, choose, random_like
from statsgd.kernels.underdamped import (
    State,
    UnderdampedKernel,
    at,
    drift,
    kick,
    thermostat,
    with_velocity,
)


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """O(s/2), then B(s/2)A(s)B(s/2) accepted with min(1, e^(−δE/T)), then O(s/2).

    E = U + ½vᵀP⁻¹v. BAB is reversible and preserves volume, so that with the velocity reversed on
    rejection the step leaves exp(−E/T) invariant.
    """
    s = parameters["step_size"]
    noise_key, accept_key = jax.random.split(key)
    first, last = random_like(noise_key, (state.velocity, state.velocity))
    velocity = thermostat(first, state.velocity, s / 2, parameters)
    start = with_velocity(state, velocity, parameters)
    velocity = kick(velocity, start.gradient, s / 2, parameters)
    arrived = at(drift(start.position, velocity, s), velocity, potential, parameters)
    velocity = kick(velocity, arrived.gradient, s / 2, parameters)
    proposal = with_velocity(arrived, velocity, parameters)
    log_ratio = (start.energy - proposal.energy) / parameters["temperature"]
    finite = all_finite(proposal) & jnp.isfinite(log_ratio)
    accept_prob = jnp.where(finite, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    accepted = jax.random.uniform(accept_key) < accept_prob
    bounced = start._replace(velocity=jax.tree.map(jnp.negative, start.velocity))
    moved = choose(accepted, proposal, bounced)
    velocity = thermostat(last, moved.velocity, s / 2, parameters)
    return with_velocity(moved, velocity, parameters), Info(accept_prob, ~finite)


@register
class OBABO(UnderdampedKernel):
    """Underdamped Langevin dynamics by the OBABO splitting with a Metropolis test.

    Exact at any step size, for the position and jointly with the velocity. The velocity is
    reversed on rejection, which spoils the dynamics but not the law: for SGD's dynamics use
    `BAOAB`. A proposal with an infinite or undefined potential is rejected and flagged `diverging`.
    The step size adapts to an acceptance of 0.65, with a friction of at least one per step until
    warm-up ends. Also known as generalised Hamiltonian Monte Carlo
    with one leapfrog step.

    Source: Horowitz (1991); Bussi, Parrinello (2007), arXiv:0803.4083.

    >>> OBABO(step_size=0.1, friction=2.0)
    OBABO(step_size=0.1, temperature=1, friction=2)
    """

    optimal_acceptance: ClassVar[float | None] = 0.65
    exactness: ClassVar[str] = "exact at any step size, jointly with the velocity"
    citation: ClassVar[str] = "Horowitz (1991); Bussi, Parrinello (2007), arXiv:0803.4083"

    core_step = staticmethod(step)

    def _current(self, state: KernelState) -> dict[str, Any]:
        parameters = super()._current(state)
        if self.adapts:
            # A first step size may be far below 1/ζ: then energy would leave too slowly for the
            # warm-up to see the law. The acceptance aimed at does not depend on the friction.
            warming = state.i < state.num_warmup
            strong = jnp.maximum(parameters["friction"], 1 / state.step_size)
            parameters["friction"] = jnp.where(warming, strong, parameters["friction"])
        return parameters
