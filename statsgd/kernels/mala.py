"""The Metropolis-adjusted Langevin algorithm."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.tree import all_finite, random_like, squared_norm


class State(NamedTuple):
    """Position with the potential and its gradient there."""

    position: PyTree
    potential: Float[Any, ""]
    gradient: PyTree


def init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> State:
    """State at `position`."""
    return State(position, *jax.value_and_grad(potential)(position))


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """Propose θ' = θ − hP∇U(θ) + √(2hT) P^½ ξ and accept with the Metropolis–Hastings probability.

    log a = [U(θ) − U(θ')]/T − {|θ − θ' + hP∇U(θ')|² − |θ' − θ + hP∇U(θ)|²}/(4hT),  norms |P^−½ ·|
    """
    h, temperature = parameters["step_size"], parameters["temperature"]
    scales = parameters["preconditioner"]
    noise_key, accept_key = jax.random.split(key)
    noise = random_like(noise_key, state.position)
    # δ = θ' − θ = P^½ w; the two exponents are |h P^½∇U' − w|² and |h P^½∇U + w|² = 2hT|ξ|².
    white = jax.tree.map(
        lambda g, n: -h * g + jnp.sqrt(2 * h * temperature) * n, scales.pull(state.gradient), noise
    )
    position = jax.tree.map(jnp.add, state.position, scales.push(white))
    proposal = init(position, potential, parameters)
    returning = scales.pull(proposal.gradient)
    backward = squared_norm(jax.tree.map(lambda w, g: h * g - w, white, returning))
    forward = 2 * h * temperature * squared_norm(noise)
    log_ratio = (state.potential - proposal.potential) / temperature
    log_ratio -= (backward - forward) / (4 * h * temperature)
    finite = all_finite((proposal.potential, proposal.gradient)) & jnp.isfinite(log_ratio)
    accept_prob = jnp.where(finite, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    accepted = jax.random.uniform(accept_key) < accept_prob
    moved = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, state)
    return moved, Info(accept_prob, ~finite)


@register
class MALA(LangevinKernel):
    """Metropolis-adjusted Langevin algorithm: exact for any step size.

    A proposal with an infinite or undefined potential is rejected and flagged `diverging`. The
    step size adapts to an acceptance of 0.574, optimal in high dimension.

    Source: Roberts, Tweedie (1996); Roberts, Rosenthal (1998) for the acceptance.

    >>> MALA(step_size=0.2)
    MALA(step_size=0.2, temperature=1)
    """

    optimal_acceptance: ClassVar[float | None] = 0.574
    exactness: ClassVar[str] = "exact at any step size"
    citation: ClassVar[str] = "Roberts, Tweedie (1996)"

    core_init = staticmethod(init)
    core_step = staticmethod(step)
