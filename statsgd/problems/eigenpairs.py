"""The outermost eigenpairs of a symmetric matrix that is known by its products with vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from statsgd.arguments import count, one_of, positive
from statsgd.problems.parameters import floating
from statsgd.problems.problem import Problem
from statsgd.problems.sums import hessian_product

#: Which ends of the spectrum, in the order of the pairs: "both" has the smallest ones first.
ORDERS = {"largest": "LA", "smallest": "SA", "modulus": "LM", "both": "BE"}
#: |Av − λv| relative to |λ| at which an iteration stops, and the restarts after which it gives up.
TOLERANCE, RESTARTS = 1e-6, 100


class Eigenpairs(NamedTuple):
    """Eigenvalues in the order asked for, unit eigenvectors, and how well they are such."""

    values: Any
    """`(k,)`."""
    vectors: Any
    """`(k, d)`, one a row, of either sign."""
    residuals: Any
    """|Av − λv| of each, `(k,)`: some eigenvalue lies within this of λ."""

    @property
    def relative_residuals(self) -> Any:
        """|Av − λv|/|λ|."""
        return self.residuals / abs(self.values)


def outermost_eigenpairs(
    product: Callable[[Float[Any, " d"]], Float[Any, " d"]],
    dimension: int,
    number: int,
    order: str = "largest",
    *,
    tolerance: float = TOLERANCE,
    restarts: int = RESTARTS,
    seed: int = 0,
) -> Eigenpairs:
    """`number` k eigenpairs of the matrix whose products are `product`, in double precision.

    By implicitly restarted Lanczos iteration (ARPACK), which stops when all |Av − λv| are at most
    `tolerance` |λ|, or raises `ValueError` after `restarts` of them. It holds max(2k + 1, 20)
    vectors. Where these would be all of d the matrix is formed instead.

    Source: Lehoucq, Sorensen, Yang (1998), ARPACK users' guide.
    """
    k, held = count("number", number), max(2 * number + 1, 20)
    which = ORDERS[one_of("order", order, ORDERS)]
    if k > dimension:
        raise ValueError(f"number must be at most the {dimension} rows of the matrix, got {k}")
    if held >= dimension:
        matrix = np.stack([product(row) for row in np.eye(dimension)])
        values, columns = np.linalg.eigh((matrix + matrix.T) / 2)
    else:
        shape = (dimension, dimension)
        operator = LinearOperator(shape, matvec=product, dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(dimension)
        stop = float(positive("tolerance", tolerance))
        try:
            values, columns = eigsh(
                operator, k, which=which, v0=start, ncv=held, tol=stop, maxiter=restarts
            )
        except ArpackNoConvergence as failure:
            raise ValueError(
                f"restarts must be enough for {k} eigenpairs to within tolerance = {stop:g}, got "
                f"{restarts}, after which {len(failure.eigenvalues)} are found"
            ) from None
    chosen = _in_order(values, order)[:k]
    values, vectors = values[chosen], columns.T[chosen]
    images = np.stack([product(vector) for vector in vectors])
    return Eigenpairs(values, vectors, np.linalg.norm(images - values[:, None] * vectors, axis=1))


def hessian_eigenpairs(
    problem: Problem, params: PyTree, number: int, order: str = "largest", **options: Any
) -> Eigenpairs:
    """Outermost eigenpairs of ∇²L at `params`, by products; see `outermost_eigenpairs`."""
    product = hessian_product(problem, floating(params), double=True)
    return outermost_eigenpairs(product, problem.dimension, number, order, **options)


def _in_order(values: Float[Any, " n"], order: str) -> Any:
    """Places of the values, outermost first; of both ends alternately, from the smallest on."""
    ascending = np.argsort(values)
    if order == "both":
        ends = np.stack([ascending, ascending[::-1]], axis=1).ravel()
        return ends[: len(values)]
    if order == "modulus":
        return np.argsort(-np.abs(values))
    return ascending if order == "smallest" else ascending[::-1]
