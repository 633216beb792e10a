"""Curvature between two places, and that of the places on the way: they differ by kinks."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from statsgd.arguments import kinds_checked
from statsgd.laws.networks.checkpoint import loss_and_gradient
from statsgd.problems import Problem
from statsgd.problems.parameters import between, floating
from statsgd.problems.sums import hessian_product

#: Places on a way, and their weights by Simpson's rule.
_PLACES = np.linspace(0, 1, 5)
_WEIGHTS = np.array([1, 4, 2, 4, 1]) / 12


class SecantCurvature(NamedTuple):
    """Curvatures along the way Δ from one place to another (loss/params²), in double precision."""

    between: float
    """Change of the gradient along the way, Δᵀ(∇L(θ₁) − ∇L(θ₀))/|Δ|²."""
    on_the_way: float
    """Mean of Δᵀ∇²LΔ/|Δ|² over the way."""
    distance: float
    """|Δ| (params)."""


@kinds_checked
def secant_curvature(problem: Problem, start: PyTree, end: PyTree) -> SecantCurvature:
    """How much the gradient changes from `start` to `end`, and what second derivatives say of it.

    The two curvatures agree where second derivatives are all there is. A unit with a kink (ReLU,
    largest of a pool) is linear on either side, and what its slope jumps by on the way is in the
    first alone: there SGD feels more curvature than any Hessian product shows.

    The mean over the way is by Simpson's rule over five places: two gradients, five Hessian
    products. `start` and `end` are params, or whole trained models.

    Raises `ValueError` for a way of no length, or without finite gradients at its ends.
    Source: *derived*.

    >>> import jax.numpy as jnp, numpy as np
    >>> from statsgd.problems import landscape
    >>> kinked = landscape(lambda x: jnp.sum(x**2) / 2 + jnp.abs(x[0]) / 2, np.zeros(1))
    >>> found = secant_curvature(kinked, np.array([-1.0]), np.array([1.0]))
    >>> round(found.between, 6), round(found.on_the_way, 6)
    (1.5, 1.0)
    """
    first, last = (floating(problem.parameters(at)) for at in (start, end))
    flat = [np.asarray(problem.flatten(at), dtype=np.float64) for at in (first, last)]
    way = flat[1] - flat[0]
    square = float(way @ way)
    if not square > 0:
        raise ValueError("end must be elsewhere than start, got the same parameters")
    gradients = [loss_and_gradient(problem, at)[1] for at in (first, last)]
    change = float(way @ (gradients[1] - gradients[0]))
    if not np.isfinite(change):
        raise ValueError("start and end must have finite gradients, got one that is not")
    places = (between(first, last, share) for share in _PLACES)
    bent = np.array([_along(problem, at, way) for at in places])
    return SecantCurvature(change / square, float(_WEIGHTS @ bent) / square, square**0.5)


def _along(problem: Problem, at: PyTree, way: Any) -> float:
    return float(way @ np.asarray(hessian_product(problem, at, double=True)(way), dtype=np.float64))
