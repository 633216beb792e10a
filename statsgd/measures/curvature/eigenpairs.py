"""The outermost eigenvalues of curvature and noise matrices, with their vectors."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from matfree import decomp

from statsgd.arguments import count, one_of
from statsgd.measures.curvature.operators import (
    Operator,
    OperatorAt,
    dense,
    hessian_operator,
    rows_of,
)
from statsgd.measures.curvature.probes import PROBES_AT_ONCE, chunked_map, random_key
from statsgd.precision import in_double_precision
from statsgd.problems import DENSE_LIMIT, Problem
from statsgd.problems.eigenpairs import Eigenpairs
from statsgd.problems.parameters import floating

#: Products of a Lanczos iteration where their number is not asked for.
DEPTH = 64


def top_eigenpairs(
    problem: Problem,
    params: PyTree,
    number: int = 1,
    operator: OperatorAt = hessian_operator,
    *,
    order: str = "largest",
    depth: int | None = None,
    seed: Any = 0,
) -> Eigenpairs:
    """The `number` outermost eigenpairs of A, by default of the Hessian.

    **Arguments:** `order`, `"largest"`, `"smallest"` (most negative first) or `"modulus"`;
    `depth`, products of a Lanczos iteration with full reorthogonalisation, whose memory is
    depth × d: by default none, but the whole matrix, where d is at most `problems.DENSE_LIMIT`,
    and above the larger of 64 and 4 k. Lanczos sees one vector of the eigenspace of a repeated
    eigenvalue, which so appears once.

    Raises `ValueError` for more pairs than rows or than `depth`.
    """
    k = count("number", number)
    one_of("order", order, ("largest", "smallest", "modulus"))
    size = rows_of(operator, problem, params)
    if k > size:
        raise ValueError(f"number must be at most the {size} rows of the matrix, got {number}")
    steps = None
    if depth is not None:
        steps = min(count("depth", depth), size)
    elif size > DENSE_LIMIT:
        steps = min(max(DEPTH, 4 * k), size)
    if steps is not None and k > steps:
        raise ValueError(f"depth must be at least the number of pairs {k}, got {depth}")
    key = random_key(seed)
    return in_double_precision(
        _eigenpairs, problem, floating(problem.parameters(params)), operator, k, order, steps, key
    )


def _eigenpairs(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt,
    number: int,
    order: str,
    steps: int | None,
    key: PRNGKeyArray,
) -> Eigenpairs:
    of = operator(problem, params)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    if steps is None:
        values, columns = jnp.linalg.eigh(dense(of, jnp.zeros((), dtype)))
        vectors = columns.T
    else:
        values, _, vectors = lanczos(of, jax.random.normal(key, (of.dimension,), dtype), steps)
    rank = {"largest": -values, "smallest": values, "modulus": -jnp.abs(values)}[order]
    # A Krylov space that ended early leaves vectors of zero length, which come last.
    chosen = jnp.argsort(jnp.where(jnp.any(vectors != 0, axis=1), rank, jnp.inf))[:number]
    values, vectors = values[chosen], vectors[chosen]
    images = chunked_map(of.product, vectors, PROBES_AT_ONCE)
    return Eigenpairs(values, vectors, jnp.linalg.norm(images - values[:, None] * vectors, axis=1))


def lanczos(
    operator: Operator, start: Float[Array, " d"], depth: int
) -> tuple[Float[Array, " k"], Float[Array, " k"], Float[Array, "k d"]]:
    """Ritz values of A, their weights in `start` (which add up to one), and their unit vectors.

    Where the Krylov space of `start` ends before `depth`, the rest are zeros of weight zero.
    """
    found = decomp.hessenberg(depth, reortho="full")(operator.product, start)
    basis, matrix = found.Q_tall, found.J_small
    below = jnp.abs(jnp.diagonal(matrix, -1))
    # Past the end of the Krylov space the next vector is rounding error, or not a number at all.
    scale = jnp.abs(matrix[0, 0])
    scale += jnp.max(jnp.where(jnp.isfinite(below), below, 0.0), initial=0.0)
    small = ~(below > jnp.finfo(start.dtype).eps ** 0.7 * scale)
    ended = jnp.concatenate([jnp.zeros(1, bool), jnp.cumsum(small) > 0])
    diagonal = jnp.where(ended, 0.0, jnp.diagonal(matrix))
    beside = jnp.where(ended[1:], 0.0, below)
    # Fillers larger than any eigenvalue, so that they do not mix with true ones.
    filler = 1 + 4 * (jnp.max(jnp.abs(diagonal)) + 2 * jnp.max(beside, initial=0.0))
    tridiagonal = jnp.diag(jnp.where(ended, filler, diagonal))
    values, vectors = jnp.linalg.eigh(tridiagonal + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    true = values < filler / 2
    vectors = jnp.where(true & ~ended[:, None], vectors, 0.0)
    basis = jnp.where(ended[:, None], 0.0, basis)
    return jnp.where(true, values, 0.0), vectors[0] ** 2, vectors.T @ basis
