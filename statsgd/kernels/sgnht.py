"""The stochastic-gradient Nosé–Hoover thermostat."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import positive
from statsgd.kernels import sghmc
from statsgd.kernels.adapter import Info, Potential, register
from statsgd.kernels.sghmc import ThermalKernel, pushed
from statsgd.kernels.stochastic_gradient import Estimate, follow, settle
from statsgd.kernels.tree import squared_norm


class State(NamedTuple):
    """Position, velocity and thermostat, with the estimate of potential and gradient there."""

    position: PyTree
    velocity: PyTree
    thermostat: Float[Any, ""]
    """α, the friction in force (1/time)."""
    estimate: Estimate
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
    """At rest at `position`, the thermostat at the friction of the injected noise."""
    state = sghmc.init(position, potential, parameters)
    thermostat = jnp.asarray(parameters["friction"], state.potential.dtype)
    return State(position, state.velocity, thermostat, state.estimate, state.kinetic)


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """v' = (1 − hα)v − hP∇Û_b(θ) + √(2hAT) P^½ ξ,  θ' = θ + hv',  α' = α + (h/μ)(v'ᵀP⁻¹v'/d − T).

    A step to where potential or gradient are not finite is not made: the velocity is reversed.
    """
    h, temperature = parameters["step_size"], parameters["temperature"]
    velocity = pushed(key, state, state.thermostat, parameters["friction"], parameters)
    position = jax.tree.map(lambda x, v: x + h * v, state.position, velocity)
    kinetic = squared_norm(parameters["preconditioner"].whiten(velocity)) / 2
    dimension = sum(leaf.size for leaf in jax.tree.leaves(position))
    excess = 2 * kinetic / dimension - temperature
    thermostat = state.thermostat + h * excess / parameters["inertia"]
    estimate = follow(state.estimate, position, potential)
    moved = State(position, velocity, thermostat, estimate, kinetic)
    bounced = state._replace(velocity=jax.tree.map(jnp.negative, state.velocity))
    return settle(moved, state, bounced)


@register
class SGNHT(ThermalKernel):
    """Stochastic-gradient Nosé–Hoover thermostat: `SGHMC` that finds its friction itself.

        v ← (1 − hα)v − h P∇Û_b(θ) + √(2hAT) P^½ ξ,   θ ← θ + hv,   α ← α + (h/μ)(vᵀP⁻¹v/d − T)

    The friction α rises while the velocity is too hot. For gradient noise of constant covariance
    cP⁻¹, unknown to the kernel, the joint law of the continuous dynamics is

        exp(−(U + ½vᵀP⁻¹v)/T) × N(α; A + hc/(2T), T/(dμ))

    so that the heat of the minibatches is removed to first order; left is the integrator's O(h).
    Noise of another shape is corrected in the mean over the d directions alone. In few dimensions
    α fluctuates widely and trajectories of a quadratic mix slowly where A is small.

    **Arguments:** as `StochasticGradientKernel`, `friction` A > 0, that of the injected noise
    (1/time), and `inertia` μ > 0 of the thermostat (potential × time²).

    Source: Ding et al. (2014), "Bayesian sampling using stochastic gradient thermostats"; the law
    with T and μ is derived.
    """

    exactness: ClassVar[str] = "bias O(step size); constant gradient noise corrected"
    citation: ClassVar[str] = "Ding et al. (2014)"
    anchored: ClassVar[frozenset[str]] = frozenset({"velocity", "thermostat"})

    def __init__(self, *model: Any, inertia: Any = 1.0, **options: Any):
        super().__init__(*model, **options)
        self.parameters["inertia"] = positive("inertia", inertia)

    core_init = staticmethod(init)
    core_step = staticmethod(step)
