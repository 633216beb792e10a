"""Langevin dynamics with velocity and friction: what its integrators share."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from statsgd.arguments import positive, single
from statsgd.dynamics.sgd import SGD
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import KernelState, Potential
from statsgd.kernels.sgd_model import underdamped_model
from statsgd.kernels.tree import squared_norm
from statsgd.problems import Problem


class State(NamedTuple):
    """Position and velocity, with the potential, its gradient and the energy there."""

    position: PyTree
    velocity: PyTree
    potential: Float[Any, ""]
    gradient: PyTree
    energy: Float[Any, ""]
    """U + ½ vᵀP⁻¹v."""


def init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> State:
    """At rest at `position`."""
    return at(position, jax.tree.map(jnp.zeros_like, position), potential, parameters)


def at(
    position: PyTree, velocity: PyTree, potential: Potential, parameters: Mapping[str, Any]
) -> State:
    """State at `position` with `velocity`."""
    return with_velocity(
        State(position, velocity, *jax.value_and_grad(potential)(position), jnp.zeros(())),
        velocity,
        parameters,
    )


def with_velocity(state: State, velocity: PyTree, parameters: Mapping[str, Any]) -> State:
    """`state` with another velocity."""
    kinetic = squared_norm(parameters["preconditioner"].whiten(velocity)) / 2
    return state._replace(velocity=velocity, energy=state.potential + kinetic)


def drift(position: PyTree, velocity: PyTree, time: Float[Any, ""]) -> PyTree:
    """A: θ + tv."""
    return jax.tree.map(lambda x, v: x + time * v, position, velocity)


def kick(
    velocity: PyTree, gradient: PyTree, time: Float[Any, ""], parameters: Mapping[str, Any]
) -> PyTree:
    """B: v − tP∇U."""
    force = parameters["preconditioner"](gradient)
    return jax.tree.map(lambda v, f: v - time * f, velocity, force)


def thermostat(
    white: PyTree, velocity: PyTree, time: Float[Any, ""], parameters: Mapping[str, Any]
) -> PyTree:
    """O: e^(−ζt) v + √(T(1 − e^(−2ζt))) P^½ ξ of white noise ξ, exact for friction and noise."""
    exponent = parameters["friction"] * time
    width = jnp.sqrt(-parameters["temperature"] * jnp.expm1(-2 * exponent))
    noise = parameters["preconditioner"].push(white)
    return jax.tree.map(lambda v, n: jnp.exp(-exponent) * v + width * n, velocity, noise)


class UnderdampedKernel(LangevinKernel):
    """Integrators of dθ = v dt, dv = −P∇U dt − ζv dt + √(2ζTP) dW.

    They share the invariant law exp(−(U + ½vᵀP⁻¹v)/T): P is the inverse mass. Chains start at
    rest. The velocity is the state's `core.velocity`.

    **Arguments:** as `LangevinKernel`, with `step_size` in units of time, and `friction` ζ > 0
    (1/time).
    """

    def __init__(self, *model: Any, friction: Any = 1.0, **options: Any):
        super().__init__(*model, **options)
        self.parameters["friction"] = single("friction", positive("friction", friction))

    @classmethod
    def from_sgd(
        cls,
        problem: Problem,
        sgd: SGD,
        at: PyTree | None = None,
        *,
        noise: str = "hessian",
        step_size: Any = None,
        **options: Any,
    ) -> Self:
        """The kernel whose law and dynamics are those of heavy-ball SGD's continuous model.

        With C the gradient-noise covariance, a = 2/(η(1+β)) and μ the minimum of L + λ|θ|²/2,

            P = C/(1−β²),   ζ = a(1−β),   P∇U = a(∇L + λθ),   T = 1

        reproduce `laws.PhaseSpaceGaussian`: stationary law, correlations in time, displacements
        and currents; `core.velocity` is v = −m. For `noise.Isotropic`, C = cI, this is
        U = (1−β)(L + λ|θ|²/2)/τ with τ = ηc/2 for any loss L. Otherwise L is taken for its
        quadratic at μ, and U = ½a(1−β²) xᵀC⁻¹(H + λI)x with x = θ − μ: that U exists only if C
        commutes with H.

        **Arguments:** `at`, params to take for the minimum, found by default; `noise`,
        `"hessian"` takes C = H tr C/tr H, the published assumption, `"measured"` C as it is;
        `step_size` s, by default η, one step of SGD: stable iff sω < 2 for the largest frequency
        ω = √(ah), at s = η SGD's own threshold ηh < 2(1+β); `options` as in the constructor. The
        kernel runs on params pytrees of `problem`: give `init_params`.

        Raises `ValueError` as `laws.PhaseSpaceGaussian.from_sgd`; if C is singular or does not
        commute with H (`SGD.diffusion_limit` simulates that case); or if the step is unstable.

        Source: Kunin et al. (2021), arXiv:2107.09133, for the model; the mass is derived.
        """
        sgd.require_heavy_ball()
        s = sgd.learning_rate if step_size is None else positive("step_size", step_size)
        model = underdamped_model(problem, sgd, at, noise)
        reach = float(s) * model.highest_frequency
        if not reach < 2:
            raise ValueError(f"step_size*omega_max must be below 2, got {reach:.4g}")
        return cls(
            None,
            model.potential,
            step_size=s,
            preconditioner=model.inverse_mass,
            friction=model.friction,
            **options,
        )

    def core_refresh(self, state: State, potential: Potential, parameters: Mapping[str, Any]):
        """`state` on another potential, its velocity kept."""
        return at(state.position, state.velocity, potential, parameters)

    def report(self, state: KernelState) -> dict[str, Any]:
        """Adds the energy, which ArviZ's energy diagnostics read."""
        return super().report(state) | {"energy": state.energy}

    core_init = staticmethod(init)
