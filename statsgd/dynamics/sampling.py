"""Which examples go into a minibatch: index sampling, exact and independent per replica."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int, PRNGKeyArray, UInt32

#: Batches up to this size without repeats are drawn by Floyd's algorithm, whose work is S².
FLOYD_LIMIT = 256


def bounded(words: UInt32[Any, "..."], bound: int | Int[Any, ""]) -> Int[Any, "..."]:
    """Map 32-bit words to integers in [0, bound): the high half of the 64-bit product.

    The probability of any value is off by at most 2⁻³² in absolute terms, relative bias
    bound/2³² (4·10⁻⁷ for N = 1797). Sixteen-bit halves keep the product inside uint32.
    """
    n = jnp.asarray(bound).astype(jnp.uint32)
    low, high = words & 0xFFFF, words >> 16
    n_low, n_high = n & 0xFFFF, n >> 16
    middle = high * n_low + ((low * n_low) >> 16)
    carry = low * n_high + (middle & 0xFFFF)
    return (high * n_high + (middle >> 16) + (carry >> 16)).astype(jnp.int32)


def with_replacement(key: PRNGKeyArray, num_examples: int, batch_size: int) -> Int[Any, " S"]:
    """`batch_size` independent uniform indices."""
    return bounded(jax.random.bits(key, (batch_size,)), num_examples)


def without_replacement(key: PRNGKeyArray, num_examples: int, batch_size: int) -> Int[Any, " S"]:
    """A uniformly random subset of `batch_size` indices, in no particular order.

    Floyd's algorithm for small batches (no memory beyond the batch), a sort of N random words
    for large ones.
    """
    if batch_size > FLOYD_LIMIT:
        words = jax.random.bits(key, (num_examples,))
        return jnp.argsort(words)[:batch_size].astype(jnp.int32)
    last = jnp.arange(num_examples - batch_size, num_examples, dtype=jnp.int32)
    candidates = jax.vmap(bounded)(jax.random.bits(key, (batch_size,)), last + 1)

    def add(chosen, item):
        position, candidate, largest = item
        taken = jnp.any(chosen == candidate)
        chosen = chosen.at[position].set(jnp.where(taken, largest, candidate))
        return chosen, None

    empty = jnp.full(batch_size, -1, dtype=jnp.int32)
    positions = jnp.arange(batch_size, dtype=jnp.int32)
    return jax.lax.scan(add, empty, (positions, candidates, last))[0]
