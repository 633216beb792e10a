"""What a diagnosis will cost, from a few timed pieces of its work."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from statsgd.diagnosis.gradients import standing
from statsgd.diagnosis.learning import BURN_IN, CHAINS, STEPS, look
from statsgd.diagnosis.modes import PILOTS, TRACE_PRODUCTS
from statsgd.diagnosis.request import Request
from statsgd.diagnosis.stability import SHARPEST, of_batches
from statsgd.diagnosis.ways import WAYS
from statsgd.dynamics.ensemble import simulate
from statsgd.problems import DENSE_LIMIT, EmpiricalRisk
from statsgd.problems.parameters import floating
from statsgd.problems.sums import hessian_product

#: Products with the Hessian that an eigenpair takes, about.
_PRODUCTS_PER_MODE = 6
#: Gradients that a second derivative along two modes takes, of every example, about.
_GRADIENTS_PER_PAIR = 2
_STEPS = 16


class Cost(NamedTuple):
    """Seconds of the pieces, and how many of each there are."""

    product: float
    products: int
    gradient: float
    gradients: int
    step: float
    steps: int

    @property
    def seconds(self) -> float:
        """Of everything, compilation apart."""
        return (
            self.product * self.products + self.gradient * self.gradients + self.step * self.steps
        )

    def __str__(self) -> str:
        return (
            f"about {_told(self.seconds)}: {self.products} products with the Hessian of "
            f"{_told(self.product)}, {self.gradients} gradients of the whole loss of "
            f"{_told(self.gradient)}, {self.steps} steps of {_told(self.step)} "
            "(compilation comes on top)"
        )


def estimated(request: Request, replicas: int) -> Cost:
    """Timed at the checkpoint: a product, a gradient and a few steps of all replicas."""
    problem, params = request.problem, request.params
    product = hessian_product(problem, floating(params), double=True)
    vector = np.ones(problem.dimension) / np.sqrt(problem.dimension)
    step, steps = 0.0, replicas * request.steps
    if replicas:

        def some(number: int) -> Any:
            return simulate(
                problem, request.sgd, steps=number, replicas=replicas, seed=request.seed,
                start=params, progress=False, devices=jax.devices(), allow_unstable=True,
            )  # fmt: skip

        some(1)
        more, one = _seconds(lambda: some(1 + _STEPS)), _seconds(lambda: some(1))
        # Where another process slowed the single step down, all steps bound theirs.
        step = (more - one if more > one else more) / (_STEPS * replicas)
    # In single precision, where two take the time of one in double.
    single = replicas / 2
    if request.learning_coefficient and isinstance(problem, EmpiricalRisk):
        share = look(problem) / problem.num_examples
        single += 3 * CHAINS * (STEPS + BURN_IN) * share / 2
    sharpest = min(request.modes, SHARPEST) if of_batches(request) else 0
    pairs = sharpest * (sharpest + 1) / 2 * (1 if problem.dimension <= DENSE_LIMIT else 0.5)
    # Five products, two gradients and nine losses a way, in double and in single precision.
    along = 14 * WAYS + (1 + 3 * PILOTS) * request.modes / 2
    return Cost(
        _second_call(lambda: product(vector)),
        _PRODUCTS_PER_MODE * request.modes + TRACE_PRODUCTS,
        _second_call(lambda: standing(problem, params)),
        int(single + along + _GRADIENTS_PER_PAIR * pairs + 40),
        step,
        steps,
    )


def _second_call(call: Callable[[], Any]) -> float:
    call()
    return _seconds(call)


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _told(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.2g} min"
