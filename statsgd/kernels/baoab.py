"""BAOAB: the underdamped integrator with the smallest error in position."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from statsgd.kernels.kernel_state import Info, Potential
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
    """B(s/2) A(s/2) O(s) A(s/2) B(s/2), with one new gradient.

    A step to where potential or gradient are not finite is not made: the velocity is reversed and
    the step flagged.
    """
    s = parameters["step_size"]
    velocity = kick(state.velocity, state.gradient, s / 2, parameters)
    position = drift(state.position, velocity, s / 2)
    velocity = thermostat(random_like(key, velocity), velocity, s, parameters)
    position = drift(position, velocity, s / 2)
    arrived = at(position, velocity, potential, parameters)
    velocity = kick(velocity, arrived.gradient, s / 2, parameters)
    moved = with_velocity(arrived, velocity, parameters)
    finite = all_finite(moved)
    bounced = state._replace(velocity=jax.tree.map(jnp.negative, state.velocity))
    return choose(finite, moved, bounced), Info(jnp.ones_like(moved.potential), ~finite)


@register
class BAOAB(UnderdampedKernel):
    """Underdamped Langevin dynamics by the BAOAB splitting, unadjusted.

    With u = (sω)²/4 on a mode of frequency ω, ω² = Pλ for U = ½λθ², the variance of the position
    is exact, T/λ, and that of the velocity (1−u)TP; elsewhere the bias is O(s²). Stable iff sω < 2:
    on tails steeper than a quadratic a chain started far out diverges at any step; it then stays at
    its last finite state and is flagged `diverging`.

    `from_sgd` builds the kernel that reproduces heavy-ball SGD near a minimum.

    Source: Leimkuhler, Matthews (2013), arXiv:1203.5428.

    >>> BAOAB(step_size=0.1, friction=2.0)
    BAOAB(step_size=0.1, temperature=1, friction=2)
    """

    bias_order: ClassVar[int] = 2
    exactness: ClassVar[str] = "bias O(step size²); position exact on quadratics"
    citation: ClassVar[str] = "Leimkuhler, Matthews (2013), arXiv:1203.5428"

    core_step = staticmethod(step)
