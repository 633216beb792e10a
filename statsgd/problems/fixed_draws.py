"""Losses that are known by fixed draws: batches, keys or examples of a distribution."""

import dataclasses

from statsgd.problems.batch_loss import BatchRisk
from statsgd.problems.problem import Problem
from statsgd.problems.risk import EmpiricalRisk, PopulationRisk


def with_twice_the_draws(problem: Problem) -> Problem | None:
    """The same expectation as a mean over those draws and as many more; None if it is exact."""
    if isinstance(problem, BatchRisk):
        if problem.exact_loss:
            return None
        return dataclasses.replace(problem, loss_batches=2 * problem.loss_batches)
    if isinstance(problem, PopulationRisk):
        if problem.exact_loss is not None:
            return None
        return dataclasses.replace(problem, loss_examples=2 * problem.loss_examples)
    if isinstance(problem, EmpiricalRisk) and problem.loss_draws:
        return dataclasses.replace(problem, loss_draws=2 * problem.loss_draws)
    return None
