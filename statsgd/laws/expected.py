"""What an expectation is off by: the one form in which laws give expectations of functions."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from statsgd.precision import over_points


class Expected(NamedTuple):
    """E f of k functions f, what they are off by at most, and E|f|, which is their scale."""

    value: Float[Any, "..."]
    error: Float[Any, "..."]
    size: Float[Any, "..."]

    def shaped(self, shape: tuple[int, ...]) -> Self:
        """Every field in the shape of one function's value."""
        return type(self)(*(np.reshape(part, shape)[()] for part in self))


class Columns:
    """A JAX function of one point as k numbers a point, whose `shape` is known once it is called.

    **Arguments:** `function`, from `(d,)` to an array.
    """

    def __init__(self, function: Callable[[Float[Any, " d"]], Any]):
        self.function = function
        self.shape: tuple[int, ...] = ()

    def __call__(self, points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Its values in float64, indicators as zero and one."""
        found = np.asarray(over_points(self.function, points), dtype=np.float64)
        self.shape = found.shape[1:]
        return found.reshape(len(points), -1)


def by_weights(
    values: Columns,
    points: Float[np.ndarray, "n d"],
    weights: Float[np.ndarray, " n"],
    error: float,
) -> Expected:
    """The sum over `points` by `weights` that sum to one, off by a share `error` of E|f|."""
    found = values(points)
    size = weights @ np.abs(found)
    return Expected(weights @ found, error * size, size)


def of_sums(total: Float[np.ndarray, " m"], error: Float[np.ndarray, " m"]) -> Expected:
    """From integrals of f·p, |f|·p and p, in this order, and their errors; p is not normalised."""
    k = len(total) // 2
    value, size = total[:k] / total[-1], total[k:-1] / total[-1]
    return Expected(value, (error[:k] + np.abs(value) * error[-1]) / total[-1], size)
