"""The outermost eigenpairs of a symmetric matrix that is known by its products with vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from statsgd.arguments import count, one_of, positive
from statsgd.problems.parameters import floating
from statsgd.problems.problem import Problem
from statsgd.problems.sums import hessian_product

#: Which ends of the spectrum, in the order of the pairs: "both" has the smallest ones first.
ORDERS = {"largest": "LA", "smallest": "SA", "modulus": "LM", "both": "BE"}
#: |Av − λv| relative to |λ| at which an iteration stops, and the restarts after which it gives up.
TOLERANCE, RESTARTS = 1e-6, 100

_ENDED = 1e-12  # what is left of a vector, relative to the matrix, at the end of a Krylov space


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
        """|Av − λv|/|λ|, enormous where λ = 0 is not exact."""
        return self.residuals / (abs(self.values) + 1e-300 * (self.values == 0))


def outermost_eigenpairs(
    product: Callable[[Float[Any, " d"]], Float[Any, " d"]],
    dimension: int,
    number: int,
    order: str = "largest",
    *,
    tolerance: float = TOLERANCE,
    restarts: int = RESTARTS,
    seed: Any = 0,
) -> Eigenpairs:
    """`number` k eigenpairs of the matrix whose products are `product`, in double precision.

    By implicitly restarted Lanczos iteration (ARPACK), which stops when all |Av − λv| are at most
    `tolerance` |λ|. Where that is not reached after `restarts` of them, as for eigenvalues that are
    zero, it goes on until they are at most 2 to 3 `tolerance` of the largest |λ|, and raises
    `ValueError` if that takes too many again; `residuals` say what was reached. It holds
    max(2k + 1, 20) vectors. Where these would be all of d the matrix is formed instead.

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
        start = np.random.default_rng(seed).standard_normal(dimension)
        options = {"k": k, "which": which, "ncv": held, "v0": start, "maxiter": restarts}
        stop = float(positive("tolerance", tolerance))
        values, columns = _restarted(product, dimension, options, stop)
    chosen = _in_order(values, order)[:k]
    values, vectors = values[chosen], columns.T[chosen]
    images = np.stack([product(vector) for vector in vectors])
    return Eigenpairs(values, vectors, np.linalg.norm(images - values[:, None] * vectors, axis=1))


def hessian_eigenpairs(
    problem: Problem, params: PyTree, number: int, order: str = "largest", **options: Any
) -> Eigenpairs:
    """Outermost eigenpairs of ∇²L at `params`, by products; see `outermost_eigenpairs`."""
    product = hessian_product(problem, floating(problem.parameters(params)), double=True)
    return outermost_eigenpairs(product, problem.dimension, number, order, **options)


def _restarted(
    product: Callable[[Any], Any], dimension: int, options: dict[str, Any], tolerance: float
) -> tuple[Any, Any]:
    """Eigenvalues and columns of vectors that ARPACK finds."""

    def shifted_by(shift: float) -> LinearOperator:
        shape = (dimension, dimension)
        return LinearOperator(shape, lambda v: product(v) + shift * v, dtype=np.float64)

    try:
        return eigsh(shifted_by(0.0), tol=tolerance, **options)
    except ArpackNoConvergence as failure:
        known = len(failure.eigenvalues)
    first = {**options, "k": 1, "which": "LM"}
    try:
        # Away from zero the same relative tolerance is one of the size of the matrix.
        size = abs(eigsh(shifted_by(0.0), tol=0.01, return_eigenvectors=False, **first)[0])
        if options["which"] != "LM":
            values, columns = eigsh(shifted_by(2 * size), tol=tolerance, **options)
            return values - 2 * size, columns
    except ArpackNoConvergence as failure:
        known = max(known, len(failure.eigenvalues))
    raise ValueError(
        f"restarts must be enough for {options['k']} eigenpairs to within tolerance = "
        f"{tolerance:g}, got {options['maxiter']}, after which {known} are found"
    )


class Quadrature(NamedTuple):
    """Nodes and weights of a quadrature, and those by one step of the iteration less."""

    nodes: Float[Any, " depth"]
    weights: Float[Any, " depth"]
    fewer_nodes: Float[Any, " depth"]
    fewer_weights: Float[Any, " depth"]


def lanczos_quadrature(
    product: Callable[[Float[Any, " d"]], Float[Any, " d"]], start: Float[Any, " d"], depth: int
) -> Quadrature:
    """Nodes r and weights w with Σ w f(r) ≈ uᵀf(A)u, exact for polynomials up to 2·`depth` − 1.

    Weights add up to |u|². By Lanczos iteration with full reorthogonalisation; where the Krylov
    space ends early the rest are nodes of weight zero. It is exact then, and both quadratures are
    the same; else what the last step changes says how far it is from its end.
    """
    norm = float(np.linalg.norm(start))
    if norm == 0:
        return Quadrature(*[np.zeros(depth)] * 4)
    basis = [start / norm]
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(depth):
        image = product(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        if step == depth - 1:
            break
        known = np.array(basis)
        for _ in range(2):
            image = image - known.T @ (known @ image)
        length = float(np.linalg.norm(image))
        if length <= _ENDED * max(map(abs, [*diagonal, *beside])):
            break
        beside.append(length)
        basis.append(image / length)
    ended = len(diagonal) < depth or depth in (1, len(start))
    found = []
    for steps in (len(diagonal), len(diagonal) - (not ended)):
        values, vectors = eigh_tridiagonal(diagonal[:steps], beside[: steps - 1])
        rest = (0, depth - steps)
        found += [np.pad(values, rest), np.pad(norm**2 * vectors[0] ** 2, rest)]
    return Quadrature(*found)


def _in_order(values: Float[Any, " n"], order: str) -> Any:
    """Places of the values, outermost first; of both ends alternately, from the smallest on."""
    ascending = np.argsort(values)
    if order == "both":
        ends = np.stack([ascending, ascending[::-1]], axis=1).ravel()
        return ends[: len(values)]
    if order == "modulus":
        return np.argsort(-np.abs(values))
    return ascending if order == "smallest" else ascending[::-1]
