"""Parameter pytrees: their names and their flat form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PyTree


def leaf_names(tree: PyTree, root: str = "params") -> list[str]:
    """Names of the leaves of `tree`, in flattening order: `layers.0.weight`, or `root` for a leaf.

    These are the variable names under which parameters appear in data trees and reports.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or root for path in paths]
    if len(set(names)) != len(names):
        raise ValueError(f"params must have distinct leaf names, got {names}")
    return names


def as_arrays(tree: PyTree) -> PyTree:
    """`tree` with every leaf a floating JAX array of the current default precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), tree)


def floating(tree: PyTree) -> PyTree:
    """`tree` with integers as float64 NumPy arrays, at which a loss can be differentiated."""

    def real(leaf: Any) -> Any:
        is_real = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return leaf if is_real else np.asarray(leaf, dtype=np.float64)

    return jax.tree.map(real, tree)


def ravel(tree: PyTree) -> Float[Any, " d"]:
    """All leaves of `tree` as one vector, in flattening order."""
    return ravel_pytree(tree)[0]
