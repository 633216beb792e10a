"""Arithmetic on position pytrees."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree

from statsgd.running.random_stream import normal


def random_like(key: PRNGKeyArray, tree: PyTree) -> PyTree:
    """Independent standard normal numbers in the shape of `tree`, all from one call."""
    leaves, structure = jax.tree.flatten(tree)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    drawn = normal(key, (int(ends[-1]),), jnp.result_type(*leaves))
    parts = [
        part.reshape(shape).astype(jnp.result_type(leaf))
        for part, shape, leaf in zip(jnp.split(drawn, ends[:-1]), shapes, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


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
