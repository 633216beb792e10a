"""Which examples go into a minibatch: index sampling, exact and independent per replica."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int, PRNGKeyArray, UInt32

from statsgd.running.random_stream import finalise

#: Batches up to this size without repeats are drawn by Floyd's algorithm, whose work is S².
FLOYD_LIMIT = 256

#: Permutations of up to this many examples are exactly uniform; larger ones are keyed.
RANK_LIMIT = 64


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
    return bounded(jax.random.bits(key, (batch_size,), jnp.uint32), num_examples)


def without_replacement(key: PRNGKeyArray, num_examples: int, batch_size: int) -> Int[Any, " S"]:
    """A uniformly random subset of `batch_size` indices, in no particular order.

    Floyd's algorithm for small batches (no memory beyond the batch), a sort of N random words
    for large ones.
    """
    if batch_size > FLOYD_LIMIT:
        words = jax.random.bits(key, (num_examples,), jnp.uint32)
        return jnp.argsort(words)[:batch_size].astype(jnp.int32)
    last = jnp.arange(num_examples - batch_size, num_examples, dtype=jnp.int32)
    candidates = jax.vmap(bounded)(jax.random.bits(key, (batch_size,), jnp.uint32), last + 1)

    def add(chosen, item):
        position, candidate, largest = item
        taken = jnp.any(chosen == candidate)
        chosen = chosen.at[position].set(jnp.where(taken, largest, candidate))
        return chosen, None

    empty = jnp.full(batch_size, -1, dtype=jnp.int32)
    positions = jnp.arange(batch_size, dtype=jnp.int32)
    return jax.lax.scan(add, empty, (positions, candidates, last))[0]


def permuted(key: PRNGKeyArray, positions: Int[Any, " S"], num_examples: int) -> Int[Any, " S"]:
    """The images of `positions` under the permutation of 0, …, N−1 that belongs to `key`.

    Nothing of size N is kept from call to call. Up to `RANK_LIMIT` examples the permutation ranks
    N random words and is uniform over all N! orders. Above, it is a keyed Feistel network on an
    a × b rectangle with ab just above N, walked until it lands inside: a bijection for every key,
    whose images of any two positions are uniform to within the bias of 32-bit words and a mixing
    error of about N^(−rounds/4) < 10⁻⁶.

    Source: Black and Rogaway (2002), "Ciphers with arbitrary finite domains", for the walk.
    """
    if num_examples <= RANK_LIMIT:
        words = jax.random.bits(key, (num_examples,), jnp.uint32)
        mine = words[positions][:, None]
        ties = (words == mine) & (jnp.arange(num_examples) < positions[:, None])
        return jnp.sum((words < mine) | ties, axis=1, dtype=jnp.int32)
    rows = math.isqrt(num_examples - 1) + 1
    columns = -(-num_examples // rows)
    rounds = 2 * max(3, math.ceil(12 / math.log10(num_examples)))
    round_keys = jax.random.bits(key, (rounds,), jnp.uint32)

    def network(index: UInt32[Any, " S"]) -> UInt32[Any, " S"]:
        left, right = index // columns, index % columns
        for i in range(0, rounds, 2):
            left = _rotate(left, finalise(right + round_keys[i]), rows)
            right = _rotate(right, finalise(left + round_keys[i + 1]), columns)
        return left * columns + right

    def walk(index: UInt32[Any, " S"]) -> UInt32[Any, " S"]:
        return jnp.where(index < num_examples, index, network(index))

    image = jax.lax.while_loop(
        lambda index: jnp.any(index >= num_examples), walk, network(positions.astype(jnp.uint32))
    )
    return image.astype(jnp.int32)


def _rotate(place: UInt32[Any, "..."], word: UInt32[Any, "..."], bound: int) -> UInt32[Any, "..."]:
    """`place` moved round a circle of `bound` < 2¹⁶ + 1 places by a distance taken from `word`."""
    n = jnp.uint32(bound)
    moved = place + (((word >> 16) * n + (((word & 0xFFFF) * n) >> 16)) >> 16)
    return jnp.where(moved >= n, moved - n, moved)


def reshuffle(
    key: PRNGKeyArray,
    step: Int[Any, ""],
    num_examples: int,
    batch_size: int,
    batches: int | None = None,
) -> Int[Any, " S"]:
    """Indices of step `step` when every epoch of N/S batches, or of so many, is a new permutation.

    Its key is of the number of batches too: epochs of runs that change their batch size would else
    meet earlier orders again. Past the last example of an epoch the last one is repeated.
    """
    batches = batches or num_examples // batch_size
    epoch, batch = jnp.divmod(step, batches)
    return _batch_of(_order_key(key, batches, epoch), batch, num_examples, batch_size)


def single_shuffle(
    key: PRNGKeyArray,
    step: Int[Any, ""],
    num_examples: int,
    batch_size: int,
    batches: int | None = None,
) -> Int[Any, " S"]:
    """Indices of step `step` when all epochs, as in `reshuffle`, are of the same permutation."""
    batch = step % (batches or num_examples // batch_size)
    return _batch_of(_order_key(key, 0, 0), batch, num_examples, batch_size)


def _order_key(key: PRNGKeyArray, batches: int, epoch: int | Int[Any, ""]) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(key, batches), epoch)


def _batch_of(
    key: PRNGKeyArray, batch: Int[Any, ""], num_examples: int, batch_size: int
) -> Int[Any, " S"]:
    positions = batch * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    if num_examples % batch_size:
        positions = jnp.minimum(positions, num_examples - 1)
    return permuted(key, positions, num_examples)
