"""Examples as they are given: arrays with one leading axis, in memory, on disk or in batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree

from statsgd.arguments import finite_array
from statsgd.problems.stored import Stored, is_in_batches, is_on_disk, kept_on_disk


def checked_examples(examples: PyTree) -> PyTree:
    """`examples` as arrays with one leading axis; what is on disk, or comes in batches, `Stored`.

    Raises `ValueError` for anything else.
    """
    if is_in_batches(examples):
        return kept_on_disk(examples)
    leaves, structure = jax.tree.flatten(examples, is_leaf=lambda x: isinstance(x, list))
    if not leaves:
        raise ValueError("examples must hold at least one array, got an empty pytree")
    checked = [_data(f"examples[{i}]", leaf) for i, leaf in enumerate(leaves)]
    sizes = {leaf.shape[0] for leaf in checked}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "examples must be arrays with one common, non-empty leading axis, got shapes "
            f"{[leaf.shape for leaf in checked]}"
        )
    return jax.tree.unflatten(structure, checked)


def example_template(examples: PyTree) -> PyTree:
    """Shapes and dtypes of one example, as programs see them."""

    def one(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape[1:], jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree.map(one, examples)


def take(examples: PyTree, indices: Int[Any, " S"]) -> PyTree:
    """The rows at `indices` of every array, in memory or on disk."""

    def rows(leaf: Any) -> Any:
        if isinstance(leaf, Stored):
            return leaf.fetch(indices)
        return jnp.asarray(leaf).at[indices].get(mode="promise_in_bounds")

    return jax.tree.map(rows, examples)


def _data(name: str, leaf: Any) -> Any:
    if is_on_disk(leaf):
        if not leaf.shape:
            raise ValueError(f"{name} must have a leading axis over examples, got a scalar")
        return Stored(name, leaf)
    # Integer leaves (labels, token ids) must stay integers: they index.
    try:
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array, got ragged rows") from None
    if array.ndim == 0:
        raise ValueError(f"{name} must have a leading axis over examples, got a scalar")
    if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
        return array
    return finite_array(name, array)
