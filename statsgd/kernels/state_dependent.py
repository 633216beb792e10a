"""Langevin dynamics whose noise depends on the state."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.dynamics.noise.gradient_noise import symmetric_root
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.mala import State, init
from statsgd.kernels.registry import register
from statsgd.kernels.tree import all_finite, choose, random_like

type DiffusionMatrix = Callable[[PyTree], Float[Any, "..."]]


def divergence(
    diffusion: Callable[[Float[Any, " d"]], Float[Any, "..."]], at: Float[Any, " d"]
) -> Float[Any, " d"]:
    """(∇·D)_i = Σ_j ∂D_ij/∂θ_j of a D that returns a number, a diagonal or a matrix."""
    slope = jax.jacfwd(diffusion)(at)
    if slope.ndim == 1:
        return slope
    return jnp.diagonal(slope) if slope.ndim == 2 else jnp.einsum("ijj->i", slope)


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """θ' = θ + h(−D∇U + T ∇·D) + √(2hTD) ξ, Euler–Maruyama with the Itô drift.

    A step to where potential, gradient or diffusion are not finite is not made, and flagged.
    """
    h, temperature = parameters["step_size"], parameters["temperature"]
    flat, unravel = ravel_pytree(state.position)
    gradient, _ = ravel_pytree(state.gradient)

    def diffusion(vector):
        return jnp.asarray(parameters["diffusion"](unravel(vector)), vector.dtype)

    local = diffusion(flat)
    noise = random_like(key, flat)
    if local.ndim == 2:
        force, kick = local @ gradient, symmetric_root(local) @ noise
    else:
        force, kick = local * gradient, jnp.sqrt(local) * noise
    drift = temperature * divergence(diffusion, flat) - force
    moved = flat + h * drift + jnp.sqrt(2 * h * temperature) * kick
    arrived = init(unravel(moved), potential, parameters)
    finite = all_finite(arrived)
    return choose(finite, arrived, state), Info(jnp.ones_like(arrived.potential), ~finite)


@register
class StateDependentLangevin(LangevinKernel):
    """Langevin dynamics with any diffusion D(θ): it leaves exp(−U/T) invariant whatever D.

        dθ = (−D∇U + T ∇·D) dt + √(2TD) dW      (Itô; ∇·D by automatic differentiation)

    by Euler–Maruyama, with a bias O(h). Without ∇·D the law would be another one, with D wrong
    only the dynamics. With D = ηC(θ)/2 and the law of SGD's noise as target the drift is −∇L and
    this is SGD's diffusion limit.

    **Arguments:** `diffusion`, from a position (a pytree in unconstrained space, as `potential_fn`
    takes it) to D: a number, the `(d,)` diagonal or a positive semi-definite `(d, d)` matrix on
    flattened positions (`jax.flatten_util.ravel_pytree`). An `equinox.Module` may hold arrays,
    which are traced. D takes the place of a preconditioner, which is therefore not an option. A
    chain that would leave the finite numbers stays where it is and is flagged `diverging`.

    Raises `ValueError` if `diffusion` is not callable or `preconditioner` is given.

    Source: Ma, Chen, Fox (2015), arXiv:1506.04696.

    >>> StateDependentLangevin(step_size=0.01, diffusion=lambda x: 1 + x @ x)
    StateDependentLangevin(step_size=0.01, temperature=1)
    """

    exactness: ClassVar[str] = "bias O(step size)"
    citation: ClassVar[str] = "Ma, Chen, Fox (2015), arXiv:1506.04696"

    def __init__(self, *model: Any, diffusion: DiffusionMatrix, **options: Any):
        for name in ("preconditioner", "adapt_preconditioner"):
            if options.get(name) is not None:
                raise ValueError(
                    f"{name} must be left out: diffusion sets the scales, got {options[name]!r}"
                )
        if not callable(diffusion):
            raise ValueError(f"diffusion must be a function of the position, got {diffusion!r}")
        super().__init__(*model, **options)
        traced = isinstance(diffusion, eqx.Module)
        self.parameters["diffusion"] = diffusion if traced else jax.tree_util.Partial(diffusion)

    core_init = staticmethod(init)
    core_step = staticmethod(step)
