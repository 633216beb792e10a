"""The one place where formulas written in JAX are evaluated in double precision.

A formula is written once, in `jax.numpy`. Where one of its arguments is traced it is run as it is,
in the precision of its caller; else it is compiled under a local 64-bit context, once for each
function, structure and shape of arguments, and gives NumPy arrays. The precision that the user has
set stays as it is.

What is called must be the same object at every call: a function of a module, a method of an
Equinox module, or a module that can be called. A lambda made anew is compiled anew; hand what it
would close over in as an argument.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced

#: Numbers of points that programs are compiled for; more points go through in turns of the last.
BATCHES = (1, 8, 64, 512, 4096)


def in_double_precision(function: Callable[..., Any], *arguments: PyTree, **keywords: Any) -> Any:
    """`function(*arguments, **keywords)` in float64, as NumPy arrays; as it is where traced.

    Floating arrays of either width, and Python floats, become float64 arrays; the arrays of a
    module, such as the data of a problem, too. Formulas that difference nearly equal numbers
    (Hessians at a minimum, Lyapunov equations) lose their digits in float32.
    """
    if is_traced(function, arguments, keywords):
        return function(*arguments, **keywords)
    if isinstance(function, jax.stages.Wrapped) and hasattr(function, "__wrapped__"):
        function = function.__wrapped__  # compiled once is enough
    # At once also where a caller is being traced: concrete arguments have a concrete result.
    with jax.core.eval_context(), jax.enable_x64(True):
        found = _compiled(*widened((function, arguments, keywords)))
        return jax.tree.map(as_numpy, found)


@eqx.filter_jit
def in_own_precision(function: Callable[..., Any], *arguments: PyTree) -> Any:
    """`function(*arguments)` compiled, in the precision of its arguments."""
    return function(*arguments)


def formula[F: Callable[..., Any]](function: F) -> F:
    """Decorate a function written in JAX: every call is one `in_double_precision`."""

    @functools.wraps(function)
    def evaluated(*arguments, **keywords):
        return in_double_precision(function, *arguments, **keywords)

    return evaluated  # type: ignore[return-value]


def over_points(
    function: Callable[..., Any], points: Float[Any, "... d"], *arguments: PyTree
) -> Any:
    """`function(point, *arguments)` at every point, whose leading axes the result has too.

    In float64 and NumPy unless something is traced. Points are filled up to one of `BATCHES`, so
    that any number of them runs one of a few programs.
    """
    if is_traced(function, points, arguments):
        if points.ndim == 1:
            return function(points, *arguments)
        mapped = _at_each(function, points.reshape(-1, points.shape[-1]), arguments)
        lead = points.shape[:-1]
        return jax.tree.map(lambda leaf: leaf.reshape((*lead, *leaf.shape[1:])), mapped)
    array = np.asarray(points, dtype=np.float64)
    flat = array.reshape(-1, array.shape[-1])
    # No point is evaluated as one, for the shape of the result.
    size = next((size for size in BATCHES if len(flat) <= size), BATCHES[-1])
    starts = range(0, max(len(flat), 1), size)
    turns = [_filled(function, flat[i : i + size], size, arguments) for i in starts]
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves), *turns)
    lead = array.shape[:-1]
    return jax.tree.map(lambda leaf: leaf[: len(flat)].reshape((*lead, *leaf.shape[1:]))[()], found)


def _filled(function: Any, points: Float[np.ndarray, "n d"], size: int, arguments: Any) -> Any:
    number = len(points)
    if number == 0:
        points, number = np.zeros((1, points.shape[1])), 1
    padded = np.concatenate([points, np.repeat(points[:1], size - number, axis=0)])
    found = in_double_precision(_at_each, function, padded, arguments)
    return jax.tree.map(lambda leaf: leaf[:number], found)


def _at_each(function: Any, points: Float[Any, "n d"], arguments: Any) -> Any:
    return jax.vmap(lambda point: function(point, *arguments))(points)


@eqx.filter_jit
def _compiled(function: Any, arguments: Any, keywords: Any) -> Any:
    arrays, rest = eqx.partition((function, arguments, keywords), eqx.is_array)

    def call(arrays):
        function, arguments, keywords = eqx.combine(arrays, rest)
        return function(*arguments, **keywords)

    return constants_copied(call)(arrays)


def constants_copied(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function` of pytrees of arrays, to be compiled, with copies of what it closes over.

    JAX remembers a NumPy array that a function closes over by its identity, in one precision, for
    as long as a program holds it: a program in float64 that is kept would hand its form of the
    array to programs in float32.
    """

    def evaluated(*arguments: PyTree) -> PyTree:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        constants = [np.array(c) if isinstance(c, np.ndarray) else c for c in program.consts]
        found = jax.core.eval_jaxpr(program.jaxpr, constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return evaluated


def widened(tree: PyTree) -> PyTree:
    """`tree` with float64 in place of narrower real numbers; those of modules only if arrays."""

    def widen(leaf: Any) -> Any:
        if isinstance(leaf, eqx.Module):
            return jax.tree.map(_wide, leaf)
        return np.asarray(leaf, dtype=np.float64) if isinstance(leaf, float) else _wide(leaf)

    return jax.tree.map(widen, tree, is_leaf=lambda leaf: isinstance(leaf, eqx.Module))


def _wide(leaf: Any) -> Any:
    # A copy, always: JAX remembers by its identity which buffer an array became, in one precision.
    if eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.array(leaf, dtype=np.float64)
    return leaf


def as_numpy(leaf: Any) -> Any:
    """An array as one of NumPy, a single number as a NumPy scalar; anything else as it is."""
    # Keys stay: NumPy has no such type.
    is_key = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(leaf)[()] if eqx.is_array(leaf) and not is_key else leaf
