"""The stochastic-gradient Nosé–Hoover thermostat."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import positive, single
from statsgd.kernels import sghmc
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.sghmc import ThermalKernel, pushed
from statsgd.kernels.stochastic_gradient import GradientEstimate, follow, settle
from statsgd.kernels.tree import squared_norm


class State(NamedTuple):
    """Position, velocity and thermostat, with the estimate of potential and gradient there."""

    position: PyTree
    velocity: PyTree
    thermostat: Float[Any, ""]
    """α, the friction in force (1/time)."""
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
    """At rest at `position`, the thermostat at the friction of the injected noise."""
    state = sghmc.init(position, potential, parameters)
    thermostat = jnp.asarray(parameters["friction"], state.potential.dtype)
    return State(position, state.velocity, thermostat, state.estimate, state.kinetic)


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """v' = e^(−hα)v − hP∇Û_b(θ) + √(2hAT) P^½ ξ,  θ' = θ + hv',  α' = α + (h/μ)(wᵀP⁻¹w/d − T).

    The thermostat reads w = (v + v')/2, whose variance on a quadratic is that of the position times
    the curvature whatever the friction, while that of v' is greater by O(h).

    A step to where potential or gradient are not finite is not made: the velocity is reversed.
    """
    h, temperature = parameters["step_size"], parameters["temperature"]
    keep = jnp.exp(-h * state.thermostat)
    velocity = pushed(key, state, keep, parameters["friction"], parameters)
    position = jax.tree.map(lambda x, v: x + h * v, state.position, velocity)
    scales = parameters["preconditioner"]
    kinetic = squared_norm(scales.whiten(velocity)) / 2
    midway = jax.tree.map(lambda old, new: (old + new) / 2, state.velocity, velocity)
    dimension = sum(leaf.size for leaf in jax.tree.leaves(position))
    excess = squared_norm(scales.whiten(midway)) / dimension - temperature
    thermostat = state.thermostat + h * excess / parameters["inertia"]
    estimate = follow(state.estimate, position, potential)
    moved = State(position, velocity, thermostat, estimate, kinetic)
    bounced = state._replace(velocity=jax.tree.map(jnp.negative, state.velocity))
    return settle(moved, state, bounced)


@register
class SGNHT(ThermalKernel):
    """Stochastic-gradient Nosé–Hoover thermostat: `SGHMC` that finds its friction itself.

        v' = e^(−hα) v − h P∇Û_b(θ) + √(2hAT) P^½ ξ,      θ' = θ + hv'
        α' = α + (h/μ)(wᵀP⁻¹w/d − T),                     w = (v + v')/2

    The friction α rises while the velocity is too hot. For gradient noise of constant covariance
    cP⁻¹, unknown to the kernel, the joint law of the continuous dynamics is

        exp(−(U + ½vᵀP⁻¹v)/T) × N(α; A + hc/(2T), T/(dμ))

    so that the heat of the minibatches is removed; at a finite step the centre of α is
    −ln(1 − hA − h²c/(2T))/h, and the variance of θ on a quadratic is right but for α's spread. Far
    from the bulk α grows with the kinetic energy and takes long to come back: start near it.
    Noise of another shape is corrected in the mean over the d directions alone. In few dimensions
    α fluctuates widely and trajectories of a quadratic mix slowly where A is small.

    **Arguments:** as `StochasticGradientKernel`, `friction` A > 0, that of the injected noise
    (1/time), and `inertia` μ > 0 of the thermostat (potential × time²).

    Source: Ding et al. (2014), "Bayesian sampling using stochastic gradient thermostats"; the law
    with T and μ is derived.

    >>> SGNHT(step_size=0.1, friction=2.0, inertia=1.0)
    SGNHT(step_size=0.1, temperature=1, friction=2, inertia=1)
    """

    exactness: ClassVar[str] = "bias O(step size), constant gradient noise corrected"
    citation: ClassVar[str] = "Ding et al. (2014)"
    anchored: ClassVar[frozenset[str]] = frozenset({"velocity", "thermostat"})

    def __init__(self, *model: Any, inertia: Any = 1.0, **options: Any):
        super().__init__(*model, **options)
        self.parameters["inertia"] = single("inertia", positive("inertia", inertia))

    core_init = staticmethod(init)
    core_step = staticmethod(step)
