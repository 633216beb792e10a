"""Products of a matrix with many vectors, random ones among them, a few at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.running import stream_key

#: Vectors that are multiplied at the same time, which bounds memory: fewer beyond `SHORT` numbers.
#: A trace at d = 10⁵ takes a third of the memory with 2 of them that it takes with 16, and no more
#: time.
PROBES_AT_ONCE, LONG_AT_ONCE, SHORT = 16, 2, 2048


def random_key(seed: Any) -> PRNGKeyArray:
    """The key that `seed`, an integer or a key already, stands for."""
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return stream_key(seed)


def over_probes(
    form: Callable[[Float[Array, " d"]], PyTree],
    like: Float[Array, " d"],
    samples: int,
    key: PRNGKeyArray,
) -> PyTree:
    """`form(v)` for each of `samples` random vectors of signs, shaped as `like`."""

    def one(key: PRNGKeyArray) -> PyTree:
        return form(jax.random.rademacher(key, like.shape, like.dtype))

    return chunked_map(one, jax.random.split(key, samples), at_once(like.shape[0]))


def at_once(dimension: int) -> int:
    """How many vectors of so many numbers are multiplied at the same time."""
    return PROBES_AT_ONCE if dimension <= SHORT else LONG_AT_ONCE


def chunked_map(function: Callable[..., Any], values: PyTree, most: int) -> Any:
    """`function` at every entry of the leading axis of `values`, at most so many together.

    A remainder would be a second program to compile: an even share near `most` is preferred.
    """
    number = jax.tree.leaves(values)[0].shape[0]
    most = min(most, number)
    even = [size for size in range(max(most // 2, 1), most + 1) if number % size == 0]
    return jax.lax.map(function, values, batch_size=max(even, default=most))
