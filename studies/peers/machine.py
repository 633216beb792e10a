"""What the machine can do at best: words of randomness, and bytes moved, each second."""

import jax
import jax.numpy as jnp
import numpy as np

from statsgd.running import stream_key
from studies.peers.race import seconds

_WORDS = 2**14  # 64 kB: stays in the second-level cache
_BYTES = 2**27


def nanoseconds_per_word() -> float:
    """Cost of 32 random bits of the ensembles' stream, with nothing else to do, on one core."""

    @jax.jit
    def runner(steps):
        def step(i, total):
            return total ^ jax.random.bits(jax.random.fold_in(stream_key(0), i), (_WORDS,))

        return jax.lax.fori_loop(0, steps, step, jnp.zeros(_WORDS, jnp.uint32))

    runner(1)
    costs = [seconds(runner, 2000) - seconds(runner, 1000) for _ in range(5)]
    return float(np.median(costs)) / (1000 * _WORDS) * 1e9


def nanoseconds_per_byte() -> float:
    """Cost of reading a byte of memory that no cache holds, on one core."""
    block = np.ones(_BYTES // 8)
    block.sum()
    return float(np.median([seconds(lambda _: block.sum(), 0) for _ in range(5)])) / _BYTES * 1e9
