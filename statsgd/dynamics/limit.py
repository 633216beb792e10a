"""The diffusion that SGD becomes as the learning rate goes to zero."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced
from statsgd.dynamics.diffusion import Diffusion, UnderdampedDiffusion
from statsgd.dynamics.noise import GradientNoise
from statsgd.problems import Problem


class Force(eqx.Module):
    """−a(∇L + λθ)."""

    problem: Problem
    factor: Float[Any, ""]
    weight_decay: Float[Any, ""]

    def __call__(self, params: PyTree) -> PyTree:
        """The force at `params`."""
        gradient = self.problem.gradient(params)
        return jax.tree.map(
            lambda g, p: -self.factor * (g + self.weight_decay * p), gradient, params
        )


class NoiseRoot(eqx.Module):
    """√s R(θ) with R Rᵀ = C(θ)."""

    problem: Problem
    noise: GradientNoise
    scale: Float[Any, ""]

    def __call__(self, params: PyTree) -> Float[Any, "..."]:
        """A number where C is isotropic, a matrix elsewhere."""
        return jnp.sqrt(self.scale) * self.noise.root(self.problem, params)


def diffusion_limit(
    problem: Problem,
    noise: GradientNoise,
    *,
    learning_rate: Any,
    momentum: Any,
    weight_decay: Any,
    time_step: Any,
    increments: str,
) -> Diffusion | UnderdampedDiffusion:
    """The limit stated in `SGD.diffusion_limit`."""
    if not is_traced(momentum) and np.all(np.asarray(momentum) == 0):
        return Diffusion(
            Force(problem, jnp.ones(()), weight_decay),
            time_step=time_step,
            increments=increments,
            root=NoiseRoot(problem, noise, learning_rate),
        )
    factor = 2 / (learning_rate * (1 + momentum))
    return UnderdampedDiffusion(
        Force(problem, factor, weight_decay),
        factor * (1 - momentum),
        time_step=time_step,
        increments=increments,
        root=NoiseRoot(problem, noise, 4 / (learning_rate * (1 + momentum) ** 2)),
    )
