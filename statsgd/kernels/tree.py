"""Arithmetic on position pytrees."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree


def random_like(key: PRNGKeyArray, tree: PyTree) -> PyTree:
    """Independent standard normal numbers in the shape of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    normal = [
        jax.random.normal(k, jnp.shape(leaf), jnp.result_type(leaf))
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, normal)


def squared_norm(tree: PyTree) -> Float[Any, ""]:
    """Sum of the squares of all entries."""
    return functools.reduce(jnp.add, [jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)])


def all_finite(tree: PyTree) -> Bool[Any, ""]:
    """Whether every entry is finite."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, finite)


def choose(condition: Bool[Any, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new` where `condition`, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
