"""What one writes first for a loss and its data: optax, a loop, `vmap`, threefry, `randint`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from studies.peers.race import Runner


def optax_idiom(
    loss: Callable, examples: PyTree, start: PyTree, *, replicas: int, size: int, rate: float
) -> Runner:
    """SGD on `loss(params, example)` with batches of `size` of `examples`, with replacement."""
    optimiser = optax.sgd(rate)
    number = jax.tree.leaves(examples)[0].shape[0]
    examples = jax.tree.map(jnp.asarray, examples)

    def batch_loss(params, batch):
        return jnp.mean(jax.vmap(loss, (None, 0))(params, batch))

    @jax.jit
    def runner(steps):
        def step(_, carry):
            params, state, key = carry
            key, fresh = jax.random.split(key)
            chosen = jax.random.randint(fresh, (size,), 0, number)
            batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
            updates, state = optimiser.update(jax.grad(batch_loss)(params, batch), state, params)
            return optax.apply_updates(params, updates), state, key

        def one(key):
            return jax.lax.fori_loop(0, steps, step, (start, optimiser.init(start), key))[0]

        return jax.vmap(one)(jax.random.split(jax.random.key(0), replicas))

    return runner
