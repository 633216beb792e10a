"""Parameter pytrees: their names and their flat form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PyTree

#: Dims of every data tree, which are no names of variables.
DIMENSIONS = ("replica", "step", "chain", "draw")


def leaf_names(tree: PyTree, root: str = "params") -> list[str]:
    """Names of the leaves of `tree`, in flattening order: `layers.0.weight`, or `root` for a leaf.

    These are the variable names under which parameters appear in data trees and reports, each as
    `variable_name` says.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    given = [jax.tree_util.keystr(path, simple=True, separator=".") or root for path in paths]
    names = [variable_name(name) for name in given]
    if len(set(names)) != len(names):
        raise ValueError(f"params must have distinct leaf names, got {names}")
    return names


def variable_name(name: str) -> str:
    """The name of a variable under which data trees and stores can hold what is called `name`.

    As in addresses of web pages, "/" is "%2F", a backslash "%5C" and "%" is "%25". So is the first
    letter of what else they do not hold: `DIMENSIONS`, dots alone, names of Zarr's own.
    `urllib.parse.unquote` gives every name back, so that no two share a variable.
    """
    mapped = quoted(name)
    taken = name in (*DIMENSIONS, ".", "..", "zarr.json") or name.startswith("__")
    return f"%{ord(mapped[0]):02X}{mapped[1:]}" if taken else mapped


def quoted(name: str) -> str:
    """`name` without slashes, as `variable_name` writes it."""
    # Zarr takes both kinds of them for the separator of a path.
    return name.replace("%", "%25").replace("/", "%2F").replace("\\", "%5C")


def listed_numbers(tree: PyTree) -> PyTree:
    """A list of plain numbers as the array that NumPy reads in it, one variable, not one each."""
    listed = isinstance(tree, list) and tree
    return np.asarray(tree, float) if listed and all(type(x) is float for x in tree) else tree


def as_arrays(tree: PyTree) -> PyTree:
    """`tree` with every leaf a floating JAX array: of 16 bits where it is, else as by default.

    Raises `ValueError` for complex numbers, whose imaginary part would be lost, and for what is no
    number or larger than any.
    """
    require_real("params", tree)

    def array(leaf: Any) -> Any:
        try:
            half = getattr(leaf, "dtype", None) in (jnp.bfloat16, jnp.float16)
            return jnp.asarray(leaf, dtype=leaf.dtype if half else float)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"params must be arrays of numbers, got {leaf!r}") from None

    return jax.tree.map(array, tree)


def require_real(what: str, tree: PyTree) -> None:
    """Raise `ValueError` for complex leaves."""
    for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True):
        if np.iscomplexobj(leaf):
            raise ValueError(
                f"{what} must be real, got {name!r} of dtype {jnp.result_type(leaf)}; make real "
                "and imaginary parts parameters of their own"
            )


def floating(tree: PyTree) -> PyTree:
    """`tree` as measures take it: a loss can be differentiated there, and sums are exact enough.

    Integers are float64 NumPy arrays, and numbers of 16 bits are in single precision.
    """

    def real(leaf: Any) -> Any:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            return np.asarray(leaf, dtype=np.float64)
        return leaf.astype(np.float32) if dtype.itemsize < 4 else leaf

    return jax.tree.map(real, tree)


def listed_by_name(what: str, listed: Any, names: list[str]) -> list[bool] | None:
    """Which of `names` are among `listed`; None where these are no names.

    Raises `ValueError`, of the argument `what`, for unknown ones.
    """
    if not (
        isinstance(listed, list | tuple | set | frozenset)
        and all(isinstance(name, str) for name in listed)
    ):
        return None
    unknown = sorted(set(listed) - set(names))
    if unknown:
        raise ValueError(f"{what} must be names among {names}, got {unknown}")
    return [name in listed for name in names]


def between(first: PyTree, last: PyTree, share: float) -> PyTree:
    """The place that lies `share` of the way from `first` to `last`, in float64."""

    def place(one: Any, other: Any) -> Any:
        begin, end = (np.asarray(leaf, dtype=np.float64) for leaf in (one, other))
        return begin + share * (end - begin)

    return jax.tree.map(place, first, last)


def ravel(tree: PyTree) -> Float[Any, " d"]:
    """All leaves of `tree` as one vector, in flattening order."""
    return ravel_pytree(tree)[0]
