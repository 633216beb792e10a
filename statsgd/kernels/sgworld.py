"""Stochastic-gradient Langevin dynamics on reshuffled epochs."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import count, is_traced, non_negative, positive
from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import sgld
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.sgld import State
from statsgd.kernels.stochastic_gradient import StochasticGradientKernel
from statsgd.kernels.stochastic_potential import StochasticPotential


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """One epoch: M steps of SGLD over all minibatches of a fresh permutation."""
    number = potential.batches if isinstance(potential, StochasticPotential) else 1

    def one(i, carry):
        moving, refused = carry
        moving, info = sgld.step(jax.random.fold_in(key, i), moving, potential, parameters)
        return moving, refused | info.diverging

    moved, refused = jax.lax.fori_loop(0, number, one, (state, jnp.zeros((), bool)))
    return moved, Info(jnp.ones_like(state.potential), refused)


@register
class SGWORLD(StochasticGradientKernel):
    """SGLD without replacement: each step of the kernel is one epoch of M = N/S steps of `SGLD`.

    Every epoch goes through the data once, in a fresh random order of each chain's own; a draw is
    the position at an epoch's end. With an exact gradient it is `ULA`. On U = ½λθ² with T = P = 1,
    ε = hλ, r = 1 − ε and additive noise, C' = M/(M−1) times the variance of one batch's ∇Û_b,

        λ Var = [2ε s₂ + ε²(C'/λ)(s₂ − s₁²/M)] / (1 − r^(2M))

    for 0 < ε < 2, with s₁ = Σ_{j<M} r^j and s₂ = Σ_{j<M} r^(2j). At small εM and C' = λM this is
    1/(1 − ε/2) + ε³M(M²−1)/24, where independent batches have 1 + ε(M+1)/2: what is left is Euler's
    own bias. `sgworld_variance` is this formula.

    `sampling` is `"reshuffle"`. A refused step ends its epoch later. Raises `ValueError` for other
    sampling, for a batch size that does not divide N, and for plates of unequal N/S.

    Source: Adhikari et al. (2023), arXiv:2306.03521, for the gain without replacement; Shaw,
    Whalley (2025), arXiv:2501.16055, for reshuffling; the variance is derived.

    >>> SGWORLD(step_size=0.01)
    SGWORLD(step_size=0.01, temperature=1)
    """

    exactness: ClassVar[str] = "bias O(step size); minibatches add O(step size²)"
    citation: ClassVar[str] = "Adhikari et al. (2023), arXiv:2306.03521"

    def __init__(self, *model: Any, **options: Any):
        if "sampling" in options:
            raise ValueError(
                f"sampling must be left out: epochs are reshuffled, got {options['sampling']!r}"
            )
        super().__init__(*model, sampling="reshuffle", **options)

    @classmethod
    def _sampling_options(cls, noise: Minibatch) -> dict[str, Any]:
        if noise.sampling != "reshuffle":
            raise ValueError(f"noise.sampling must be 'reshuffle', got {noise.sampling!r}")
        return {}

    core_init = staticmethod(sgld.init)
    core_step = staticmethod(step)


def sgworld_variance(
    step_size: Any,
    curvature: Any,
    batches: int,
    gradient_variance: Any = 0.0,
    temperature: Any = 1.0,
) -> Float[Any, "..."]:
    """Stationary variance at epoch ends of `SGWORLD` on ½λθ²: the formula there.

    With T instead of 1 in the first term. **Arguments:** as `sgld_variance`, and `batches` M of an
    epoch; C' = M/(M−1) times `gradient_variance`, that of one batch, which a single batch of all
    examples does not have. Raises `ValueError` unless hλ < 2.

    >>> round(float(sgworld_variance(0.1, 1.0, batches=4)), 4)
    1.0526
    """
    h, stiffness = sgld.stable_step(step_size, curvature)
    noise = non_negative("gradient_variance", gradient_variance)
    noisy = not is_traced(noise) and np.any(noise)
    number = count("batches", batches, at_least=2 if noisy else 1)
    step = h * stiffness
    kept = 1 - step
    powers = kept[..., None] ** np.arange(number)
    first, second = powers.sum(-1), (powers**2).sum(-1)
    among = second - first**2 / number
    drawn = number / max(number - 1, 1) * noise * among
    thermal = 2 * positive("temperature", temperature) * second
    return (step * thermal + step * h * drawn) / (stiffness * (1 - kept ** (2 * number)))
