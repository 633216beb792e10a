"""The quadratic that a problem looks like near its minimum, with the gradient noise there."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.dynamics.noise import GradientNoise, noise_covariance
from statsgd.dynamics.sgd import SGD
from statsgd.problems import DENSE_LIMIT, Problem, hessian, minimise
from statsgd.problems.minimum import shared


class LocalQuadratic(NamedTuple):
    """Second-order data of L + (λ/2)|θ|² at its minimum, in flat coordinates and float64."""

    location: Float[Any, " d"]
    hessian: Float[Any, "d d"]
    """Of L alone."""
    noise_covariance: Float[Any, "d d"]


def local_quadratic(problem: Problem, sgd: SGD, at: PyTree | None = None) -> LocalQuadratic:
    """Minimum, Hessian and C there, for laws that speak about heavy-ball SGD near a minimum.

    **Arguments:** `at`, params to take for the minimum; by default `minimise` finds it.

    Raises `ValueError` for SGD that is not heavy-ball SGD, and as `quadratic_near`.
    """
    sgd.require_heavy_ball()
    return quadratic_near(problem, sgd.noise, sgd.weight_decay, at)


def quadratic_near(
    problem: Problem, noise: GradientNoise, weight_decay: Any, at: PyTree | None = None
) -> LocalQuadratic:
    """As `local_quadratic`, for any dynamics with this noise and this decay in the end.

    Raises `ValueError` if the noise is correlated in time, has no finite variance or does not fit
    the problem, and as `minimum_near`.
    """
    if not noise.white:
        raise ValueError(
            "sampling must give noise that is independent from step to step for this law, got "
            f"{getattr(noise, 'sampling', type(noise).__name__)!r}"
        )
    noise.require_variance()
    place = minimum_near(problem, weight_decay, at)
    return shared(
        lambda: _quadratic_at(problem, noise, place), (problem, noise, place), "quadratic"
    )


def _quadratic_at(problem: Problem, noise: GradientNoise, at: PyTree) -> LocalQuadratic:
    return LocalQuadratic(
        np.asarray(problem.flatten(at), dtype=np.float64),
        np.asarray(hessian(problem, at)),
        np.asarray(noise_covariance(problem, at, noise)),
    )


def minimum_near(problem: Problem, weight_decay: Any, at: PyTree | None = None) -> PyTree:
    """`at`, or the minimum of L + (λ/2)|θ|² that `minimise` finds, for laws that need the Hessian.

    Raises `ValueError` if d is above `problems.DENSE_LIMIT`, or if no minimum is found.
    """
    if problem.dimension > DENSE_LIMIT:
        raise ValueError(
            f"the law needs d × d matrices, which are formed up to d = {DENSE_LIMIT}, got "
            f"d = {problem.dimension}"
        )
    if at is not None:
        return at
    minimum = minimise(problem, weight_decay=float(weight_decay))
    if not minimum.converged:
        raise ValueError(
            "no minimum was found: the gradient norm reached is "
            f"{minimum.gradient_norm:.3g}; pass at=params if this is near enough"
        )
    return minimum.params
