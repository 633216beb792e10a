"""What is asked of a diagnosis, and what can be seen to be wrong with it before it begins."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import count, instance, random_seed, step_count
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.networks.checkpoint import checked as chain_of
from statsgd.problems import BatchRisk, EmpiricalRisk, Problem

#: Replicas below which no error of a variance, and no test of stationarity, means anything.
LEAST_REPLICAS = 8


class CheckpointWarning(UserWarning):
    """A diagnosis was asked for at a checkpoint where its laws say little."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One diagnosis."""

    problem: Problem
    params: PyTree
    sgd: SGD
    modes: int
    replicas: int
    steps: int
    seed: int
    learning_coefficient: bool
    progress: bool

    @property
    def decay(self) -> float:
        """λ."""
        return float(self.sgd.weight_decay)

    @property
    def flat(self) -> Float[Any, " d"]:
        """The checkpoint θ₀, flat, in double precision."""
        return np.asarray(self.problem.flatten(self.params), dtype=np.float64)

    @property
    def time(self) -> float:
        """Kη/(1−β), the time that the replicas have."""
        return self.steps * float(self.sgd.learning_rate) / (1 - float(self.sgd.momentum))


def checked(
    problem: Problem,
    params: PyTree,
    sgd: Any,
    *,
    modes: int,
    replicas: int,
    steps: int,
    seed: int,
    learning_coefficient: bool,
    progress: bool,
) -> Request:
    """The request, or one `ValueError` that names the argument which is wrong."""
    call = "diagnose(problem, params, sgd, …)"
    instance("problem", problem, Problem, "a Problem, as statsgd.problems makes", call=call)
    if not isinstance(sgd, SGD):
        raise ValueError(
            f"sgd must be statsgd.SGD, whose law in modes is known, got {type(sgd).__name__}"
        )
    noise = sgd.noise
    if isinstance(noise, Minibatch) and isinstance(problem, EmpiricalRisk | BatchRisk):
        count("the batch size of sgd", noise.batch_size, at_most=problem.num_examples)
    chain_of(problem, sgd)
    params = problem.parameters(params)
    if count("modes", modes) >= problem.dimension:
        raise ValueError(
            f"modes must be fewer than the {problem.dimension} parameters, got {modes}"
        )
    count("replicas", replicas, at_least=LEAST_REPLICAS)
    step_count("steps", steps)
    return Request(
        problem,
        params,
        sgd,
        modes,
        replicas,
        steps,
        random_seed(seed),
        learning_coefficient,
        progress,
    )


def warn_if_far(gradient_norm: float, noise_norm: float) -> None:
    """A warning where one batch cannot hide the full gradient: the checkpoint is still on its way.

    Where SGD has settled |∇L + λθ|² is about η Tr(HC)/(2(1−β)), a small part of Tr C unless ηh is
    near 2.
    """
    if gradient_norm > noise_norm:
        warnings.warn(
            f"params are far from any minimum: the gradient of the whole loss there, of norm "
            f"{gradient_norm:.3g}, is {gradient_norm / noise_norm:.2g} times the noise of one "
            "batch: training has not settled, or its steps are near the edge of stability, and "
            "stationary statements do not apply",
            CheckpointWarning,
            stacklevel=3,
        )
