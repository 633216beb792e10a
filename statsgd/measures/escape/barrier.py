"""A ridge of the loss between two places: whether one was left for another basin."""

from typing import Any

import numpy as np
from jaxtyping import PyTree

from statsgd.arguments import count, kinds_checked
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk, Problem
from statsgd.problems.parameters import between, floating
from statsgd.problems.sums import loss_sum, mean_over_chunks


@kinds_checked
def loss_barrier(problem: Problem, start: PyTree, end: PyTree, *, places: int = 9) -> float:
    """By how much the loss rises above the line between its values at `start` and `end` (loss).

    The largest of L((1−s)θ₀ + sθ₁) − (1−s)L(θ₀) − sL(θ₁) over evenly spaced s, both ends among
    them: zero where the loss sags in between, as within one basin. Two places without a barrier are
    linearly connected; a barrier says that the straight way leads over a ridge, not that every way
    does.

    **Arguments:** `start` and `end`, params or whole trained models; `places` on the way, at least
    3: so many values of the loss, in double precision.

    Raises `ValueError` for fewer places. NaN where a loss is not finite.
    Source: Frankle, Dziugaite, Roy, Carbin (2020), arXiv:1912.05671, there of the error rate.

    >>> import numpy as np
    >>> from statsgd.problems import quartic_wells
    >>> wells = quartic_wells()  # x⁴/4 − x²/2
    >>> loss_barrier(wells, np.array([-1.0]), np.array([1.0]))
    0.25
    >>> loss_barrier(wells, np.array([0.9]), np.array([1.1]))
    0.0
    """
    shares = np.linspace(0, 1, count("places", places, at_least=3))
    first, last = (floating(problem.parameters(at)) for at in (start, end))
    losses = np.array([_loss(problem, between(first, last, share)) for share in shares])
    above = losses - ((1 - shares) * losses[0] + shares * losses[-1])
    return float(np.max(above))


def _loss(problem: Problem, at: PyTree) -> float:
    # In double precision: over short ways the loss changes by less than single precision shows.
    if isinstance(problem, EmpiricalRisk):
        return float(mean_over_chunks(problem, loss_sum, at, double=True, progress=False))
    return float(in_double_precision(_of_problem, problem, at))


def _of_problem(problem: Problem, at: PyTree) -> Any:
    return problem.loss(at)
