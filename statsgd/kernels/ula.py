"""The unadjusted Langevin algorithm."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.mala import State, init
from statsgd.kernels.registry import register
from statsgd.kernels.tree import all_finite, choose, random_like


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """θ' = θ − hP∇U(θ) + √(2hT) P^½ ξ, Euler's scheme of the Langevin equation.

    A step to where potential or gradient are not finite is not made, and flagged.
    """
    h, temperature = parameters["step_size"], parameters["temperature"]
    scales = parameters["preconditioner"]
    white = jax.tree.map(
        lambda g, n: -h * g + jnp.sqrt(2 * h * temperature) * n,
        scales.pull(state.gradient),
        random_like(key, state.position),
    )
    position = jax.tree.map(jnp.add, state.position, scales.push(white))
    moved = init(position, potential, parameters)
    finite = all_finite(moved)
    return choose(finite, moved, state), Info(jnp.ones_like(moved.potential), ~finite)


@register
class ULA(LangevinKernel):
    """Unadjusted Langevin algorithm: Euler's scheme of dθ = −P∇U dt + √(2TP) dW.

    What it leaves invariant differs from exp(−U/T) by O(h): on ½λθ² with P = 1 the variance is
    T/(λ(1 − hλ/2)), and it diverges at h = 2/λ. See `step_size_bias`. A chain that would leave the
    finite numbers stays where it is and is flagged `diverging`.

    Source: Roberts, Tweedie (1996); Durmus, Moulines (2017), arXiv:1507.05021.

    >>> ULA(step_size=0.1)
    ULA(step_size=0.1, temperature=1)
    """

    exactness: ClassVar[str] = "bias O(step size)"
    citation: ClassVar[str] = "Roberts, Tweedie (1996)"

    core_init = staticmethod(init)
    core_step = staticmethod(step)
