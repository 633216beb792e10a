"""Gradient noise of large problems: its leading directions, and its alignment with curvature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, kinds_checked
from statsgd.dynamics.noise import GradientNoise, Minibatch
from statsgd.dynamics.noise.minibatch import all_examples, centred_example_gradients
from statsgd.estimate import sample_mean
from statsgd.measures.curvature.eigenpairs import top_eigenpairs
from statsgd.measures.curvature.operators import OperatorAt, dense, hessian_operator, noise_operator
from statsgd.measures.curvature.probes import (
    PROBES_AT_ONCE,
    chunked_map,
    over_probes,
    random_key,
)
from statsgd.measures.curvature.traces import sample_count
from statsgd.precision import in_double_precision
from statsgd.problems import DENSE_LIMIT, EmpiricalRisk, Problem
from statsgd.problems.parameters import floating
from statsgd.problems.sums import gradient_sum, mean_over_chunks, mean_over_examples
from statsgd.problems.weighted import squared_gradient

_GRAM_LIMIT = 2**25  # numbers in the matrix of example gradients
_SAMPLES = 64


class LowRankNoise(NamedTuple):
    """The leading part of C(θ), and how much of the noise it is."""

    values: Any
    """Largest eigenvalues first, `(k,)`."""
    vectors: Any
    """Unit eigenvectors, one a row, `(k, d)`."""
    trace: Any
    """Tr C, exact."""
    captured: Any
    """Σ values/Tr C, between 0 and 1."""


@kinds_checked
def low_rank_noise(
    problem: Problem,
    params: PyTree,
    noise: GradientNoise,
    number: int,
    *,
    depth: int | None = None,
    seed: Any = 0,
) -> LowRankNoise:
    """The `number` largest eigenpairs of C(θ), and the share of its trace they capture.

    For `Minibatch` noise of N examples from the N × N matrix of their gradients' products, which
    has the eigenvalues of Σ₁ and is cheap for N ≤ d, while the N × d gradients fit in memory
    (2²⁵ numbers). Otherwise from C itself, as `top_eigenpairs`, of which `depth` is an argument.

    Raises `ValueError` for more pairs than rows, and for other noise above
    d = `problems.DENSE_LIMIT`.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> found = low_rank_noise(problem, np.zeros(2), noise.Minibatch(1), 1)
    >>> round(float(found.values[0]), 4), round(float(found.captured), 4)
    (2.5, 1.0)
    """
    k = count("number", number)
    noise.check(problem)
    noise.require_variance()
    d = problem.dimension
    if k > d:
        raise ValueError(f"number must be at most the {d} rows of the covariance, got {k}")
    known = isinstance(noise, Minibatch) and noise.knows_examples(problem)
    if d > DENSE_LIMIT and not known:
        raise ValueError(
            f"noise must be Minibatch above d = {DENSE_LIMIT}, got {type(noise).__name__} and "
            f"d = {d}"
        )
    rows = _examples(problem) if known else 0
    gram = depth is None and k <= rows <= min(d, DENSE_LIMIT) and rows * d <= _GRAM_LIMIT

    ask = (noise, k, gram, depth, random_key(seed))
    return in_double_precision(_low_rank, problem, floating(problem.parameters(params)), *ask)


def _low_rank(
    problem: Any,
    params: PyTree,
    noise: Any,
    number: int,
    gram: bool,
    depth: int | None,
    key: PRNGKeyArray,
) -> LowRankNoise:
    trace = _trace(problem, params, noise)
    if gram:
        gradients = centred_example_gradients(problem, params)
        inner, left = jnp.linalg.eigh(gradients @ gradients.T)
        inner, left = jnp.clip(inner[::-1][:number], 0), left[:, ::-1][:, :number]
        # Centred gradients are dependent: a null pair has no direction.
        length = jnp.where(inner > 0, jnp.sqrt(inner), jnp.inf)
        vectors = left.T @ gradients / length[:, None]
        values = noise.variance_factor(problem) / len(gradients) * inner
    else:
        values, vectors, _ = top_eigenpairs(
            problem, params, number, noise_operator(noise), depth=depth, seed=key
        )
    return LowRankNoise(values, vectors, trace, jnp.sum(values) / trace)


class NoiseAlignment(NamedTuple):
    """How gradient noise is aligned with curvature; standard errors are 0 where it is exact."""

    product: Any
    """Tr(HC): the rate of loss gain per step is η² Tr(HC)/2."""
    product_standard_error: Any
    ratio: Any
    """d Tr(HC)/(Tr H Tr C): over that of isotropic noise of the same trace."""
    ratio_standard_error: Any
    curvature_trace: Any
    """Tr H."""
    curvature_trace_standard_error: Any
    noise_trace: Any
    """Tr C."""
    noise_trace_standard_error: Any


@kinds_checked
def noise_alignment(
    problem: Problem,
    params: PyTree,
    noise: GradientNoise,
    *,
    operator: OperatorAt = hessian_operator,
    samples: int | None = None,
    seed: Any = 0,
) -> NoiseAlignment:
    """Tr(HC), and its ratio to the value for isotropic noise of the same trace.

    Exact where matrices are formed, as in `trace`, unless `samples` are asked for. Else means of
    (Hv)·(Cv), vᵀHv and vᵀCv over the same random signs v, from products alone; the ratio's standard
    error is to first order. For small problems see also `isotropic_ratio`.

    **Arguments:** `operator`, the matrix in the place of H, such as a Gauss–Newton matrix. Raises
    as `noise_operator`.

    Source: Zhu et al. (2019), arXiv:1803.00195.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import quadratic
    >>> bowl = quadratic(np.diag([3.0, 1.0]))
    >>> found = noise_alignment(bowl, np.zeros(2), noise.HessianScaled(1.0))
    >>> float(found.product), float(found.ratio)
    (10.0, 1.25)
    """
    noise.check(problem)
    noise.require_variance()
    number = sample_count(samples, problem, problem.dimension, _SAMPLES)
    ask = (noise, operator, number, random_key(seed))
    return in_double_precision(_aligned, problem, floating(problem.parameters(params)), *ask)


def _aligned(
    problem: Problem,
    params: PyTree,
    noise: GradientNoise,
    operator: OperatorAt,
    number: int | None,
    key: PRNGKeyArray,
) -> NoiseAlignment:
    h, c = operator(problem, params), noise_operator(noise)(problem, params)
    like, d = problem.flatten(params), problem.dimension
    if number is None:
        hessian, covariance = dense(h, like), dense(c, like)
        product = jnp.sum(hessian * covariance)
        traces = jnp.trace(hessian), jnp.trace(covariance)
        zero = jnp.zeros_like(product)
        ratio = d * product / (traces[0] * traces[1])
        return NoiseAlignment(product, zero, ratio, zero, traces[0], zero, traces[1], zero)

    def forms(v: Float[Array, " d"]) -> Float[Array, "3"]:
        curved, noisy = h.product(v), c.product(v)
        return jnp.stack([curved @ noisy, v @ curved, v @ noisy])

    found = over_probes(forms, like, number, key)
    mean, error = sample_mean(found)[:2]
    ratio = d * mean[0] / (mean[1] * mean[2])
    relative = sample_mean(found @ (jnp.array([1, -1, -1]) / mean)).standard_error
    return NoiseAlignment(
        mean[0], error[0], ratio, jnp.abs(ratio) * relative, mean[1], error[1], mean[2], error[2]
    )


class LeadingAlignment(NamedTuple):
    """Noise along the sharpest direction; standard errors are 0 where the traces are exact."""

    coefficient: Any
    """â = u₁ᵀCu₁ Tr H/(h₁ Tr C): 1 for C ∝ H."""
    coefficient_standard_error: Any
    ratio_bound: Any
    """â d h₁²/(Tr H)², at most the ratio of `noise_alignment` where H ⪰ 0."""
    ratio_bound_standard_error: Any
    sharpest: Any
    """h₁."""
    noise_along: Any
    """u₁ᵀCu₁."""


@kinds_checked
def leading_alignment(
    problem: Problem,
    params: PyTree,
    noise: GradientNoise,
    *,
    operator: OperatorAt = hessian_operator,
    samples: int | None = None,
    depth: int | None = None,
    seed: Any = 0,
) -> LeadingAlignment:
    """`alignment_coefficient` and `isotropic_ratio_bound` from products alone, for any d.

    The sharpest direction as in `top_eigenpairs` (one of them where h₁ is repeated), of which
    `depth` is an argument; the traces as in `noise_alignment`. Raises as those.

    Source: Zhu et al. (2019), arXiv:1803.00195; the bound in this form is derived.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import quadratic
    >>> bowl = quadratic(np.diag([3.0, 1.0]))
    >>> found = leading_alignment(bowl, np.zeros(2), noise.HessianScaled(1.0))
    >>> round(float(found.coefficient), 4), round(float(found.ratio_bound), 4)
    (1.0, 1.125)
    """
    noise.check(problem)
    noise.require_variance()
    number = sample_count(samples, problem, problem.dimension, _SAMPLES)
    ask = (noise, operator, number, depth, random_key(seed))
    return in_double_precision(_leading, problem, floating(problem.parameters(params)), *ask)


def _leading(
    problem: Problem,
    params: PyTree,
    noise: GradientNoise,
    operator: OperatorAt,
    number: int | None,
    depth: int | None,
    key: PRNGKeyArray,
) -> LeadingAlignment:
    h, c = operator(problem, params), noise_operator(noise)(problem, params)
    like, d = problem.flatten(params), problem.dimension
    pair = top_eigenpairs(problem, params, 1, operator, depth=depth, seed=key)
    sharpest, direction = pair.values[0], pair.vectors[0]
    along = direction @ c.product(direction)
    if number is None:
        means = jnp.trace(dense(h, like)), jnp.trace(dense(c, like))
        errors = [jnp.zeros_like(along)] * 2
    else:
        curvature, strength = over_probes(
            lambda v: (v @ h.product(v), v @ c.product(v)), like, number, key
        )
        means = jnp.mean(curvature), jnp.mean(strength)
        relative = curvature / means[0], strength / means[1]
        errors = [sample_mean(relative[0] + sign * relative[1])[1] for sign in (-1, 1)]
    coefficient = along * means[0] / (sharpest * means[1])
    bound = along * d * sharpest / (means[0] * means[1])
    return LeadingAlignment(
        coefficient,
        jnp.abs(coefficient) * errors[0],
        bound,
        jnp.abs(bound) * errors[1],
        sharpest,
        along,
    )


def _examples(problem: Any) -> int:
    return jax.tree.leaves(jax.eval_shape(lambda: all_examples(problem)))[0].shape[0]


def _trace(problem: Any, params: PyTree, noise: GradientNoise) -> Float[Any, ""]:
    """Tr C from every example's gradient, a few at a time, or from the matrix."""
    if not (isinstance(noise, Minibatch) and noise.knows_examples(problem)):
        return jnp.trace(noise.covariance(problem, params))
    factor = noise.variance_factor(problem)
    if isinstance(problem, EmpiricalRisk):
        squares = mean_over_examples(problem, squared_gradient, params)
        mean = problem.flatten(mean_over_chunks(problem, gradient_sum, params))
        return factor * (squares - mean @ mean)
    examples = all_examples(problem)
    squares = chunked_map(
        lambda example: squared_gradient(problem, params, example), examples, PROBES_AT_ONCE
    )
    mean = problem.flatten(jax.grad(problem.batch_loss)(params, examples))
    return factor * (jnp.mean(squares) - mean @ mean)
