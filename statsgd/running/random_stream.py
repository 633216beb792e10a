"""A counter-based random stream for replicas and chains, as a JAX PRNG implementation.

Every word is a function of (seed, lane, step, position): results do not depend on how lanes
are blocked, chunked or sharded, and nothing is carried from step to step. `jax.random` works with
these keys as with any others; `normal` is a faster Gaussian than `jax.random.normal`.

A word is two rounds of a 32-bit finaliser (xor-shift, multiply, xor-shift, multiply, xor-shift; the
constants are those of the published low-bias search of C. Wellons, `hash-prospector`) over the
position, keyed between and before the rounds. Folding in a number passes both key words through
the finaliser. This costs about a fifth of JAX's threefry. It is a generator for simulation, not for
cryptography; its uniformity, its independence between positions, steps and replicas and its
Gaussian tails are tested in `tests/running/test_random_stream.py`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from statsgd.arguments import is_traced, random_seed

_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: spreads consecutive counters


def finalise(word: UInt32[Any, "..."]) -> UInt32[Any, "..."]:
    """A bijection of 32-bit words in which every output bit depends on every input bit."""
    word = word ^ (word >> 16)
    word = word * jnp.uint32(0x21F0AAAD)
    word = word ^ (word >> 15)
    word = word * jnp.uint32(0x735A2D97)
    return word ^ (word >> 15)


def _seed(seed: Any) -> UInt32[Any, "2"]:
    word = jnp.asarray(seed).astype(jnp.uint32)
    return jnp.stack(
        [finalise(word ^ jnp.uint32(0x243F6A88)), finalise(word + jnp.uint32(_GOLDEN))]
    )


def _fold_in(key: UInt32[Any, "2"], data: Any) -> UInt32[Any, "2"]:
    word = jnp.asarray(data).astype(jnp.uint32)
    first = finalise(key[0] + finalise(word ^ key[1]))
    second = finalise(key[1] ^ finalise(word + jnp.uint32(_GOLDEN) + first))
    return jnp.stack([first, second])


def _split(key: UInt32[Any, "2"], shape: tuple[int, ...]) -> UInt32[Any, "... 2"]:
    # Complementing one key word keeps children of `split` apart from those of `fold_in`.
    parent = jnp.stack([key[0], ~key[1]])
    children = jax.vmap(lambda i: _fold_in(parent, i))(
        jnp.arange(math.prod(shape), dtype=jnp.uint32)
    )
    return children.reshape(*shape, 2)


def _words(key: UInt32[Any, "2"], number: int, offset: int = 0) -> UInt32[Any, " n"]:
    position = jnp.arange(offset, offset + number, dtype=jnp.uint32) * jnp.uint32(_GOLDEN)
    return finalise(finalise(position ^ key[0]) + key[1])


def _random_bits(key: UInt32[Any, "2"], bit_width: int, shape: tuple[int, ...]) -> Array:
    number = math.prod(shape)
    if bit_width == 64:
        words = _words(key, 2 * number).astype(jnp.uint64)
        return ((words[0::2] << 32) | words[1::2]).reshape(shape)
    # The high bits of a word are as good as the low ones; narrower types take the high ones.
    words = _words(key, number) >> (32 - bit_width)
    return words.astype(jnp.dtype(f"uint{bit_width}")).reshape(shape)


STREAM = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="statsgd_stream",
    tag="sgd",
)


def stream_key(seed: Any) -> PRNGKeyArray:
    """The root key of the stream for `seed`, to be used with `jax.random`.

    Raises `ValueError` for what is no seed.

    >>> import jax
    >>> jax.random.normal(stream_key(7), (3,)).shape
    (3,)
    """
    if not is_traced(seed):
        random_seed(int(seed) if isinstance(seed, np.ndarray | jax.Array) else seed)
    return jax.random.key(seed, impl=STREAM)


def normal(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Any, "..."]:
    """Standard normal numbers, by the method of Box and Muller in single precision.

    A pair costs one logarithm, one root and two short polynomials, about half of two inverse error
    functions, and its tails reach to 6.6 standard deviations. Double precision is left to
    `jax.random.normal`.
    """
    if jnp.dtype(dtype) != jnp.float32:
        return jax.random.normal(key, shape, dtype)
    number = math.prod(shape)
    pairs = (number + 1) // 2
    words = jax.random.bits(key, (2 * pairs,), jnp.uint32)
    uniform = (words[:pairs].astype(jnp.float32) + 0.5) * np.float32(2**-32)
    radius = jnp.sqrt(-2 * jnp.log(uniform))
    cosine, sine = _circle(words[pairs:])
    return jnp.concatenate([radius * cosine, radius * sine])[:number].reshape(shape)


def _circle(word: UInt32[Any, "..."]) -> tuple[Array, Array]:
    """A uniform point on the unit circle from the bits of a word.

    Thirty bits choose an angle in [−π/4, π/4), where the minimax polynomials of Cephes give sine
    and cosine to the last digit; the other two choose the quarter of the circle, as a sign of both
    coordinates and an exchange of them.
    """
    angle = jax.lax.bitcast_convert_type(word << 2, jnp.int32).astype(jnp.float32)
    angle = angle * np.float32(np.pi / 2**33)
    z = angle * angle
    sine = angle + angle * z * ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1)
    tail = (2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2
    cosine = 1 - 0.5 * z + z * z * tail
    exchange = (word >> 31) == 1
    sign = (word << 1) & jnp.uint32(0x80000000)

    def signed(value: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(value, jnp.uint32) ^ sign
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    return signed(jnp.where(exchange, sine, cosine)), signed(jnp.where(exchange, cosine, sine))
