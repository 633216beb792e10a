"""What the valley law reads off a problem and an SGD: curvature, floor and diffusion along x."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.dynamics.sgd import SGD
from statsgd.laws.valleys.coordinate import Constant, ValleyCoordinate
from statsgd.precision import over_points
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss

_PROBES = 65


class ValleyFloor(eqx.Module):
    """L₀(x) = L(x, 0) + λx²/2."""

    problem: Problem
    weight_decay: Float[Any, ""]

    def __call__(self, x: Float[Any, ""]) -> Float[Any, ""]:
        """L₀(x)."""
        return FlatLoss(self.problem)(floor_point(self.problem, x)) + self.weight_decay * x**2 / 2


class ValleyCurvature(eqx.Module):
    """h_i(x) = ∂²L/∂y_i² at (x, 0), plus λ."""

    problem: Problem
    weight_decay: Float[Any, ""]

    def __call__(self, x: Float[Any, ""]) -> Float[Any, " m"]:
        """h(x)."""
        point = floor_point(self.problem, x)
        return jnp.diagonal(jax.hessian(FlatLoss(self.problem))(point))[1:] + self.weight_decay


class FloorDiffusion(eqx.Module):
    """D = ηC/2 at (x, 0): of the fast coordinates, or of x."""

    problem: Problem
    sgd: SGD
    across: bool = eqx.field(static=True)

    def __call__(self, x: Float[Any, ""]) -> Float[Any, "..."]:
        """Diagonal of D."""
        params = self.problem.unflatten(floor_point(self.problem, x))
        covariance = self.sgd.noise.covariance(self.problem, params)
        diffusion = self.sgd.learning_rate * jnp.diagonal(covariance) / 2
        return diffusion[1:] if self.across else diffusion[0]


class ValleySetting(NamedTuple):
    """The arguments of `ValleyLaw`."""

    curvature: ValleyCurvature
    across_diffusion: FloorDiffusion | Constant
    along_diffusion: FloorDiffusion | Constant
    floor: ValleyFloor


def valley_setting(problem: Problem, sgd: SGD, coordinate: ValleyCoordinate) -> ValleySetting:
    """The valley of `problem` about y = 0, checked at points along it.

    Raises `ValueError` unless the noise is white, y = 0 is a critical line with positive curvature
    and no cross-curvature between the fast directions, and C is diagonal there and does not vanish
    along x.
    """
    sgd.require_heavy_ball()
    if not sgd.noise.white:
        raise ValueError(
            "noise must be independent from step to step for the valley law, got "
            f"{getattr(sgd.noise, 'sampling', type(sgd.noise).__name__)!r}"
        )
    sgd.noise.check(problem)
    sgd.noise.require_variance()
    if problem.dimension < 2:
        raise ValueError(
            "a valley has one coordinate along and at least one across: the problem must have "
            f"dimension 2 or more, got {problem.dimension}"
        )
    reach = 3.0 if coordinate.shape == "line" else coordinate.reach
    x = coordinate.place(np.linspace(-0.96 * reach, 0.96 * reach, _PROBES))
    gradient, hessian, covariance = over_points(_probe, x[:, None], problem, sgd)
    scale = np.max(np.abs(hessian))
    if np.max(np.abs(gradient[:, 1:])) > 1e-5 * scale:
        raise ValueError(
            "the valley floor must lie at zero in all but the first parameter, got a gradient "
            f"across it of {np.max(np.abs(gradient[:, 1:])):.3g}: shift the coordinates"
        )
    inside = hessian[:, 1:, 1:]
    h = np.diagonal(inside, axis1=1, axis2=2)
    cross = np.max(np.abs(inside - np.einsum("ni,ij->nij", h, np.eye(h.shape[1]))))
    if np.min(h) + float(sgd.weight_decay) <= 0 or cross > 1e-5 * scale:
        raise ValueError(
            "the curvature across the valley must be diagonal and positive, got a smallest entry "
            f"{np.min(h):.4g} and a largest off-diagonal entry {cross:.4g}"
        )
    noise = np.diagonal(covariance, axis1=1, axis2=2)
    mixed = np.max(np.abs(covariance - np.einsum("ni,ij->nij", noise, np.eye(noise.shape[1]))))
    if mixed > 1e-5 * np.max(noise) or np.min(noise) <= 0:
        raise ValueError(
            "the noise covariance on the valley floor must be diagonal and positive, got a "
            f"smallest variance {np.min(noise):.4g} and a largest covariance {mixed:.4g}"
        )
    diffusions: list[FloorDiffusion | Constant] = [
        FloorDiffusion(problem, sgd, across=True),
        FloorDiffusion(problem, sgd, across=False),
    ]
    if np.max(np.ptp(noise, axis=0)) <= 1e-12 * np.max(noise):
        half = float(sgd.learning_rate) / 2
        diffusions = [Constant(half * noise[0, 1:]), Constant(half * noise[0, 0])]
    return ValleySetting(
        ValleyCurvature(problem, sgd.weight_decay),
        diffusions[0],
        diffusions[1],
        ValleyFloor(problem, sgd.weight_decay),
    )


def floor_point(problem: Problem, x: Float[Any, ""]) -> Float[Any, " d"]:
    """(x, 0, …, 0)."""
    return jnp.zeros(problem.dimension).at[0].set(x)


def _probe(place: Float[Any, " 1"], problem: Problem, sgd: SGD) -> tuple[Any, Any, Any]:
    """Gradient and Hessian of the loss and noise covariance on the floor."""
    loss, point = FlatLoss(problem), floor_point(problem, place[0])
    covariance = sgd.noise.covariance(problem, problem.unflatten(point))
    return jax.grad(loss)(point), jax.hessian(loss)(point), covariance
