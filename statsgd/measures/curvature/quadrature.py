"""Sums over all eigenvalues of curvature and noise matrices: determinants and densities.

Exact from all eigenvalues, or by Lanczos quadrature from random vectors, each of which gives nodes
and weights that stand for the whole spectrum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, finite_array, is_traced, kinds_checked, positive
from statsgd.estimate import Estimate, exact, sample_mean
from statsgd.measures.curvature.eigenpairs import DEPTH, lanczos
from statsgd.measures.curvature.operators import OperatorAt, dense, hessian_operator, rows_of
from statsgd.measures.curvature.probes import over_probes, random_key
from statsgd.measures.curvature.traces import sample_count
from statsgd.precision import in_double_precision
from statsgd.problems import Problem
from statsgd.problems.parameters import floating

_SAMPLES = 64
_SQUARE_ROOT_2_PI = np.sqrt(2 * np.pi)


class LogDeterminant(NamedTuple):
    """The logarithm of a pseudo-determinant, and the directions it leaves out."""

    value: Any
    """Σ log|λ| over eigenvalues outside the nullspace."""
    standard_error: Any
    """With a bound of the bias, where eigenvalues are not all computed; infinite: not resolved."""
    nullity: Any
    """How many eigenvalues are null, |λ| ≤ tolerance · max |λ|."""
    nullity_standard_error: Any
    negative: Any
    """How many eigenvalues outside the nullspace are negative: 0 at a minimum."""
    negative_standard_error: Any


@kinds_checked
def log_determinant(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt = hessian_operator,
    *,
    tolerance: float = 1e-8,
    samples: int | None = None,
    depth: int = DEPTH,
    seed: Any = 0,
) -> LogDeterminant:
    """log |det A| over the eigenvalues that count, by default of the Hessian.

    Eigenvalues with |λ| ≤ `tolerance` · max |λ| are null directions: left out, and counted.
    Monte Carlo: Lanczos quadrature from each random vector. Its bias, which falls with `depth` and
    is large for condition numbers above about depth², is part of the errors: with the changes a and
    b by the last two doublings of the depth, the rest is at most |b| r/(1−r) with r = |b/a|, since
    changes fall ever faster once they fall. Where b is not below a the value is not resolved, and
    its error is infinite. It cannot tell the null from the nearly null unless a gap as wide as the
    tolerance separates them. Raises `ValueError` unless the tolerance is positive.

    Source: Ubaru, Chen, Saad (2017), doi:10.1137/16M1104974.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> found = log_determinant(quadratic(np.diag([3.0, 2.0])), np.zeros(2))
    >>> round(float(found.value), 4)  # ln 6
    1.7918
    """
    cut = float(positive("tolerance", tolerance))

    def at(steps: int) -> LogDeterminant:
        return _quadrature(problem, params, operator, samples, steps, seed, _log_determinant, cut)

    found, size = at(depth), rows_of(operator, problem, params)
    if depth >= size or sample_count(samples, problem, size, _SAMPLES) is None:
        return found
    # From the same random vectors.
    half, quarter, with_bias = at((depth + 1) // 2), at((depth + 3) // 4), list(found)
    array = jnp if is_traced(found, half) else np
    for index in (0, 2, 4):
        bias = abs(found[index] - half[index])
        if index == 0:
            before = abs(half[0] - quarter[0])
            rest = array.where(
                bias < before, bias**2 / array.maximum(before - bias, 1e-300), np.inf
            )
            # Below what sampling leaves, changes of the depth are scatter.
            seen = bias > found[1] / 10
            bias = array.maximum(bias, array.where(seen, rest, 0.0))
        with_bias[index + 1] = array.hypot(found[index + 1], bias)
    return LogDeterminant(*with_bias)


@kinds_checked
def spectral_density(
    problem: Problem,
    params: PyTree,
    grid: Any,
    width: float,
    operator: OperatorAt = hessian_operator,
    *,
    samples: int | None = None,
    depth: int = DEPTH,
    seed: Any = 0,
) -> Estimate:
    """Density of eigenvalues at `grid`, smoothed by a Gaussian of standard deviation `width`.

    (1/d) Σ φ((x − λᵢ)/w)/w; it integrates to one. Exact from all eigenvalues, or by Lanczos
    quadrature from random vectors. **Arguments:** `grid`, `(m,)`, and `width` in units of A.

    Source: Ghorbani, Krishnan, Xiao (2019), arXiv:1901.10159.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> bowl = quadratic(np.diag([3.0, 2.0]))
    >>> spectral_density(bowl, np.zeros(2), grid=[2.0, 2.5, 3.0], width=0.1).value.round(3)
    array([1.995, 0.   , 1.995])
    """
    x = np.atleast_1d(finite_array("grid", grid))
    w = float(positive("width", width))
    return _quadrature(problem, params, operator, samples, depth, seed, _density, x, w)


def _log_determinant(
    nodes: Float[Array, "n k"], weights: Float[Array, "n k"], cut: Any
) -> LogDeterminant:
    size = jnp.abs(nodes)
    null = size <= cut * jnp.max(size)
    logarithms = jnp.where(null, 0.0, jnp.log(jnp.where(null, 1.0, size)))
    parts = (logarithms, null, (nodes < 0) & ~null)
    sums = [_over_rows(jnp.sum(weights * part, axis=1)) for part in parts]
    return LogDeterminant(*(number for found in sums for number in found[:2]))


def _density(
    nodes: Float[Array, "n k"], weights: Float[Array, "n k"], grid: Any, width: Any
) -> Estimate:
    shares = weights / jnp.sum(weights, axis=1, keepdims=True)

    def at(point: Float[Array, ""]) -> Estimate:
        bumps = jnp.exp(-0.5 * ((point - nodes) / width) ** 2) / (_SQUARE_ROOT_2_PI * width)
        return _over_rows(jnp.sum(shares * bumps, axis=1))

    return jax.lax.map(at, jnp.asarray(grid, nodes.dtype))


def _quadrature(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt,
    samples: int | None,
    depth: int,
    seed: Any,
    read: Callable[..., PyTree],
    *settings: Any,
) -> PyTree:
    """`read(nodes, weights, *settings)`, one row for each random vector or one of all eigenvalues.

    Each row of weights adds up to d.
    """
    size = rows_of(operator, problem, params)
    number, steps = sample_count(samples, problem, size, _SAMPLES), min(count("depth", depth), size)
    ask = (number, steps, random_key(seed), read, settings)
    return in_double_precision(
        _read_quadrature, problem, floating(problem.parameters(params)), operator, *ask
    )


def _read_quadrature(
    problem: Problem,
    params: PyTree,
    operator: OperatorAt,
    number: int | None,
    steps: int,
    key: PRNGKeyArray,
    read: Callable[..., PyTree],
    settings: tuple,
) -> PyTree:
    of = operator(problem, params)
    like = jnp.zeros(of.dimension, jnp.result_type(*jax.tree.leaves(params)))
    if number is None:
        nodes = jnp.linalg.eigvalsh(dense(of, like))[None]
        return read(nodes, jnp.ones_like(nodes), *settings)
    nodes, weights = over_probes(lambda v: lanczos(of, v, steps)[:2], like, number, key)
    return read(nodes, of.dimension * weights, *settings)


def _over_rows(values: Float[Array, " n"]) -> Estimate:
    if len(values) == 1:  # all eigenvalues: exact
        return exact(values[0])
    return sample_mean(values)
