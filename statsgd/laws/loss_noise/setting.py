"""Loss-scaled noise: its one parameter, readings of its SDE, and what a problem and an SGD say."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import fraction, positive
from statsgd.dynamics.noise import LossScaled
from statsgd.dynamics.sgd import SGD
from statsgd.precision import over_points
from statsgd.problems import DENSE_LIMIT, Problem, hessian, minimise
from statsgd.problems.flat_loss import FlatLoss

#: Power of 1/D(θ) that each reading of a stochastic integral puts into the density.
READINGS = {"ito": 1.0, "stratonovich": 0.5, "anti_ito": 0.0}


class QuadraticLoss(NamedTuple):
    """L = offset + ½(θ−location)ᵀH(θ−location)."""

    location: Float[Any, " d"]
    hessian: Float[Any, "d d"]
    offset: float


def loss_exponent(noise_ratio: Any, reading: str = "ito") -> Any:
    """α of the law L^(−α): 1 + 2/ε (Itô), ½ + 2/ε (Stratonovich) or 2/ε (anti-Itô)."""
    return READINGS[reading] + 2 / noise_ratio


def steepness(noise_ratio: Any, codimension: int, reading: str = "ito") -> float:
    """1 − 2α/q, by which the loss falls short of collapse; steps must be small compared to it.

    The mass below a small loss L is L^(q/2−α): at zero all of it is at zero loss.
    """
    return float(1 - 2 * loss_exponent(noise_ratio, reading) / codimension)


def effective_noise_ratio(learning_rate: Any, strength: Any, momentum: Any = 0.0) -> Any:
    """ε = ησ/(1−β), the one noise parameter of every power-of-loss law; dimensionless.

    `strength` is σ of C = σLI, per coordinate. Without momentum this is exact for the diffusion
    limit. With momentum β no law is known; the slow variable follows the same SDE with η/(1−β)
    where ηh ≪ (1−β)² for every curvature h (derived; at β = 0.9 and ηh = 0.002 exponents are
    still off by a third).

    >>> round(float(effective_noise_ratio(0.1, strength=4.0, momentum=0.5)), 4)
    0.8
    """
    rate, sigma = positive("learning_rate", learning_rate), positive("strength", strength)
    return rate * sigma / (1 - fraction("momentum", momentum))


def loss_scaled_noise(sgd: SGD) -> LossScaled:
    """The `LossScaled` noise of `sgd`, for laws that hold without momentum and weight decay.

    Raises `ValueError` for another noise, momentum or weight decay.
    """
    sgd.require_heavy_ball()
    if not isinstance(sgd.noise, LossScaled):
        raise ValueError(
            f"noise must be LossScaled for this law, got {type(sgd.noise).__name__}; "
            "fit_loss_scaled_noise says how near another noise is to it"
        )
    if np.any(np.asarray(sgd.weight_decay) != 0):
        raise ValueError(
            f"power-of-loss laws need weight_decay = 0; got {float(sgd.weight_decay):.4g}. "
            "Quadratic loss with a floor has exact second moments: see floor_second_moments"
        )
    if np.any(np.asarray(sgd.momentum) != 0):
        raise ValueError(
            f"power-of-loss laws need momentum = 0; got {float(sgd.momentum):.4g}. Where "
            "learning_rate*curvature is far below (1-momentum)^2, build the law with noise_ratio = "
            "effective_noise_ratio(learning_rate, strength, momentum)"
        )
    return sgd.noise


def quadratic_loss(problem: Problem, at: PyTree | None = None) -> QuadraticLoss | None:
    """The quadratic that the loss of `problem` is, or None if it is not one with H > 0.

    The loss is compared with its second-order expansion at the minimum (`at`, or found) in eight
    fixed directions, at lengths 1 and 3. Above `problems.DENSE_LIMIT` parameters the answer is
    None.
    """
    if problem.dimension > DENSE_LIMIT:
        return None
    if at is None:
        minimum = minimise(problem)
        if not minimum.converged:
            return None
        at = minimum.params
    location = np.asarray(problem.flatten(at), dtype=np.float64)
    curvature = np.asarray(hessian(problem, at))
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        return None
    directions = np.random.default_rng(0).standard_normal((8, len(location)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    steps = np.concatenate([np.zeros((1, len(location))), directions, 3 * directions])
    values = over_points(FlatLoss(problem), location + steps)
    expansion = values[0] + 0.5 * np.einsum("ni,ij,nj->n", steps, curvature, steps)
    # Data may be kept in single precision, and then so is the loss.
    if not np.allclose(values, expansion, rtol=1e-5, atol=1e-7 * np.max(np.abs(values))):
        return None
    return QuadraticLoss(location, curvature, float(values[0]))
