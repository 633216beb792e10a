"""How measures are evaluated: at one point in double precision, or traced, at many at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.arguments import is_traced
from statsgd.precision import in_double_precision
from statsgd.problems import Problem
from statsgd.running import stream_key

#: Random vectors that are multiplied at the same time, which bounds memory.
PROBES_AT_ONCE = 16


class Estimate(NamedTuple):
    """A number, or an array of them, with its standard error: zero where it is exact."""

    value: Any
    standard_error: Any


def evaluate(function: Callable[..., Any], *arguments: PyTree) -> Any:
    """`function(*arguments)`: as it is where an argument is traced, else in double precision.

    Concrete results are NumPy arrays and, for single numbers, Python numbers.
    """
    if is_traced(arguments):
        return function(*arguments)
    result = in_double_precision(function, *arguments)
    return jax.tree.map(lambda array: array.item() if array.ndim == 0 else array, result)


def flat_point(problem: Problem, params: PyTree) -> Float[Any, " d"]:
    """`params` as a vector, in double precision unless traced."""
    if is_traced(params):
        return problem.flatten(params)
    return np.concatenate(
        [np.asarray(leaf, dtype=np.float64).reshape(-1) for leaf in jax.tree.leaves(params)]
    )


def random_key(seed: Any) -> PRNGKeyArray:
    """The key that `seed`, an integer or a key already, stands for."""
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return stream_key(seed)


def sample_mean(values: Float[Array, "n ..."]) -> Estimate:
    """Mean over the leading axis of independent values, with its standard error."""
    number = values.shape[0]
    return Estimate(jnp.mean(values, axis=0), jnp.std(values, axis=0, ddof=1) / np.sqrt(number))


def chunked_map(function: Callable[..., Any], values: PyTree, at_once: int) -> Any:
    """`function` at every entry of the leading axis of `values`, at most `at_once` together.

    A remainder would be a second program to compile: an even share near `at_once` is preferred.
    """
    number = jax.tree.leaves(values)[0].shape[0]
    most = min(at_once, number)
    even = [size for size in range(max(most // 2, 1), most + 1) if number % size == 0]
    return jax.lax.map(function, values, batch_size=max(even, default=most))
