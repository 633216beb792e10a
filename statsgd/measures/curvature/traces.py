"""Traces of curvature and noise matrices, exact or from random products."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, is_traced, kinds_checked
from statsgd.estimate import Estimate, exact, sample_mean
from statsgd.measures.curvature.operators import (
    Operator,
    OperatorAt,
    block_operator,
    dense,
    hessian_operator,
    products_of,
    rows_of,
)
from statsgd.measures.curvature.probes import SHORT, at_once, chunked_map, over_probes, random_key
from statsgd.precision import in_double_precision, in_own_precision
from statsgd.problems import DENSE_LIMIT, EmpiricalRisk, Problem
from statsgd.problems.parameters import floating

#: Random vectors, and directions taken out before, where neither is asked for: 64 products.
SAMPLES, RANK = 32, 16

#: Multiplications, rows × d × examples, up to which measures form a matrix: a few seconds.
MOST_WORK = 2**31


@kinds_checked
def trace(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt = hessian_operator,
    *,
    samples: int | None = None,
    rank: int | None = None,
    double: bool = True,
    seed: Any = 0,
) -> Estimate:
    """Tr A, by default of the Hessian; unit of A.

    Exact where the matrix is formed (`is_formed`), unless `samples` are asked
    for. Else Tr QᵀAQ over an orthonormal basis Q of A times `rank` random vectors, at two
    products each, and the mean of vᵀAv over `samples` random signs v orthogonal to Q, whose
    variance is 2 Σ_{i≠j} A_ij² at rank 0. By default 32 samples and rank 16, or with `samples`
    rank 0. The rank takes off much of the error where a few eigenvalues stand out, and costs a
    little where none does. Leave-one-out estimates (XTrace) have errors of the same order, which
    they state too small. Products of a large Hessian are taken chunk by chunk of the data, and what
    they hold does not grow with it; `double`, False for those in the precision of `params`, in half
    of the time.

    Raises `ValueError` for fewer than 2 samples and a rank that is negative or above d. Source:
    Hutchinson (1990); Meyer, Musco, Musco, Woodruff (2021), arXiv:2010.09649.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> trace(quadratic(np.diag([3.0, 2.0])), np.zeros(2))
    Estimate(5 ± 0)
    """
    size = rows_of(operator, problem, params)
    number = sample_count(samples, problem, size, SAMPLES)
    kept = min(RANK, size) if samples is None else 0
    if rank is not None:
        kept = count("rank", rank, at_least=0)
    if kept > size:
        raise ValueError(f"rank must be at most the {size} rows of the matrix, got {rank}")
    key, at = random_key(seed), floating(problem.parameters(params))
    if number is not None and _is_read_in_chunks(problem, at, operator, key):
        return _trace_by_products(
            products_of(problem, at, operator, double), size, number, kept, key
        )
    within = in_double_precision if double else in_own_precision
    return within(_trace, problem, at, operator, number, kept, key)


@kinds_checked
def trace_of_square(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt = hessian_operator,
    *,
    samples: int | None = None,
    seed: Any = 0,
) -> Estimate:
    """Tr A² = ‖A‖², the squared Frobenius norm, by default of the Hessian; unit of A².

    Exact where the matrix is formed, as in `trace`, unless `samples` are asked for; else the mean
    of |Av|² over random signs v, by default 64. Raises `ValueError` for fewer than 2 samples.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> trace_of_square(quadratic(np.diag([3.0, 2.0])), np.zeros(2))
    Estimate(13 ± 0)
    """
    size = rows_of(operator, problem, params)
    number = sample_count(samples, problem, size, 2 * SAMPLES)
    key, at = random_key(seed), floating(problem.parameters(params))
    if number is not None and _is_read_in_chunks(problem, at, operator, key):
        product = products_of(problem, at, operator)
        images = (product(v) for v in _signs(size, number, key))
        return _mean([image @ image for image in images])
    return in_double_precision(_square, problem, at, operator, number, key)


@kinds_checked
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

    Numbers are float64.

    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: p["u"] ** 2 + 3 * p["w"] ** 2, {"u": 0.0, "w": 0.0})
    >>> over_blocks(problem, {"u": 0.0, "w": 0.0}, trace)
    {'u': Estimate(2 ± 0), 'w': Estimate(6 ± 0)}
    """
    return {
        name: measure(problem, params, operator=block_operator(operator, name), **options)
        for name in problem.names
    }


def is_formed(problem: Problem, rows: int) -> bool:
    """Whether measures form a matrix of so many `rows` where nobody asks for either way.

    The one rule: up to d = `problems.DENSE_LIMIT`, while its products, of d numbers for each
    example, are at most `MOST_WORK` = 2³¹. Above, products with a few vectors take its place.
    """
    examples = getattr(problem, "num_examples", getattr(problem, "loss_examples", 1))
    return rows <= DENSE_LIMIT and rows * problem.dimension * examples <= MOST_WORK


def sample_count(samples: int | None, problem: Problem, size: int, default: int) -> int | None:
    """Random vectors to use for a matrix of `size` rows; None where it is to be formed."""
    if samples is None:
        return None if is_formed(problem, size) else default
    return count("samples", samples, at_least=2)


def _is_read_in_chunks(problem: Problem, params: PyTree, operator: OperatorAt, key: Any) -> bool:
    """Whether products are best called one by one, each of which goes through the data in chunks.

    A program on its own holds all the data, in double precision, and larger chunks of them.
    """
    large = problem.dimension > SHORT and isinstance(problem, EmpiricalRisk)
    return large and operator is hessian_operator and not is_traced(problem, params, key)


def _signs(dimension: int, number: int, key: PRNGKeyArray) -> Iterator[Float[Any, " d"]]:
    """The vectors of `over_probes`, one after the other on the host."""
    for one in jax.random.split(key, number):
        with jax.enable_x64(True):
            yield np.asarray(jax.random.rademacher(one, (dimension,), jnp.float64))


def _trace_by_products(
    product: Callable[[Any], Any], dimension: int, number: int, rank: int, key: PRNGKeyArray
) -> Estimate:
    """As `_trace`, by calls of `product`."""
    basis, within = np.zeros((dimension, 0)), 0.0
    if rank:
        first, key = jax.random.split(key)
        sketch = [product(v) for v in _signs(dimension, rank, first)]
        basis = np.linalg.qr(np.stack(sketch, axis=1))[0]
        within = float(sum(column @ product(column) for column in basis.T))
    rests = (v - basis @ (basis.T @ v) for v in _signs(dimension, number, key))
    found = _mean([rest @ product(rest) for rest in rests])
    return found._replace(value=within + found.value)


def _mean(forms: Sequence[Any]) -> Estimate:
    error = np.std(forms, ddof=1) / np.sqrt(len(forms))
    return Estimate(np.mean(forms), error, len(forms))


def _trace(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt,
    number: int | None,
    rank: int,
    key: PRNGKeyArray,
) -> Estimate:
    of, like = _at(problem, params, operator)
    if number is None:
        return exact(jnp.trace(dense(of, like)))
    if rank == 0:
        return sample_mean(over_probes(lambda v: v @ of.product(v), like, number, key))
    first, second = jax.random.split(key)
    sketch = over_probes(of.product, like, rank, first)
    basis = jnp.linalg.qr(sketch.T)[0].T
    within = jnp.sum(basis * chunked_map(of.product, basis, at_once(of.dimension)))

    def beyond(v: Float[Array, " d"]) -> Float[Array, ""]:
        rest = v - (basis @ v) @ basis
        return rest @ of.product(rest)

    found = sample_mean(over_probes(beyond, like, number, second))
    return found._replace(value=within + found.value)


def _square(
    problem: Problem, params: PyTree, operator: OperatorAt, number: int | None, key: PRNGKeyArray
) -> Estimate:
    of, like = _at(problem, params, operator)
    if number is None:
        return exact(jnp.sum(dense(of, like) ** 2))
    return sample_mean(over_probes(lambda v: jnp.sum(of.product(v) ** 2), like, number, key))


def _at(
    problem: Problem, params: PyTree, operator: OperatorAt
) -> tuple[Operator, Float[Array, " d"]]:
    """The operator, and a vector of its length and precision."""
    of = operator(problem, params)
    return of, jnp.zeros(of.dimension, jnp.result_type(*jax.tree.leaves(params)))
