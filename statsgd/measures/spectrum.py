"""The spectrum of curvature and noise: traces, determinants, eigenpairs, densities.

Every function takes any `OperatorAt` (the Hessian by default), any params pytree, and works on
tracers, so that `over_endpoints` can run it over an ensemble. With `samples=None` the answer is
exact where the matrix may be formed (d up to `problems.DENSE_LIMIT`) and a Monte Carlo estimate
above; a number asks for the estimate. Monte Carlo values carry standard errors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from matfree import decomp, stochtrace

from statsgd.arguments import count, finite_array, one_of, positive
from statsgd.measures.evaluation import (
    PROBES_AT_ONCE,
    Estimate,
    chunked_map,
    evaluate,
    flat_point,
    random_key,
    sample_mean,
)
from statsgd.measures.operators import (
    Operator,
    OperatorAt,
    block_operator,
    dense,
    hessian_operator,
)
from statsgd.problems import DENSE_LIMIT, Problem

_SAMPLES, _DEPTH = 64, 64
_SQUARE_ROOT_PI = np.sqrt(2 * np.pi)


def trace(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt = hessian_operator,
    *,
    samples: int | None = None,
    seed: Any = 0,
) -> Estimate:
    """Tr A, by default of the Hessian; unit of A.

    Monte Carlo: the mean of vᵀAv over random signs v, whose variance is 2 Σ_{i≠j} A_ij². Raises
    `ValueError` for fewer than 2 samples. Source: Hutchinson (1990).
    """
    return _probed(
        problem, params, operator, samples, seed, jnp.trace, stochtrace.monte_carlo_trace
    )


def trace_of_square(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt = hessian_operator,
    *,
    samples: int | None = None,
    seed: Any = 0,
) -> Estimate:
    """Tr A² = ‖A‖², the squared Frobenius norm, by default of the Hessian; unit of A².

    Monte Carlo: the mean of |Av|² over random signs v. Raises as `trace`.
    """
    return _probed(
        problem,
        params,
        operator,
        samples,
        seed,
        lambda matrix: jnp.sum(matrix**2),
        stochtrace.monte_carlo_frobeniusnorm_squared,
    )


class Eigenpairs(NamedTuple):
    """Eigenvalues in the order asked for, unit eigenvectors, and how well they are such."""

    values: Any
    """`(k,)`."""
    vectors: Any
    """`(k, d)`, one a row, of either sign."""
    residuals: Any
    """|Au − λu| of each, `(k,)`: some eigenvalue lies within this of λ."""


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
    size = _dimension(problem, params, operator)
    if k > size:
        raise ValueError(f"number must be at most the {size} rows of the matrix, got {number}")
    steps = _steps(depth, size, max(_DEPTH, 4 * k))
    if steps is not None and k > steps:
        raise ValueError(f"depth must be at least the number of pairs {k}, got {depth}")

    def pairs(flat: Float[Array, " d"]) -> Eigenpairs:
        of = operator(problem, problem.unflatten(flat))
        if steps is None:
            values, columns = jnp.linalg.eigh(dense(of, flat))
            vectors = columns.T
        else:
            start = jax.random.normal(random_key(seed), (size,), flat.dtype)
            values, _, vectors = lanczos(of, start, steps)
        rank = {"largest": -values, "smallest": values, "modulus": -jnp.abs(values)}[order]
        # A Krylov space that ended early leaves vectors of zero length, which come last.
        chosen = jnp.argsort(jnp.where(jnp.any(vectors != 0, axis=1), rank, jnp.inf))[:k]
        values, vectors = values[chosen], vectors[chosen]
        images = chunked_map(of.product, vectors, PROBES_AT_ONCE)
        return Eigenpairs(
            values, vectors, jnp.linalg.norm(images - values[:, None] * vectors, axis=1)
        )

    return evaluate(pairs, flat_point(problem, params))


class LogDeterminant(NamedTuple):
    """The logarithm of a pseudo-determinant, and the directions it leaves out."""

    value: Any
    """Σ log|λ| over eigenvalues outside the nullspace."""
    standard_error: Any
    nullity: Any
    """How many eigenvalues are null, |λ| ≤ tolerance · max |λ|."""
    nullity_standard_error: Any
    negative: Any
    """How many eigenvalues outside the nullspace are negative: 0 at a minimum."""
    negative_standard_error: Any


def log_determinant(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt = hessian_operator,
    *,
    tolerance: float = 1e-8,
    samples: int | None = None,
    depth: int = _DEPTH,
    seed: Any = 0,
) -> LogDeterminant:
    """log |det A| over the eigenvalues that count, by default of the Hessian.

    Eigenvalues with |λ| ≤ `tolerance` · max |λ| are null directions: left out, and counted.
    Monte Carlo: Lanczos quadrature from each random vector; its error beyond the standard error
    falls with `depth`, and it cannot tell the null from the nearly null unless a gap as wide as
    the tolerance separates them. Raises `ValueError` unless the tolerance is positive.

    Source: Ubaru, Chen, Saad (2017), doi:10.1137/16M1104974.
    """
    cut = float(positive("tolerance", tolerance))

    def read(nodes: Float[Array, "n k"], weights: Float[Array, "n k"]) -> LogDeterminant:
        size = jnp.abs(nodes)
        null = size <= cut * jnp.max(size)
        logarithms = jnp.where(null, 0.0, jnp.log(jnp.where(null, 1.0, size)))
        parts = (logarithms, null, (nodes < 0) & ~null)
        sums = [_over_rows(jnp.sum(weights * part, axis=1)) for part in parts]
        return LogDeterminant(*(number for estimate in sums for number in estimate))

    return _quadrature(problem, params, operator, samples, depth, seed, read)


def spectral_density(
    problem: Problem,
    params: PyTree,
    grid: Any,
    width: float,
    operator: OperatorAt = hessian_operator,
    *,
    samples: int | None = None,
    depth: int = _DEPTH,
    seed: Any = 0,
) -> Estimate:
    """Density of eigenvalues at `grid`, smoothed by a Gaussian of standard deviation `width`.

    (1/d) Σ φ((x − λᵢ)/w)/w; it integrates to one. Exact from all eigenvalues, or by Lanczos
    quadrature from random vectors. **Arguments:** `grid`, `(m,)`, and `width` in units of A.

    Source: Ghorbani, Krishnan, Xiao (2019), arXiv:1901.10159.
    """
    x = np.atleast_1d(finite_array("grid", grid))
    w = float(positive("width", width))

    def read(nodes: Float[Array, "n k"], weights: Float[Array, "n k"]) -> Estimate:
        shares = weights / jnp.sum(weights, axis=1, keepdims=True)

        def at(point: Float[Array, ""]) -> Estimate:
            bumps = jnp.exp(-0.5 * ((point - nodes) / w) ** 2) / (_SQUARE_ROOT_PI * w)
            return _over_rows(jnp.sum(shares * bumps, axis=1))

        return jax.lax.map(at, jnp.asarray(x, nodes.dtype))

    return _quadrature(problem, params, operator, samples, depth, seed, read)


def over_blocks(
    problem: Problem,
    params: PyTree,
    measure: Callable[..., PyTree],
    operator: OperatorAt = hessian_operator,
    **options: Any,
) -> dict[str, PyTree]:
    """A spectral measure of the diagonal block of every params leaf, by the leaf's name.

    `over_blocks(problem, params, trace)` says how curvature is shared among layers; the traces add
    up to that of the whole, determinants and eigenvalues do not.
    """
    return {
        name: measure(problem, params, operator=block_operator(operator, name), **options)
        for name in problem.names
    }


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


def _probed(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt,
    samples: int | None,
    seed: Any,
    exact: Callable[[Any], Any],
    integrand: Callable[[], Callable],
) -> Estimate:
    number = _number(samples, _dimension(problem, params, operator))

    def estimate(flat: Float[Array, " d"]) -> Estimate:
        of = operator(problem, problem.unflatten(flat))
        if number is None:
            value = exact(dense(of, flat))
            return Estimate(value, jnp.zeros_like(value))
        form = integrand()
        values = over_probes(lambda v: form(of.product, v), of, flat, number, seed)
        return sample_mean(values)

    return evaluate(estimate, flat_point(problem, params))


def over_probes(
    form: Callable[[Float[Array, " d"]], PyTree],
    operator: Operator,
    flat: Float[Array, " d"],
    samples: int,
    seed: Any,
) -> PyTree:
    """`form(v)` for each of `samples` random vectors of signs, a few at a time."""
    draw = stochtrace.sampler_signs(jnp.zeros(operator.dimension, flat.dtype), num=1)
    keys = jax.random.split(random_key(seed), samples)
    return chunked_map(lambda key: form(draw(key)[0]), keys, PROBES_AT_ONCE)


def _quadrature(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt,
    samples: int | None,
    depth: int,
    seed: Any,
    read: Callable[[Any, Any], PyTree],
) -> PyTree:
    """`read(nodes, weights)`, a row for each random vector or one row of all eigenvalues.

    Each row of weights adds up to d.
    """
    size = _dimension(problem, params, operator)
    number = _number(samples, size)
    steps = min(count("depth", depth), size)

    def estimate(flat: Float[Array, " d"]) -> PyTree:
        of = operator(problem, problem.unflatten(flat))
        if number is None:
            nodes = jnp.linalg.eigvalsh(dense(of, flat))[None]
            return read(nodes, jnp.ones_like(nodes))
        nodes, weights = over_probes(lambda v: lanczos(of, v, steps)[:2], of, flat, number, seed)
        return read(nodes, size * weights)

    return evaluate(estimate, flat_point(problem, params))


def _over_rows(values: Float[Array, " n"]) -> Estimate:
    if len(values) == 1:  # all eigenvalues: exact
        return Estimate(values[0], jnp.zeros_like(values[0]))
    return sample_mean(values)


def _dimension(problem: Problem, params: PyTree, operator: OperatorAt) -> int:
    sizes: list[int] = []

    def look(point: PyTree) -> None:
        sizes.append(operator(problem, point).dimension)

    jax.eval_shape(look, params)
    return sizes[0]


def _number(samples: int | None, size: int) -> int | None:
    if samples is None:
        return None if size <= DENSE_LIMIT else _SAMPLES
    return count("samples", samples, at_least=2)


def _steps(depth: int | None, size: int, default: int) -> int | None:
    if depth is None:
        return None if size <= DENSE_LIMIT else min(default, size)
    return min(count("depth", depth), size)
