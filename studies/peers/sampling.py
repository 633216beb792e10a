"""The choice of minibatches alone."""

import jax
import jax.numpy as jnp

from statsgd.dynamics import sampling
from statsgd.running import stream_key
from studies.peers.race import Runner


def subsets(*, examples: int, size: int, replicas: int) -> dict[str, Runner]:
    """Batches without repeats, afresh each step."""

    def ours(key, i):
        return sampling.without_replacement(jax.random.fold_in(key, i), examples, size)

    def theirs(key, i):
        return jax.random.choice(_threefry(key, i), examples, (size,), replace=False)

    return {
        "statsgd": _repeated(ours, size, replicas),
        "jax.random.choice": _repeated(theirs, size, replicas),
    }


def epochs(*, examples: int, size: int, replicas: int) -> dict[str, Runner]:
    """Batches of data that are reshuffled every epoch, without keeping a permutation."""
    batches = examples // size

    def ours(key, i):
        return sampling.reshuffle(key, i, examples, size)

    def theirs(key, i):
        order = jax.random.permutation(_threefry(key, i // batches), examples)
        return jax.lax.dynamic_slice(order, (i % batches * size,), (size,))

    return {
        "statsgd": _repeated(ours, size, replicas),
        "jax.random.permutation": _repeated(theirs, size, replicas),
    }


def _threefry(key, i):
    words = jax.random.key_data(key)
    return jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), i)


def _repeated(choose, size: int, replicas: int) -> Runner:
    @jax.jit
    def runner(steps):
        def one(key):
            def step(i, total):
                return total + choose(key, i)

            return jax.lax.fori_loop(0, steps, step, jnp.zeros(size, jnp.int32))

        return jax.vmap(one)(jax.random.split(stream_key(0), replicas))

    return runner
