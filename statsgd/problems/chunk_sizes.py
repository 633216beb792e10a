"""How many examples are computed with at once: as many as a memory budget allows."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced

#: Bytes that what is computed on the way to the losses of a chunk may take. On a CPU that is what
#: stays in its cache: 50 to 100 examples of a small network at once are fastest. Loops of programs
#: know no such gain, and some convolutions are many times slower in one; so a chunk of a program
#: that is being traced is what fits in memory.
MEMORY_BUDGET = {"cpu": 2**20, "accelerator": 2**29, "traced": 2**28}

#: Fewest examples at once, however large each is: products with matrices need company. Where
#: memory is not asked for, so many that they pay for reading all parameters and writing a gradient:
#: with 16 at once, sums of networks of 10³ to 10⁶ parameters take up to three times as long.
SMALLEST_CHUNK, COMPANY = 16, 64


def chunk_size(problem: Any, params: PyTree, width: int = 0, copies: int = 1) -> int:
    """Examples in a chunk: as many as the memory budget of `problem` allows.

    The memory of an example is what its loss computes on the way, of which a derivative keeps about
    as much, and its `width`, as in `mean_over_chunks`. Without a budget of the user's there are
    `COMPANY` at least, unless `copies` of that memory would be too much.
    """
    budget, fewest = problem.memory_budget, SMALLEST_CHUNK
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*_one(leaf)), problem.examples)
    at = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), _dtype(leaf)), params)
    arrays, rest = eqx.partition(problem.without_examples, eqx.is_array)
    leaves, structure = jax.tree.flatten(rest)
    # By JAX's own memory of what it has traced: tracing takes longer than a small product.
    program = _loss_of_one.trace((tuple(leaves), structure), arrays, at, example).jaxpr.jaxpr
    inputs = [jax.tree.leaves(part) for part in (arrays, at, example)]
    depends = [False] * len(inputs[0] + inputs[1]) + [True] * len(inputs[2])
    computed = _bytes_computed(program, depends)[0] + width
    if budget is None and is_traced(problem, params):
        budget = MEMORY_BUDGET["traced"]
    elif budget is None:
        budget = MEMORY_BUDGET["cpu" if jax.default_backend() == "cpu" else "accelerator"]
        fewest = max(fewest, min(COMPANY, MEMORY_BUDGET["traced"] // max(copies * computed, 1)))
    most = max(budget // max(computed, 1), fewest)
    number = problem.num_examples
    return -(-number // -(-number // most))


@functools.partial(jax.jit, static_argnums=0, keep_unused=True)
def _loss_of_one(fixed: Any, arrays: PyTree, params: PyTree, example: PyTree) -> Float[Any, ""]:
    leaves, structure = fixed
    problem: Any = eqx.combine(arrays, jax.tree.unflatten(structure, leaves))
    return problem.example_loss(params, example)


def _bytes_computed(program: Any, depends: list[bool]) -> tuple[int, list[bool]]:
    """Bytes of all that a program computes from the inputs that count, and which outputs do."""
    counted = dict(zip(program.invars, depends, strict=True))
    total = 0
    for step in program.eqns:
        inputs = [not hasattr(v, "val") and counted.get(v, False) for v in step.invars]
        if not any(inputs):
            continue
        counted |= dict.fromkeys(step.outvars, True)
        inner = [
            part for value in step.params.values() for part in jax.tree.leaves(
                value, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
            ) if hasattr(part, "eqns") or hasattr(part, "jaxpr")
        ]  # fmt: skip
        if not inner:
            total += sum(_bytes(v.aval) for v in step.outvars)
        for part in inner:
            part = getattr(part, "jaxpr", part)
            same = len(part.invars) == len(inputs)
            within = inputs if same else [True] * len(part.invars)
            total += step.params.get("length", 1) * _bytes_computed(part, within)[0]
    return total, [not hasattr(v, "val") and counted.get(v, False) for v in program.outvars]


def _bytes(shaped: Any) -> int:
    return math.prod(shaped.shape) * getattr(shaped.dtype, "itemsize", 4)


def _one(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of one example, as a program sees them."""
    return leaf.shape[1:], _dtype(leaf)


def _dtype(leaf: Any) -> Any:
    given = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jax.dtypes.canonicalize_dtype(given)
