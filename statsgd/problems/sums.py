"""Means over all examples of a problem, taken a few examples at a time.

One example at a time wastes a processor and all at once fill its memory. A chunk is so many
examples that what is computed on the way to their losses fits a memory budget; chunks are added up
in single precision or better, by one program whatever their number. Where nothing is traced they
are handed to it one after the other, one for each local device at a time, and a progress bar shows
when that takes long: memory does not grow with the number of examples then, beyond what the data
themselves take. Within a program that is being traced chunks follow one another on its device.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PyTree
from tqdm.auto import tqdm

from statsgd.arguments import is_traced, kinds_checked
from statsgd.precision import (
    as_numpy,
    constants_copied,
    in_double_precision,
    in_own_precision,
    widened,
)
from statsgd.problems.chunk_sizes import chunk_size
from statsgd.problems.stored import Stored
from statsgd.progress import silent

_READ = 2**24  # bytes of examples that are read at once
_AHEAD = 8  # chunks that may wait for a device
_PATIENCE = 5.0  # seconds after which a progress bar appears

#: `(problem, params, chunk, weights, *arguments) -> sums`, the sums over the examples of a chunk of
#: something times their weights.
type OfChunk = Callable[..., PyTree]


@kinds_checked
def mean_over_examples(
    problem: Any,
    function: Callable[..., PyTree],
    params: PyTree,
    *arguments: PyTree,
    progress: bool = True,
    double: bool = False,
    width: int = 0,
    copies: int = 1,
) -> PyTree:
    """(1/N) Σ `function(problem, params, example, *arguments)` over the examples, chunk by chunk.

    A pytree of means, in single precision or better. `function` returns a pytree of arrays; it is
    compiled once if it is the same object at every call, and is handed `problem` without its
    examples. `double` computes in float64 and gives NumPy arrays; `width` is the memory of an
    example, in bytes, besides what its loss computes, and `copies` how often it holds the latter,
    as for derivatives along many directions. May be traced, in `params`, `arguments` and `problem`.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> def residual(problem, params, example):
    ...     return params @ example[0] - example[1]
    >>> float(mean_over_examples(problem, residual, np.zeros(2), progress=False))
    -2.0
    """
    return mean_over_chunks(
        problem, _OfExamples(function), params, *arguments,
        progress=progress, double=double, width=width, copies=copies,
    )  # fmt: skip


class _OfExamples(eqx.Module):
    function: Callable[..., PyTree]

    def __call__(
        self, problem: Any, params: PyTree, chunk: PyTree, weights: Any, *arguments: PyTree
    ) -> PyTree:
        each = jax.vmap(lambda example: self.function(problem, params, example, *arguments))(chunk)
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, axes=1), each)


@kinds_checked
def mean_over_chunks(
    problem: Any,
    of_chunk: OfChunk,
    params: PyTree,
    *arguments: PyTree,
    progress: bool = True,
    double: bool = False,
    width: int = 0,
    copies: int = 1,
) -> PyTree:
    """As `mean_over_examples`, of sums over whole chunks: one differentiation for all examples.

    `of_chunk(problem, params, examples, weights, *arguments)` gives the sum over the examples of a
    chunk, each times its weight `(n,)`, which is 0 for one that another chunk has counted.
    `width` is the memory, in bytes, of an example besides what its loss computes: of its gradient,
    if every example has one. `copies` is as there.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> def residuals(problem, params, examples, weights):
    ...     return jnp.sum(weights * (examples[0] @ params - examples[1]))
    >>> float(mean_over_chunks(problem, residuals, np.zeros(2), progress=False))
    -2.0
    """
    number, params = problem.num_examples, problem.parameters(params)
    if of_chunk is gradient_sum and not double and in_halves(params):
        width += sum(4 * jnp.size(leaf) for leaf in jax.tree.leaves(params))
    if is_traced(problem, params, arguments, of_chunk):
        size = chunk_size(problem, params, width, copies)
        weights = jnp.ones(number, jnp.result_type(float))
        sums = _chunk_by_chunk(
            problem.without_examples, of_chunk, params, problem.examples, weights, arguments, size
        )
    else:
        said = {"desc": "examples", "disable": silent(progress), "delay": _PATIENCE, "leave": False}
        with jax.core.eval_context(), _precision(double):
            size = chunk_size(problem, params, width, copies)
            sums = _added_up(problem, of_chunk, params, arguments, size, double, said)
    return jax.tree.map(lambda leaf: leaf / number, sums)


def _precision(double: bool) -> Any:
    return jax.enable_x64(True) if double else contextlib.nullcontext()


def _added_up(
    problem: Any,
    of_chunk: OfChunk,
    params: PyTree,
    arguments: tuple[PyTree, ...],
    size: int,
    double: bool,
    said: dict[str, Any],
) -> PyTree:
    """The sums over all examples, chunk by chunk from the host."""
    number = problem.num_examples
    devices = jax.local_device_count() if number >= jax.local_device_count() * size else 1
    given = (problem.without_examples, of_chunk, params, arguments)
    arrays, rest = eqx.partition(widened(given) if double else given, eqx.is_array)
    leaves, structure = jax.tree.flatten(rest)
    fixed = (tuple(leaves), structure, size, devices)
    total = None
    chunks = _chunks(problem.examples, number, size * devices)
    rounds = tqdm(chunks, total=-(-number // (size * devices)), **said)
    for i, (examples, weights) in enumerate(rounds):
        total = _add_chunk(fixed, arrays, widened(examples) if double else examples, weights, total)
        if i % _AHEAD == 0:
            jax.block_until_ready(total)
    return jax.tree.map(as_numpy, total) if double else total


@functools.partial(jax.jit, static_argnums=0)
def _add_chunk(fixed: Any, arrays: PyTree, examples: PyTree, weights: Any, total: PyTree) -> PyTree:
    leaves, structure, size, devices = fixed
    rest = jax.tree.unflatten(structure, leaves)

    def sums(arrays: PyTree, examples: PyTree, weights: Any) -> PyTree:
        problem, of_chunk, params, arguments = eqx.combine(arrays, rest)
        given = (problem, of_chunk, params, examples, weights, arguments, size)
        return _over_devices(*given, devices)

    found = constants_copied(sums)(arrays, examples, weights)
    return found if total is None else jax.tree.map(jnp.add, total, found)


def _chunks(examples: PyTree, number: int, rows: int) -> Iterator[tuple[PyTree, Any]]:
    """So many `rows` at a time, read in larger parts, with weights zero for copies that fill up."""
    at_once = max(_READ // max(_bytes_of_one(examples) * rows, 1), 1) * rows
    for start in range(0, number, at_once):
        part = jax.tree.map(_reader(start, min(start + at_once, number)), examples)
        for first in range(0, min(at_once, number - start), rows):
            kept = min(rows, number - start - first)
            chunk = jax.tree.map(_filler(first, kept, rows), part)
            yield chunk, (np.arange(rows) < kept).astype(np.float32)


def _reader(first: int, last: int) -> Callable[[Any], Any]:
    # What lies on one device cannot be handed to a program on all.
    alone = jax.local_device_count() == 1
    return lambda leaf: leaf[first:last] if alone else np.asarray(leaf[first:last])


def _filler(first: int, kept: int, rows: int) -> Callable[[Any], Any]:
    def filled(leaf: Any) -> Any:
        part = leaf[first : first + kept]
        if kept == rows:
            return part
        part = np.asarray(part)
        return np.concatenate([part, np.repeat(part[-1:], rows - kept, axis=0)])

    return filled


@kinds_checked
def hessian_product(
    problem: Any, params: PyTree, *, progress: bool = False, double: bool = False
) -> Callable[[Float[Any, " d"]], Float[Any, " d"]]:
    """The function v ↦ ∇²L v at `params`, of flat vectors `(d,)`; a product costs two gradients.

    Chunk by chunk and compiled once for losses of the examples of a data set, in the precision of
    `params` but single precision at least, or in float64 where `double`. May be traced.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> product = hessian_product(quadratic(np.diag([2.0, 1.0])), np.zeros(2), double=True)
    >>> np.asarray(product(np.ones(2))).tolist()
    [2.0, 1.0]
    """

    params = in_single(problem.parameters(params))

    def product(vector: Float[Any, " d"]) -> Float[Any, " d"]:
        if not hasattr(problem, "without_examples"):
            within = in_double_precision if double else in_own_precision
            return within(_curved, problem, params, vector)
        ask = {"progress": progress, "double": double}
        return mean_over_chunks(problem, _curved_chunk, params, vector, **ask)

    return product


def _curved(problem: Any, params: PyTree, vector: Float[Any, " d"]) -> Float[Any, " d"]:
    return _along(problem.gradient, problem, params, vector)


def _curved_chunk(
    problem: Any, params: PyTree, chunk: PyTree, weights: Any, vector: Float[Any, " d"]
) -> Float[Any, " d"]:
    return _along(lambda at: gradient_sum(problem, at, chunk, weights), problem, params, vector)


def _along(
    gradient: Callable[[PyTree], PyTree], problem: Any, params: PyTree, vector: Float[Any, " d"]
) -> Float[Any, " d"]:
    """The derivative of a gradient along a flat vector."""
    parts = problem.unflatten(jnp.asarray(vector))
    at = jax.tree.map(jnp.asarray, params)
    tangent = jax.tree.map(lambda part, like: part.astype(like.dtype), parts, at)
    return problem.flatten(jax.jvp(gradient, (at,), (tangent,))[1])


def loss_sum(problem: Any, params: PyTree, chunk: PyTree, weights: Any) -> Float[Any, ""]:
    """Σ w ℓ over a chunk; the weights are in single precision or better, and so is the sum."""
    losses = jax.vmap(problem.example_loss, in_axes=(None, 0))(params, chunk)
    return jnp.sum(weights * losses)


def gradient_sum(problem: Any, params: PyTree, chunk: PyTree, weights: Any) -> PyTree:
    """Σ w ∇ℓ over a chunk in single precision or better, by one differentiation.

    Of parameters of 16 bits every example has its own, since one would add up in theirs.
    """
    if not in_halves(params):
        return jax.grad(loss_sum, argnums=1)(problem, params, chunk, weights)
    each = jax.vmap(jax.grad(problem.example_loss), in_axes=(None, 0))(params, chunk)
    return jax.tree.map(
        lambda leaf: jnp.tensordot(weights, leaf.astype(weights.dtype), 1, precision="highest"),
        each,
    )


def mean_one_by_one(
    gradient: Callable[[PyTree, PyTree], PyTree], params: PyTree, given: PyTree
) -> PyTree:
    """The mean of `gradient(params, each)` over the leading axis of `given`; memory of one.

    Added up in single precision or better, whatever precision the gradients have.
    """

    def add(total: PyTree, each: PyTree) -> tuple[PyTree, None]:
        found = gradient(params, each)
        return jax.tree.map(lambda sum, leaf: sum + leaf.astype(sum.dtype), total, found), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, accumulated(leaf.dtype)), params)
    total, _ = jax.lax.scan(add, zeros, given)
    return jax.tree.map(lambda leaf: leaf / jax.tree.leaves(given)[0].shape[0], total)


def in_halves(params: PyTree) -> bool:
    """Whether some parameters have 16 bits."""
    return any(map(_is_half, jax.tree.leaves(params)))


def in_single(params: PyTree) -> PyTree:
    """`params` with those of 16 bits in single precision, which has all of them: for measures."""
    return jax.tree.map(lambda leaf: leaf.astype(np.float32) if _is_half(leaf) else leaf, params)


def _is_half(leaf: Any) -> bool:
    dtype = jnp.result_type(leaf)
    return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype.itemsize < 4


def _bytes_of_one(examples: PyTree) -> int:
    leaves = jax.tree.leaves(examples)
    return sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in leaves)


def _over_devices(
    problem: Any,
    of_chunk: OfChunk,
    params: PyTree,
    examples: PyTree,
    weights: Any,
    arguments: tuple[PyTree, ...],
    size: int,
    devices: int,
) -> PyTree:
    """The sums over all `examples`, equally many on each device."""

    if devices == 1:
        return _chunk_by_chunk(problem, of_chunk, params, examples, weights, arguments, size)
    arrays, rest = eqx.partition((problem, of_chunk, params, arguments), eqx.is_array)

    def on_device(arrays: PyTree, examples: PyTree, weights: Any) -> PyTree:
        problem, of_chunk, params, arguments = eqx.combine(arrays, rest)
        found = _chunk_by_chunk(problem, of_chunk, params, examples, weights, arguments, size)
        return jax.lax.psum(found, "examples")

    mesh = Mesh(np.array(jax.local_devices()), ("examples",))
    everywhere, shared_out = PartitionSpec(), PartitionSpec("examples")
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(everywhere, shared_out, shared_out),
        out_specs=everywhere,
        check_vma=False,
    )(arrays, examples, weights)


def _chunk_by_chunk(
    problem: Any,
    of_chunk: OfChunk,
    params: PyTree,
    examples: PyTree,
    weights: Float[Array, " n"],
    arguments: tuple[PyTree, ...],
    size: int,
) -> PyTree:
    """The sums over `examples`, whose last chunk overlaps the one before it where it must."""
    number = weights.shape[0]
    weights = jnp.asarray(weights, jnp.result_type(float))

    def of(first: Any, count: int, weights: Any) -> PyTree:
        chunk = jax.tree.map(lambda leaf: _rows(leaf, first, count), examples)
        found = of_chunk(problem, params, chunk, weights, *arguments)
        return jax.tree.map(lambda leaf: leaf.astype(accumulated(leaf.dtype)), found)

    if number <= size:
        return of(0, number, weights)

    # Were it differentiated backwards, everything computed on the way would else be kept.
    @jax.checkpoint
    def sums(i: Any) -> PyTree:
        first = jnp.minimum(i * size, number - size)
        mine = jax.lax.dynamic_slice_in_dim(weights, first, size)
        return of(first, size, jnp.where(first + jnp.arange(size) >= i * size, mine, 0))

    def add(total: PyTree, i: Any) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, sums(i)), None

    shapes = jax.eval_shape(sums, jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, jnp.arange(-(-number // size)))[0]


def _rows(leaf: Any, first: Any, count: int) -> Any:
    if isinstance(leaf, Stored):
        return leaf.fetch(first + jnp.arange(count))
    if leaf.shape[0] == count:
        return jnp.asarray(leaf)
    return jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), first, count)


def accumulated(dtype: Any) -> Any:
    """The dtype in which numbers of `dtype` are added up: single precision or better."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    return jnp.promote_types(dtype, jnp.float32) if floating else dtype
