"""How fast the law of SGD is reached: the spectral gap of the Gibbs law in one dimension."""

from typing import Any

import numpy as np
from scipy.linalg import eigh

from statsgd.arguments import positive
from statsgd.laws.bases.tabulated import find_support
from statsgd.laws.gibbs.escape import derivatives_on_line, mean_first_passage_1d
from statsgd.laws.law import ImproperLawError
from statsgd.problems import Problem

_POINTS = 800
_LOST = 1e-11  # eigenvalues below this part of the largest are rounding


def relaxation_gap_1d(problem: Problem, temperature: Any) -> float:
    """The rate at which dθ = −L'dt + √(2τ)dW forgets its start, one parameter, constant noise.

    ‖p_t − p‖ ≤ exp(−gap t)‖p_0 − p‖ in L²(1/p), with t = ηk. One quadratic well has gap h at every
    batch size; two wells have the sum of both escape rates, exponentially small in the batch size.
    The second eigenvalue of −τ∂² + L'²/(4τ) − L''/2, by sinc collocation where L < L_min + 45τ.
    Where that is lost in rounding, the sum of the exact inverse passage times between the two
    deepest minima.

    **Arguments:** `problem` with a smooth loss, d = 1; `temperature` τ = ηc/2. Returns 1/time.
    Raises `ValueError` for d ≠ 1 and `ImproperLawError` if there is no stationary law.

    Source: derived.
    """
    if problem.dimension != 1:
        raise ValueError(f"problem must have one parameter, got d = {problem.dimension}")
    tau = float(positive("temperature", temperature))
    low, high, _, _ = find_support(lambda x: derivatives_on_line(problem, x)[0] / tau)
    x = np.linspace(float(low), float(high), _POINTS)
    step = x[1] - x[0]
    loss, slope, curvature = derivatives_on_line(problem, x)
    lag = np.arange(_POINTS)[:, None] - np.arange(_POINTS)
    sign = np.where(lag % 2 == 0, 1.0, -1.0)
    kinetic = np.where(lag == 0, np.pi**2 / 3, 2 * sign / np.where(lag == 0, 1, lag) ** 2)
    operator = tau / step**2 * kinetic + np.diag(slope**2 / (4 * tau) - curvature / 2)
    gap = float(eigh(operator, eigvals_only=True, subset_by_index=[1, 1])[0])
    if gap > _LOST * float(np.max(np.diagonal(operator))):
        return gap
    wells = 1 + np.flatnonzero((loss[1:-1] < loss[:-2]) & (loss[1:-1] <= loss[2:]))
    if len(wells) < 2:
        raise ImproperLawError(
            f"the gap {gap:.3g} is lost in rounding and there are no two wells to escape between"
        )
    left, right = np.sort(x[wells[np.argsort(loss[wells])[:2]]])
    there = mean_first_passage_1d(problem, tau, left, right)
    back = mean_first_passage_1d(problem, tau, right, left)
    return 1 / there + 1 / back
