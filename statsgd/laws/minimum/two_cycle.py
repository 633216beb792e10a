"""Gradient descent beyond the edge of stability: the two-cycle it settles into."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array, kinds_checked, positive
from statsgd.laws.gibbs.drift_potential import derivatives_on_line
from statsgd.problems import Problem


class TwoCycle(NamedTuple):
    """A cycle θ₁ → θ₂ → θ₁ of full-batch gradient descent."""

    points: Float[Any, " 2"]
    losses: Float[Any, " 2"]
    multiplier: float
    """Slope (1 − ηL''(θ₁))(1 − ηL''(θ₂)) of the second iterate."""
    stable: bool
    """Whether |multiplier| < 1."""


def two_cycle_half_width(learning_rate: Any, second: float, third: float, fourth: float) -> float:
    """Half-width of the cycle born at ηa = 2 from a minimum with L'', L''', L'''' = a, b, e.

    √((ηa − 2)/(η²b²/4 − ηe/6)) to leading order. Raises `ValueError` unless ηa > 2, and where
    3b² ≤ ae: then no small stable cycle exists and gradient descent jumps away.

    Source: derived, for Andriushchenko et al. (2023), arXiv:2210.05337.

    >>> round(two_cycle_half_width(2.1, second=1.0, third=1.0, fourth=0.0), 4)
    0.3012
    """
    eta = float(positive("learning_rate", learning_rate))
    if not eta * second > 2:
        raise ValueError(f"learning_rate*h = {eta * second:.6g} must exceed 2 for a two-cycle")
    excess = 3 * third**2 - second * fourth
    if excess <= 0:
        raise ValueError(
            f"subcritical: 3b² − ae = {excess:.6g} must be positive for a small stable two-cycle; "
            "gradient descent jumps away"
        )
    return float(np.sqrt((eta * second - 2) / (eta**2 * third**2 / 4 - eta * fourth / 6)))


@kinds_checked
def two_cycle(
    problem: Problem, learning_rate: Any, minimum: Any, *, fourth_step: float = 1e-3
) -> TwoCycle:
    """The two-cycle of full-batch gradient descent about `minimum`, one parameter.

    Found by Newton's method from `two_cycle_half_width`. The loss is not monotone along the cycle
    and its mean is not the minimum; where `stable` is False gradient descent goes elsewhere
    (longer cycles, chaos).

    **Arguments:** `minimum`, params `(1,)`; `fourth_step`, the step of the difference quotient for
    L''''. Raises `ValueError` for d ≠ 1, as `two_cycle_half_width`, and if there is no cycle near.

    >>> import numpy as np
    >>> from statsgd.problems import quartic_wells
    >>> cycle = two_cycle(quartic_wells(), learning_rate=1.02, minimum=np.array([1.0]))
    >>> cycle.points.ravel().round(3), bool(cycle.stable)
    (array([0.923, 1.063]), True)
    """
    if problem.dimension != 1:
        raise ValueError(f"problem must have one parameter, got d = {problem.dimension}")
    eta = float(positive("learning_rate", learning_rate))
    place = np.asarray(finite_array("minimum", minimum), dtype=np.float64).reshape(1)
    around = place + fourth_step * np.array([-1.0, 0.0, 1.0])
    curvature = derivatives_on_line(problem, around)[2]
    third = (curvature[2] - curvature[0]) / (2 * fourth_step)
    fourth = (curvature[2] - 2 * curvature[1] + curvature[0]) / fourth_step**2
    half = two_cycle_half_width(eta, curvature[1], third, fourth)
    points = place + half * np.array([-1.0, 1.0])
    for _ in range(100):
        _, slope, curvature = derivatives_on_line(problem, points)
        residual = points - eta * slope - points[::-1]
        jacobian = np.array([[1 - eta * curvature[0], -1.0], [-1.0, 1 - eta * curvature[1]]])
        step = np.linalg.solve(jacobian, residual)
        points = points - step
        if np.max(np.abs(step)) < 1e-14 * (1 + np.max(np.abs(points))):
            break
    losses, slope, curvature = derivatives_on_line(problem, points)
    distinct = abs(points[0] - points[1]) > 1e-9
    if not distinct or np.max(np.abs(points - eta * slope - points[::-1])) > 1e-10:
        raise ValueError(f"no two-cycle was found about {float(place[0]):.6g} at {eta:.6g}")
    multiplier = float(np.prod(1 - eta * curvature))
    order = np.argsort(points)
    return TwoCycle(points[order], losses[order], multiplier, abs(multiplier) < 1)
