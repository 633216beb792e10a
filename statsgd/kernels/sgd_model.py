"""The underdamped Langevin equation that heavy-ball SGD is near a minimum."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import one_of, positive
from statsgd.dynamics.noise import Isotropic
from statsgd.dynamics.sgd import SGD
from statsgd.kernels.kernel_state import Potential
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.problems import Problem

#: Relative size of CH − HC above which a potential is held not to exist.
_COMMUTES = 1e-6


class UnderdampedModel(NamedTuple):
    """dθ = v dt, dv = −P∇U dt − ζv dt + √(2ζP) dW."""

    potential: Potential
    """U of the problem's params."""
    inverse_mass: Any
    """P, params²/time²: a number or `(d, d)`."""
    friction: Float[Any, ""]
    """ζ, 1/time."""
    highest_frequency: float
    """The largest ω = √(ah), 1/time; zero where the loss is not taken for a quadratic."""


class LossPotential(eqx.Module):
    """U = factor·(L + λ|θ|²/2)."""

    problem: Problem
    factor: Float[Any, ""]
    weight_decay: Float[Any, ""]

    def __call__(self, params: PyTree) -> Float[Any, ""]:
        """U at `params`."""
        flat = self.problem.flatten(params)
        return self.factor * (self.problem.loss(params) + self.weight_decay * (flat @ flat) / 2)


class QuadraticPotential(eqx.Module):
    """U = ½ xᵀKx with x = θ − location."""

    problem: Problem
    stiffness: Float[Any, "d d"]
    location: Float[Any, " d"]

    def __call__(self, params: PyTree) -> Float[Any, ""]:
        """U at `params`."""
        flat = self.problem.flatten(params)
        x = flat - jnp.asarray(self.location, flat.dtype)
        return x @ (jnp.asarray(self.stiffness, flat.dtype) @ x) / 2


def underdamped_model(
    problem: Problem, sgd: SGD, at: PyTree | None = None, noise: str = "hessian"
) -> UnderdampedModel:
    """The model for `sgd`; arguments and errors as `UnderdampedKernel.from_sgd`."""
    one_of("noise", noise, ("hessian", "measured"))
    sgd.require_heavy_ball()
    eta, beta, decay = sgd.learning_rate, sgd.momentum, sgd.weight_decay
    factor = 2 / (eta * (1 + beta))
    friction = factor * (1 - beta)
    if isinstance(sgd.noise, Isotropic):
        mass = (1 - beta**2) / positive("noise.variance", sgd.noise.variance)
        return UnderdampedModel(
            LossPotential(problem, factor * mass, decay), 1 / mass, friction, 0.0
        )
    local = local_quadratic(problem, sgd, at)
    curvature, covariance = local.hessian, local.noise_covariance
    if noise == "hessian":
        covariance = curvature * np.trace(covariance) / np.trace(curvature)
    disorder = _relative_commutator(covariance, curvature)
    if disorder > _COMMUTES:
        raise ValueError(
            "noise_covariance must commute with the Hessian for a potential to exist, got a "
            f"relative commutator of {disorder:.3g}: take noise='hessian', or simulate "
            "sgd.diffusion_limit(problem)"
        )
    values = np.linalg.eigvalsh(covariance)
    if not values[0] > 1e-12 * values[-1]:
        raise ValueError(
            "noise_covariance must be positive definite, got smallest eigenvalue "
            f"{values[0]:.4g}: directions without noise do not move"
        )
    stiffness = curvature + decay * np.eye(len(curvature))
    smallest, largest = np.linalg.eigvalsh(stiffness)[[0, -1]]
    if not smallest > 0:
        raise ValueError(
            f"hessian + weight_decay*I must be positive definite, got eigenvalue {smallest:.4g}"
        )
    form = factor * (1 - beta**2) * np.linalg.solve(covariance, stiffness)
    return UnderdampedModel(
        QuadraticPotential(problem, (form + form.T) / 2, local.location),
        covariance / (1 - beta**2),
        friction,
        float(np.sqrt(factor * largest)),
    )


def _relative_commutator(a: Float[Any, "d d"], b: Float[Any, "d d"]) -> float:
    return float(np.linalg.norm(a @ b - b @ a) / (np.linalg.norm(a) * np.linalg.norm(b)))
