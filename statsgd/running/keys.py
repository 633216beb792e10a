"""Random keys that states hold: each lane's own, and as numbers that blocks and files can hold."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree


def is_key(leaf: Any) -> bool:
    """Whether a leaf of a state is a random key, or an array of them."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key))


def with_own_keys(state: PyTree, key: PRNGKeyArray) -> PyTree:
    """`state` with keys of its own in place of those that it was made with.

    They are folded from `key` and from what was there, so that other keys there give others here.
    """

    def own(i: int, leaf: Any) -> Any:
        if not is_key(leaf):
            return leaf
        there, mine = jax.random.key_data(leaf), jax.random.fold_in(key, i)
        for word in there.reshape(-1):
            mine = jax.random.fold_in(mine, word)
        words = jax.random.bits(mine, there.shape, there.dtype)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))

    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [own(i, leaf) for i, leaf in enumerate(leaves)])


class KeyData(eqx.Module):
    """A random key as plain numbers, which can be reshaped and stored."""

    data: Any
    generator: Any = eqx.field(static=True)


def pack(state: PyTree) -> PyTree:
    """`state` with its keys as numbers."""

    def packed(leaf):
        if not is_key(leaf):
            return leaf
        return KeyData(jax.random.key_data(leaf), jax.random.key_impl(leaf))

    return jax.tree.map(packed, state)


def unpack(state: PyTree) -> Any:
    """The inverse of `pack`."""

    def is_packed(leaf):
        return isinstance(leaf, KeyData)

    def unpacked(leaf):
        if not is_packed(leaf):
            return leaf
        return jax.random.wrap_key_data(leaf.data, impl=leaf.generator)

    return jax.tree.map(unpacked, state, is_leaf=is_packed)
