"""SGD whose gradients are taken beside the parameters: sharpness awareness, weight noise."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import fraction, one_of, positive
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.noise import GradientNoise
from statsgd.dynamics.sgd import SGDState
from statsgd.problems import Problem
from statsgd.running.random_stream import normal


class PerturbedSGD(Dynamics):
    """m ← β m + ĝ(θ + Δ),  θ ← θ − η m: a final class says where gradients are taken, θ + Δ."""

    learning_rate: Float[Any, ""]
    noise: GradientNoise
    momentum: Float[Any, ""]

    @abc.abstractmethod
    def perturbed(self, key: PRNGKeyArray, problem: Problem, state: SGDState) -> PyTree:
        """θ + Δ."""

    @abc.abstractmethod
    def on_quadratic(
        self, hessian: Float[Any, "d d"], noise: Float[Any, "d d"]
    ) -> tuple[Float[Any, "d d"], Float[Any, "d d"]]:
        """What stands for H and C in the chain on a quadratic loss with constant noise."""

    def init(self, problem: Problem, params: PyTree) -> SGDState:
        """At rest: zero momentum buffer."""
        return SGDState(params, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def step(self, key: PRNGKeyArray, problem: Problem, state: SGDState) -> SGDState:
        """One update."""
        there = self.perturbed(key, problem, state)
        gradient = self.noise.at_step(key, state.step, problem, there)
        buffer = jax.tree.map(
            lambda m, g: (self.momentum * m + g).astype(m.dtype), state.momentum_buffer, gradient
        )
        params = jax.tree.map(
            lambda p, m: (p - self.learning_rate * m).astype(p.dtype), state.params, buffer
        )
        return SGDState(params, buffer, state.step + 1)

    def check(self, problem: Problem, *, allow_unstable: bool = False) -> None:
        """Raise `ValueError` if the noise does not fit."""
        self.noise.check(problem)


class SharpnessAware(PerturbedSGD):
    """Sharpness-aware minimisation (SAM): gradients are taken up the slope, at θ + ρ ĝ(θ).

    **Arguments:** `learning_rate` η > 0, `noise`, `radius` ρ > 0, in params, times params²/loss
    unless `normalised` divides ĝ(θ) by its length; `momentum` β in [0, 1); `ascent`, the gradient
    that is climbed: that of the `"same"` batch, of a `"fresh"` one, or the `"full"` gradient.

    Raises `ValueError` for others. Source: Foret et al. (2021), arXiv:2010.01412; without the
    length Andriushchenko, Flammarion (2022), arXiv:2206.06232.

    >>> from statsgd import noise
    >>> SharpnessAware(0.1, noise.Minibatch(16), radius=0.05, normalised=True).radius
    array(0.05)
    """

    radius: Float[Any, ""]
    ascent: str = eqx.field(static=True)
    normalised: bool = eqx.field(static=True)

    def __init__(
        self,
        learning_rate: Any,
        noise: GradientNoise,
        radius: Any,
        momentum: Any = 0.0,
        *,
        ascent: str = "same",
        normalised: bool = True,
    ):
        self.learning_rate = positive("learning_rate", learning_rate)
        self.noise = _checked(noise)
        self.radius = positive("radius", radius)
        self.momentum = fraction("momentum", momentum)
        self.ascent = one_of("ascent", ascent, ("same", "fresh", "full"))
        self.normalised = bool(normalised)
        if self.ascent == "fresh" and not noise.white:
            raise ValueError("ascent must not be 'fresh' where batches are shuffled by epochs")

    def perturbed(self, key: PRNGKeyArray, problem: Problem, state: SGDState) -> PyTree:
        """θ + ρ ĝ(θ), or θ + ρ ĝ(θ)/|ĝ(θ)|."""
        if self.ascent == "full":
            slope = problem.gradient(state.params)
        else:
            own = key if self.ascent == "same" else jax.random.split(key)[0]
            slope = self.noise.at_step(own, state.step, problem, state.params)
        reach = self.radius
        if self.normalised:
            length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
            reach = reach / jnp.where(length > 0, length, 1)
        return jax.tree.map(lambda p, g: (p + reach * g).astype(p.dtype), state.params, slope)

    def on_quadratic(
        self, hessian: Float[Any, "d d"], noise: Float[Any, "d d"]
    ) -> tuple[Float[Any, "d d"], Float[Any, "d d"]]:
        """H(I+ρH), and (I+ρH)C(I+ρH) with the same batch, C + ρ²HCH with a fresh one, else C.

        Raises `ValueError` if `normalised`: then the step is not linear. Source: *derived*.
        """
        if self.normalised:
            raise ValueError(
                "normalised must be False for a law: dividing by the gradient's length is not "
                "linear; in many dimensions, where |g| hardly varies, radius/sqrt(E|g|²) without "
                "it comes near"
            )
        rho = float(self.radius)
        reach = np.eye(len(hessian)) + rho * hessian
        kicks = {
            "same": reach @ noise @ reach,
            "fresh": noise + rho**2 * hessian @ noise @ hessian,
            "full": noise,
        }[self.ascent]
        return hessian @ reach, kicks


class WeightNoise(PerturbedSGD):
    """Weight noise: gradients are taken at θ + σn, n standard normal and new at every step.

    **Arguments:** `learning_rate` η > 0, `noise`, `standard_deviation` σ > 0 (params), `momentum`
    β in [0, 1). Raises `ValueError` for others. The mean gradient is that of the loss smoothed
    over σ, L + (σ²/2) Tr H to second order: minima of small trace are preferred at any η.

    Source: Orvieto et al. (2022), arXiv:2202.02831, with anticorrelated noise in place of new one.

    >>> from statsgd import noise
    >>> WeightNoise(0.1, noise.Minibatch(16), standard_deviation=0.01).standard_deviation
    array(0.01)
    """

    standard_deviation: Float[Any, ""]

    def __init__(
        self,
        learning_rate: Any,
        noise: GradientNoise,
        standard_deviation: Any,
        momentum: Any = 0.0,
    ):
        self.learning_rate = positive("learning_rate", learning_rate)
        self.noise = _checked(noise)
        self.standard_deviation = positive("standard_deviation", standard_deviation)
        self.momentum = fraction("momentum", momentum)

    def perturbed(self, key: PRNGKeyArray, problem: Problem, state: SGDState) -> PyTree:
        """θ + σn."""
        own = jax.random.fold_in(jax.random.split(key)[1], state.step)
        leaves, structure = jax.tree.flatten(state.params)
        moved = [
            (leaf + self.standard_deviation * normal(k, leaf.shape, leaf.dtype)).astype(leaf.dtype)
            for leaf, k in zip(leaves, jax.random.split(own, len(leaves)), strict=True)
        ]
        return jax.tree.unflatten(structure, moved)

    def on_quadratic(
        self, hessian: Float[Any, "d d"], noise: Float[Any, "d d"]
    ) -> tuple[Float[Any, "d d"], Float[Any, "d d"]]:
        """H, and C + σ²H². Source: *derived*."""
        return hessian, noise + float(self.standard_deviation) ** 2 * hessian @ hessian


def _checked(noise: Any) -> GradientNoise:
    if not isinstance(noise, GradientNoise):
        raise ValueError(f"noise must be one of statsgd.noise, got {noise!r}")
    return noise
