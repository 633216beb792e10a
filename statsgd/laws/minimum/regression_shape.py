"""Third and fourth moments of minibatch SGD on linear regression, which close."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, kinds_checked, positive
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError
from statsgd.problems import LinearRegression, Problem

_LARGEST = 2500  # fourth moments of (θ, m, 1) that are solved for together
_ORDER = 4
_STILL = 1e-26  # of the squared parameters: a variance that is rounding

type Partition = tuple[tuple[int, ...], ...]


class StationaryShape(NamedTuple):
    """Standardised third and fourth moments of every parameter; NaN where it does not move."""

    skewness: Float[Any, " d"]
    excess_kurtosis: Float[Any, " d"]


@kinds_checked
def regression_shape(problem: Problem, sgd: SGD) -> StationaryShape:
    """Exact skewness and excess kurtosis of i.i.d. minibatch `sgd` on a `linear_regression`.

    With z = (θ, m, 1) a step is z ← Mz, M the mean over the batch of matrices M_i of one example,
    so that E z⊗z⊗z⊗z is the fixed vector of E M⊗M⊗M⊗M. That is a sum over set partitions of the
    four factors: those in one block belong to the same example. The gap between
    `LinearRegressionGaussian`, which has the first two moments, and the law is of this size.

    Raises `ValueError` for other problems and noise, and above d = 6, or 3 with momentum;
    `ImproperLawError` where the fourth moments are infinite.

    Source: derived.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> shape = regression_shape(problem, SGD(0.1, noise.Minibatch(1)))
    >>> shape.excess_kurtosis.round(4)
    array([-0.2099])
    """
    if not isinstance(problem, LinearRegression):
        raise ValueError(
            f"moments close for linear_regression problems, got {type(problem).__name__}"
        )
    sgd.require_heavy_ball()
    noise = sgd.noise
    if not (isinstance(noise, Minibatch) and noise.white):
        raise ValueError(f"moments close for i.i.d. Minibatch noise, got {noise!r}")
    noise.check(problem)
    d = problem.dimension
    steps = _example_steps(problem, sgd)
    size = steps.shape[-1]
    if size**_ORDER > _LARGEST:
        raise ValueError(
            f"{size}⁴ fourth moments are more than the {_LARGEST} that are solved for together"
        )
    whole = _mean_power(steps, noise.batch_size, noise.sampling == "with_replacement")
    matrix = whole.reshape(size**_ORDER, size**_ORDER)
    # The last moment is E 1 = 1, which drives the others.
    among, driving = matrix[:-1, :-1], matrix[:-1, -1]
    growth = float(np.abs(np.linalg.eigvals(among)).max())
    if not growth < 1:
        raise ImproperLawError(
            f"the fourth moments of SGD are infinite: they grow by {growth:.6g} ≥ 1 a step"
        )
    moments = np.append(np.linalg.solve(np.eye(len(among)) - among, driving), 1.0)
    moments = moments.reshape((size,) * _ORDER)
    # θ is counted from the stationary mean, so these are central.
    second, third, fourth = (
        np.array([moments[(i,) * power + (-1,) * (_ORDER - power)] for i in range(d)])
        for power in (2, 3, 4)
    )
    still = second <= _STILL * max(float(np.max(problem.minimiser(0.0) ** 2)), np.max(second))
    second = np.where(still, np.nan, second)
    return StationaryShape(third / second**1.5, fourth / second**2 - 3)


def gaussian_regression_kurtosis(learning_rate: Any, batch_size: int = 1) -> float:
    """Excess kurtosis of SGD on ½(aθ − y)² with fresh normal a, y, from its closed recursion.

    θ ← fθ + g with f = 1 − ηu/S, u ~ χ²_S, and g | u ~ N(0, η²s²u/S²), so that

        E θ⁴ = (6 E[f²g²] E θ² + E g⁴)/(1 − E f⁴),     E θ² = E g²/(1 − E f²)

    and s, the deviation of the labels, drops out. **Arguments:** `learning_rate` η, times the
    variance of a; `batch_size` S.

    Raises `ImproperLawError` where E f⁴ ≥ 1. Source: derived.

    >>> round(gaussian_regression_kurtosis(0.1), 4)
    0.0468
    """
    eta, s = float(positive("learning_rate", learning_rate)), count("batch_size", batch_size)
    reach = eta / s
    u = [math.prod(s + 2 * i for i in range(power)) for power in range(5)]  # E u^power

    def factor(power: int, times: int) -> float:
        """E f^power u^times."""
        return sum(math.comb(power, k) * (-reach) ** k * u[k + times] for k in range(power + 1))

    growth = factor(4, 0)
    if not growth < 1:
        raise ImproperLawError(f"the fourth moment of SGD is infinite: it grows by {growth:.6g}")
    square = reach**2 * u[1] / (1 - factor(2, 0))
    fourth = (6 * reach**2 * factor(2, 1) * square + 3 * reach**4 * u[2]) / (1 - growth)
    return fourth / square**2 - 3


def _example_steps(problem: LinearRegression, sgd: SGD) -> Float[Any, "N n n"]:
    """M_i of every example, for θ counted from the stationary mean."""
    eta, beta, decay = (float(x) for x in (sgd.learning_rate, sgd.momentum, sgd.weight_decay))
    inputs = np.asarray(problem.inputs, dtype=np.float64)
    location = problem.minimiser(decay)
    residuals = inputs @ location - np.asarray(problem.targets, dtype=np.float64)
    number, d = inputs.shape
    gradient = np.zeros((number, d, d + 1))  # of θ and 1
    gradient[:, :, :d] = inputs[:, :, None] * inputs[:, None, :] + decay * np.eye(d)
    gradient[:, :, d] = residuals[:, None] * inputs + decay * location
    gradient[:, :, d] -= gradient[:, :, d].mean(0)  # zero but for rounding
    width = d if beta == 0 else 2 * d
    steps = np.zeros((number, width + 1, width + 1))
    steps[:, range(width + 1), range(width + 1)] = 1.0
    columns = [*range(d), width]
    steps[:, :d, columns] -= eta * gradient
    if beta:
        steps[:, :d, d:width] = -eta * beta * np.eye(d)
        steps[:, d:width, d:width] = beta * np.eye(d)
        steps[:, d:width, columns] = gradient
    return steps


def _mean_power(
    steps: Float[Any, "N n n"], batch_size: int, replacement: bool
) -> Float[Any, "n n n n n n n n"]:
    """E M⊗M⊗M⊗M for M the mean of `batch_size` of the matrices; four rows, then four columns."""
    number, size = len(steps), steps.shape[-1]
    single = steps.reshape(number, -1)
    pair = np.einsum("na,nb->nab", single, single).reshape(number, -1)
    # Means over examples of the product of one to four copies, row and column of each in turn.
    means = [steps.mean(0), pair.mean(0), pair.T @ single / number, pair.T @ pair / number]
    means = [mean.reshape((size,) * (2 * copies)) for copies, mean in enumerate(means, start=1)]
    total: Any = 0.0
    for partition in _partitions(tuple(range(_ORDER))):
        operands: list[Any] = []
        for block in partition:
            operands += [means[len(block) - 1], [axis for i in block for axis in (i, _ORDER + i)]]
        weight = _weight(partition, number, batch_size, replacement)
        total = total + weight * np.einsum(*operands, list(range(2 * _ORDER)))
    return total


def _weight(partition: Partition, number: int, batch_size: int, replacement: bool) -> float:
    """How much the product of the blocks' means over all examples counts in E M⊗M⊗M⊗M."""
    among = len(partition)
    if replacement:
        return math.perm(batch_size, among) / batch_size**_ORDER
    # Blocks of different examples, as sums over all by Möbius inversion over finer partitions.
    total = 0.0
    for finer in itertools.product(*(_partitions(block) for block in partition)):
        counts = [len(blocks) for blocks in finer]
        different = sum(counts)
        if different <= batch_size:
            sign = math.prod((-1) ** (n - 1) * math.factorial(n - 1) for n in counts)
            total += sign * math.perm(batch_size, different) / math.perm(number, different)
    return total * number**among / batch_size**_ORDER


def _partitions(items: tuple[int, ...]) -> Iterator[Partition]:
    """All partitions of `items` into blocks."""
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for together in range(len(rest) + 1):
        for others in itertools.combinations(rest, together):
            left = tuple(item for item in rest if item not in others)
            for blocks in _partitions(left):
                yield ((first, *others), *blocks)
