"""Parameter pytrees: their names, their flat form, and computation in double precision."""

from collections.abc import Callable
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


def ravel(tree: PyTree) -> Float[Any, " d"]:
    """All leaves of `tree` as one vector, in flattening order."""
    return ravel_pytree(tree)[0]


def in_double_precision(function: Callable[..., Any], *arguments: PyTree) -> Any:
    """`function(*arguments)` under a local 64-bit context, as NumPy arrays.

    Formulas that difference nearly equal numbers (Hessians at a minimum, Lyapunov equations) lose
    their digits in float32. The global precision setting stays as the user has it.
    """

    def widen(leaf: Any) -> Any:
        array = np.asarray(leaf)
        return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array

    with jax.enable_x64(True):
        # Under one jit: run eagerly, operations on NumPy constants that the function closes over
        # can meet buffers that an earlier call converted to the other precision.
        # A lambda, because methods of modules that hold arrays cannot be hashed.
        result = jax.jit(lambda *args: function(*args))(*jax.tree.map(widen, arguments))
        return jax.tree.map(np.asarray, result)
