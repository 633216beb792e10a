"""Losses that take a random key: dropout, augmentation."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_key(loss: Callable[..., Any], said: bool | None) -> bool:
    """Whether a loss takes a key after params and data: as `said`, or by its signature.

    It does if it must be given a third argument, or has one called `key`.
    """
    if said is not None:
        return bool(said)
    wanted = _signature(loss)
    needed = [p for p in wanted.values() if p.kind in _POSITIONAL and p.default is p.empty]
    return "key" in wanted or len(needed) == 3


def in_one_form(loss: Callable[..., Any]) -> Callable[..., Any]:
    """`loss` as a function of params, data and a key, in this order."""
    key = _signature(loss).get("key")
    return _ByName(loss) if key is not None and key.kind == key.KEYWORD_ONLY else loss


def _signature(loss: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return {}


class _ByName(eqx.Module):
    loss: Callable[..., Any]

    def __call__(self, params: PyTree, data: PyTree, key: PRNGKeyArray) -> Any:
        return self.loss(params, data, key=key)


class WithKey(eqx.Module):
    """A drawn example and a key."""

    draw: Callable[[PRNGKeyArray], PyTree]

    def __call__(self, key: PRNGKeyArray) -> tuple[PyTree, PRNGKeyArray]:
        """The pair for `key`."""
        mine, other = jax.random.split(key)
        return self.draw(mine), other


class OfPair(eqx.Module):
    """The loss of an example with a key."""

    loss: Callable[..., Any]

    def __call__(self, params: PyTree, pair: tuple[PyTree, PRNGKeyArray]) -> Any:
        """The loss."""
        return self.loss(params, *pair)


def example_key(example: PyTree) -> PRNGKeyArray:
    """A key that belongs to an example, the same wherever and in whatever precision it is read.

    (What is drawn with it may depend on the precision: JAX draws other numbers in 64 bits.)

    It is folded from a digest of the example's bits: where in the data it stands need not be known.
    """
    key = jax.random.key(0)
    for leaf in jax.tree.leaves(example):
        exact = jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == jnp.bool_
        word = (leaf.astype(jnp.uint32) if exact else _bits(leaf)).reshape(-1)
        # Small integers differ in few bits: these are spread before words are added up.
        word = (word ^ (word >> 16)) * jnp.uint32(0x21F0AAAD)
        place = np.arange(1, 2 * word.size, 2, dtype=np.uint32) * np.uint32(0x9E3779B9)
        key = jax.random.fold_in(key, jnp.sum((word ^ (word >> 15)) * place, dtype=jnp.uint32))
    return key


def _bits(leaf: Any) -> Any:
    return jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
