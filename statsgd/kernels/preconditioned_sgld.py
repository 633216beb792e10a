"""Stochastic-gradient Langevin dynamics with RMSprop's scales."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import fraction, positive, single
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.stochastic_gradient import (
    GradientEstimate,
    StochasticGradientKernel,
    evaluate,
    follow,
    settle,
    start,
)
from statsgd.kernels.tree import random_like


class State(NamedTuple):
    """Position with the estimate there, and what is remembered of gradients."""

    position: PyTree
    estimate: GradientEstimate
    square: PyTree
    """V, running mean of the squared gradient."""
    slope: PyTree
    """W, running mean of ∂(ĝ_i²)/∂θ_i; zero until the first step."""

    @property
    def potential(self) -> Float[Any, ""]:
        """The estimate of U."""
        return self.estimate.potential


def init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> State:
    """State at `position`."""
    estimate = start(position, potential, parameters)
    zero = jax.tree.map(jnp.zeros_like, position)
    return State(position, estimate, jax.tree.map(jnp.square, estimate.gradient), zero)


def curvature(key: PRNGKeyArray, state: State, potential: Potential) -> PyTree:
    """An unbiased estimate of ∂ĝ_i/∂θ_i on the minibatch of `state`, from one random probe.

    z_i (Ĥz)_i with independent signs z; exact where Ĥ is diagonal.
    """
    _, _, step, order, reference = state.estimate
    signs = jax.tree.map(jnp.sign, random_like(key, state.position))
    _, product = jax.jvp(
        lambda x: evaluate(x, potential, order, step, reference)[1], (state.position,), (signs,)
    )
    return jax.tree.map(jnp.multiply, signs, product)


def step(
    key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """θ' = θ − h(G∇Û_b − TΓ) + √(2hTG) ξ,  G = 1/(κ + √V),  Γ = ∂G/∂θ or zero."""
    h, temperature = parameters["step_size"], parameters["temperature"]
    damping, memory = parameters["damping"], parameters["decay"]
    noise_key, probe_key = jax.random.split(key)
    gradient, slope = state.estimate.gradient, state.slope
    scale = jax.tree.map(lambda v: 1 / (damping + jnp.sqrt(v)), state.square)
    drift = jax.tree.map(jnp.multiply, scale, gradient)
    if parameters["correction"] is not None:
        probe = curvature(probe_key, state, potential)
        slope = jax.tree.map(
            lambda w, g, c: memory * w + (1 - memory) * 2 * g * c, slope, gradient, probe
        )
        # ∂G/∂θ = −G² ∂√V/∂θ, and √V has no slope where V is zero.
        drift = jax.tree.map(
            lambda f, s, v, w: (
                f
                + temperature
                * s**2
                * jnp.where(v > 0, w / (2 * jnp.sqrt(jnp.where(v > 0, v, 1))), 0)
            ),
            drift,
            scale,
            state.square,
            slope,
        )
    position = jax.tree.map(
        lambda x, f, s, n: x - h * f + jnp.sqrt(2 * h * temperature * s) * n,
        state.position,
        drift,
        scale,
        random_like(noise_key, state.position),
    )
    estimate = follow(state.estimate, position, potential)
    square = jax.tree.map(
        lambda v, g: memory * v + (1 - memory) * g**2, state.square, estimate.gradient
    )
    return settle(State(position, estimate, square, slope), state)


@register
class PreconditionedSGLD(StochasticGradientKernel):
    """SGLD with the scales of RMSprop.

        V ← αV + (1−α) ĝ²,   G = 1/(κ + √V),   θ ← θ − h (G ĝ − T Γ) + √(2hTG) ξ,   ĝ = ∇Û_b(θ)

    What it leaves invariant as h → 0, with full gradients. While α stays fixed, V becomes g(θ)²
    and G a function of θ: the law is exp(−U/T) with `correction` Γ = ∂G/∂θ, and without it another
    one, in one dimension exp(−U/T)/G(θ), which is too wide.
    If the memory 1/(1−α) is long compared with the relaxation of the chain, G is nearly constant,
    Γ goes to zero and the law is exp(−U/T) either way. In between, Γ from the running mean of
    ∂(ĝ²)/∂θ joins the two. At finite h the bias is O(h). Minibatches add their own: ĝ and G come
    from the same batch.

    **Arguments:** as `StochasticGradientKernel`, without `preconditioner`, and

    - `decay` α in [0, 1), a step's memory; `damping` κ > 0, in the unit of ∇U, of the full data.
    - `correction`: whether to add Γ, at the cost of one Hessian-vector product a step; the
      diagonal of the Hessian is estimated with random signs, without bias.

    Raises `ValueError` for these out of range, or if `preconditioner` is given.

    Source: Li, Chen, Carlson, Carin (2016), arXiv:1512.07666; the laws are derived.

    >>> PreconditionedSGLD(step_size=0.01, decay=0.99, damping=1e-3)
    PreconditionedSGLD(step_size=0.01, temperature=1, decay=0.99, damping=0.001)
    """

    exactness: ClassVar[str] = "bias O(step size) with the correction or long memory, else O(1)"
    citation: ClassVar[str] = "Li, Chen, Carlson, Carin (2016), arXiv:1512.07666"

    def __init__(
        self,
        *model: Any,
        decay: Any = 0.99,
        damping: Any = 1.0,
        correction: bool = False,
        **options: Any,
    ):
        for name in ("preconditioner", "adapt_preconditioner"):
            if options.get(name) is not None:
                raise ValueError(
                    f"{name} must be left out: gradients set the scales, got {options[name]!r}"
                )
        super().__init__(*model, **options)
        self.parameters["decay"] = single("decay", fraction("decay", decay))
        self.parameters["damping"] = single("damping", positive("damping", damping))
        # Neither has a leaf: the switch is static.
        self.parameters["correction"] = () if correction else None

    def core_start(self, key, position, potential, parameters) -> State:
        """`core_init` with an order of the data of the chain's own."""
        state = super().core_start(key, position, potential, parameters)
        return state._replace(square=jax.tree.map(jnp.square, state.estimate.gradient))

    core_init = staticmethod(init)
    core_step = staticmethod(step)
