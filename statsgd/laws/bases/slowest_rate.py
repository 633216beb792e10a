"""The rate at which a reversible diffusion on the line forgets its start."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh

from statsgd.laws.law import IntractableError

_LARGEST = 1e280


def slowest_rate(
    below: Float[np.ndarray, " n"],
    above: Float[np.ndarray, " n"],
    resistance: Float[np.ndarray, " n"],
    density: Float[np.ndarray, " n"],
    step: float,
) -> tuple[float, float]:
    """The least positive rate of p' = (Dp f')' and its relative error, by halving the grid.

    On a grid of a coordinate t with an odd number of knots: probabilities `below` and `above` each,
    `density` d of t, and `resistance` r = (dx/dt)²/(D d). The flux J of the slowest mode is the
    leading eigenfunction of the positive operator

        J → (1 − P(x)) ∫_{y<x} P r J dt + P(x) ∫_{y>x} (1 − P) r J dt

    whose eigenvalue is one over the rate. All its terms are positive, so that rates of e⁻⁶⁰⁰ keep
    their digits; `IntractableError` where the density between two wells underflows.
    """
    if not np.max(resistance) < _LARGEST:
        raise IntractableError(
            "the density between two wells underflows: the barrier is above 600 temperatures, and "
            "the rate is zero for all purposes"
        )

    def rate(every: int) -> float:
        kept = np.s_[::every]
        whole = _leading(below[kept], above[kept], resistance[kept], density[kept], step * every)
        return 1 / whole

    fine, coarse = rate(1), rate(2)
    return fine, abs(fine - coarse) / fine


def _leading(below: Any, above: Any, resistance: Any, density: Any, step: float) -> float:
    root = np.sqrt(resistance * step)
    left, right = below * root, above * root
    # The kernel has a kink on its diagonal, which the trapezoidal rule is corrected for.
    kink = resistance * density * step**2 / 12

    def apply(vector: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        from_left = np.cumsum(left * vector)
        from_right = np.cumsum((right * vector)[::-1])[::-1] - right * vector
        return right * from_left + left * from_right - kink * vector

    size = len(root)
    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    start = np.sqrt(np.maximum(left * right, 1e-300))
    return float(eigsh(operator, k=1, which="LA", v0=start, tol=1e-12)[0][0])
