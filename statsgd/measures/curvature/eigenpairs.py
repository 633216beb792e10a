"""The outermost eigenvalues of curvature and noise matrices, with their vectors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from matfree import decomp

from statsgd.arguments import count, is_traced, kinds_checked, one_of
from statsgd.measures.curvature.operators import (
    Operator,
    OperatorAt,
    dense,
    hessian_operator,
    products_of,
    rows_of,
)
from statsgd.measures.curvature.probes import at_once, chunked_map, random_key
from statsgd.measures.curvature.traces import is_formed
from statsgd.precision import in_double_precision, in_own_precision
from statsgd.problems import Problem
from statsgd.problems.eigenpairs import ORDERS, TOLERANCE, Eigenpairs, outermost_eigenpairs
from statsgd.problems.parameters import floating

#: Products of a Lanczos iteration where their number is not asked for.
DEPTH = 64

#: Rows up to which Lanczos iterations take no fewer products than all columns of the matrix.
FORMED_ROWS = 128


@kinds_checked
def top_eigenpairs(
    problem: Problem,
    params: PyTree,
    number: int = 1,
    operator: OperatorAt = hessian_operator,
    *,
    order: str = "largest",
    tolerance: float = TOLERANCE,
    depth: int | None = None,
    double: bool = True,
    seed: Any = 0,
) -> Eigenpairs:
    """The `number` outermost eigenpairs of A, by default of the Hessian, in double precision.

    By restarted Lanczos iteration over products, which stops when all |Av − λv| are at most
    `tolerance` |λ|: see `problems.eigenpairs.outermost_eigenpairs`. The matrix is formed up to
    `FORMED_ROWS` rows, where that takes no more products, and where a caller is traced as
    `curvature.traces.is_formed` says.

    **Arguments:** `order`, `"largest"`, `"smallest"` (most negative first), `"modulus"` or
    `"both"` (ends by turns, the smallest first); `depth`, products of one Lanczos iteration with
    full reorthogonalisation instead, whose memory is depth × d and which stops there: that of
    traced callers is the larger of 64 and 4 k. It sees one vector of the eigenspace of a repeated
    eigenvalue, which so appears once. `double`, False for products in the precision of `params`,
    which take half of the time: their rounding, in single precision about 10⁻⁷ of the largest
    |λ|, is then part of what is found.

    Raises `ValueError` for more pairs than rows or than `depth`, and where the iteration does not
    reach the tolerance.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> top_eigenpairs(quadratic(np.diag([3.0, 2.0, 1.0])), np.zeros(3), 2).values.round(6)
    array([3., 2.])
    """
    k = count("number", number)
    one_of("order", order, ORDERS)
    size = rows_of(operator, problem, params)
    if k > size:
        raise ValueError(f"number must be at most the {size} rows of the matrix, got {number}")
    key, params = random_key(seed), floating(problem.parameters(params))
    traced = is_traced(problem, params, operator, key)
    if depth is None and size > FORMED_ROWS and not traced:
        return outermost_eigenpairs(
            products_of(problem, params, operator, double),
            size,
            k,
            order,
            tolerance=tolerance,
            seed=np.asarray(jax.random.key_data(key)).ravel(),
        )
    steps = None
    if depth is not None:
        steps = min(count("depth", depth), size)
    elif size > FORMED_ROWS and not is_formed(problem, size):
        steps = min(max(DEPTH, 4 * k), size)
    if steps is not None and k > steps:
        raise ValueError(f"depth must be at least the number of pairs {k}, got {depth}")
    ask = (problem, params, operator, k, order, steps, key)
    within = in_double_precision if double else in_own_precision
    return within(_eigenpairs, *ask)


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
    # A Krylov space that ended early leaves vectors of zero length, which come last.
    true = jnp.any(vectors != 0, axis=1)
    chosen = _ranked(jnp.where(true, values, jnp.nan), order)[:number]
    values, vectors = values[chosen], vectors[chosen]
    images = chunked_map(of.product, vectors, at_once(of.dimension))
    return Eigenpairs(values, vectors, jnp.linalg.norm(images - values[:, None] * vectors, axis=1))


def _ranked(values: Float[Array, " n"], order: str) -> Any:
    """Places of the values in `order`, those that are not numbers last."""
    if order == "both":
        low, high = jnp.argsort(values), jnp.argsort(-values)
        return jnp.stack([low, high], axis=1).ravel()[: len(values)]
    rank = {"largest": -values, "smallest": values, "modulus": -jnp.abs(values)}[order]
    return jnp.argsort(rank)


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
