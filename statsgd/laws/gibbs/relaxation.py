"""How fast the law of SGD is reached: the spectral gap of the Gibbs law in one dimension."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import kinds_checked, positive
from statsgd.laws.bases.line import LADDER, Wells, cell_masses, find_wells, tabulate
from statsgd.laws.bases.slowest_rate import slowest_rate
from statsgd.laws.bases.tabulated import find_support
from statsgd.laws.gibbs.drift_potential import derivatives_on_line
from statsgd.laws.law import require_accurate
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_RESOLVED = 1e-6


@kinds_checked
def relaxation_gap_1d(problem: Problem, temperature: Any) -> float:
    """The rate at which dθ = −L'dt + √(2τ)dW forgets its start, one parameter, constant noise.

    ‖p_t − p‖ ≤ exp(−gap t)‖p_0 − p‖ in L²(1/p), with t = ηk. One quadratic well has gap h at every
    batch size; two wells have the sum of both escape rates, exponentially small in the batch size.
    The leading eigenvalue of a positive operator (`slowest_rate`) where L < L_min + 45τ, on the
    grid of the Gibbs law; only values of the loss enter, which may have kinks.

    **Arguments:** `problem`, d = 1; `temperature` τ = ηc/2. Returns 1/time. Raises `ValueError`
    for d ≠ 1, `ImproperLawError` if there is no stationary law, `IntractableError` where the
    density at a barrier underflows or the grid leaves an error above a tenth; warns with
    `UnresolvedWarning` above 10⁻³.

    Source: derived.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> round(relaxation_gap_1d(quadratic(np.array([[2.0]])), temperature=0.1), 4)  # h
    2.0
    """
    if problem.dimension != 1:
        raise ValueError(f"problem must have one parameter, got d = {problem.dimension}")
    tau = float(positive("temperature", temperature))

    def log_mass(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return -derivatives_on_line(problem, x)[0] / tau

    support = find_support(lambda x: -log_mass(x))
    wells = find_wells(log_mass, support.mode, support.width, support.low, support.high)
    for number in LADDER:
        table = tabulate(log_mass, wells, support.low, support.high, number)
        step = (table.knots[-1] - table.knots[0]) / (number - 1)
        masses = in_double_precision(cell_masses, table.density, step)
        below = np.concatenate([[0.0], np.cumsum(masses)])
        above = np.concatenate([np.cumsum(masses[::-1])[::-1], [0.0]])
        stretch = 1 / in_double_precision(Wells.slope, table.wells, table.points)
        with np.errstate(all="ignore"):
            resistance = stretch**2 / (tau * table.density)
        gap, error = slowest_rate(below, above, resistance, table.density, step)
        if error < _RESOLVED:
            break
    require_accurate("relaxation gap", error)
    return gap
