"""Gradient noise of large problems: its leading directions, and its alignment with curvature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from statsgd.arguments import count
from statsgd.dynamics.noise import GradientNoise, Minibatch
from statsgd.dynamics.noise.minibatch import all_examples, centred_example_gradients
from statsgd.measures.evaluation import (
    PROBES_AT_ONCE,
    chunked_map,
    evaluate,
    flat_point,
    sample_mean,
)
from statsgd.measures.operators import OperatorAt, dense, hessian_operator, noise_operator
from statsgd.measures.spectrum import over_probes, top_eigenpairs
from statsgd.problems import DENSE_LIMIT, Problem

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
    """
    k = count("number", number)
    noise.check(problem)
    d = problem.dimension
    if k > d:
        raise ValueError(f"number must be at most the {d} rows of the covariance, got {k}")
    if d > DENSE_LIMIT and not isinstance(noise, Minibatch):
        raise ValueError(
            f"noise must be Minibatch above d = {DENSE_LIMIT}, got {type(noise).__name__} and "
            f"d = {d}"
        )
    rows = _examples(problem) if isinstance(noise, Minibatch) else 0
    gram = depth is None and k <= rows <= min(d, DENSE_LIMIT) and rows * d <= _GRAM_LIMIT

    def leading(flat: Float[Array, " d"]) -> LowRankNoise:
        at = problem.unflatten(flat)
        trace = _trace(problem, at, noise)
        if gram and isinstance(noise, Minibatch):
            gradients = centred_example_gradients(problem, at)
            inner, left = jnp.linalg.eigh(gradients @ gradients.T)
            inner, left = jnp.clip(inner[::-1][:k], 0), left[:, ::-1][:, :k]
            # Centred gradients are dependent: a null pair has no direction.
            length = jnp.where(inner > 0, jnp.sqrt(inner), jnp.inf)
            vectors = left.T @ gradients / length[:, None]
            values = noise.variance_factor(problem) / rows * inner
        else:
            values, vectors, _ = top_eigenpairs(
                problem, at, k, noise_operator(noise), depth=depth, seed=seed
            )
        return LowRankNoise(values, vectors, trace, jnp.sum(values) / trace)

    return evaluate(leading, flat_point(problem, params))


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

    Exact up to d = `problems.DENSE_LIMIT` unless `samples` are asked for. Otherwise means of
    (Hv)·(Cv), vᵀHv and vᵀCv over the same random signs v, from products alone; the ratio's standard
    error is to first order. For small problems see also `isotropic_ratio`.

    **Arguments:** `operator`, the matrix in the place of H, such as a Gauss–Newton matrix. Raises
    as `noise_operator`.

    Source: Zhu et al. (2019), arXiv:1803.00195.
    """
    noise.check(problem)
    d = problem.dimension
    exact = samples is None and d <= DENSE_LIMIT
    number = _SAMPLES if samples is None else count("samples", samples, at_least=2)

    def align(flat: Float[Array, " d"]) -> NoiseAlignment:
        at = problem.unflatten(flat)
        h, c = operator(problem, at), noise_operator(noise)(problem, at)
        if exact:
            hessian, covariance = dense(h, flat), dense(c, flat)
            product = jnp.sum(hessian * covariance)
            traces = jnp.trace(hessian), jnp.trace(covariance)
            zero = jnp.zeros_like(product)
            ratio = d * product / (traces[0] * traces[1])
            return NoiseAlignment(product, zero, ratio, zero, traces[0], zero, traces[1], zero)

        def forms(v: Float[Array, " d"]) -> tuple[Any, Any, Any]:
            curved, noisy = h.product(v), c.product(v)
            return curved @ noisy, v @ curved, v @ noisy

        product, curvature, strength = over_probes(forms, h, flat, number, seed)
        forms_mean = [jnp.mean(form) for form in (product, curvature, strength)]
        ratio = d * forms_mean[0] / (forms_mean[1] * forms_mean[2])
        relative = product / forms_mean[0] - curvature / forms_mean[1] - strength / forms_mean[2]
        error = jnp.abs(ratio) * sample_mean(relative).standard_error
        return NoiseAlignment(
            *sample_mean(product),
            ratio,
            error,
            *sample_mean(curvature),
            *sample_mean(strength),
        )

    return evaluate(align, flat_point(problem, params))


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
    """
    noise.check(problem)
    d = problem.dimension
    exact = samples is None and d <= DENSE_LIMIT
    number = _SAMPLES if samples is None else count("samples", samples, at_least=2)

    def align(flat: Float[Array, " d"]) -> LeadingAlignment:
        at = problem.unflatten(flat)
        h, c = operator(problem, at), noise_operator(noise)(problem, at)
        pair = top_eigenpairs(problem, at, 1, operator, depth=depth, seed=seed)
        sharpest, direction = pair.values[0], pair.vectors[0]
        along = direction @ c.product(direction)
        if exact:
            curvature = jnp.trace(dense(h, flat))[None]
            strength = jnp.trace(dense(c, flat))[None]
        else:
            curvature, strength = over_probes(
                lambda v: (v @ h.product(v), v @ c.product(v)), h, flat, number, seed
            )
        means = jnp.mean(curvature), jnp.mean(strength)
        coefficient = along * means[0] / (sharpest * means[1])
        bound = along * d * sharpest / (means[0] * means[1])
        errors = [jnp.zeros_like(along)] * 2
        if not exact:
            relative = curvature / means[0], strength / means[1]
            errors = [
                jnp.abs(value) * sample_mean(relative[0] + sign * relative[1]).standard_error
                for value, sign in ((coefficient, -1), (bound, 1))
            ]
        return LeadingAlignment(coefficient, errors[0], bound, errors[1], sharpest, along)

    return evaluate(align, flat_point(problem, params))


def _examples(problem: Any) -> int:
    return jax.tree.leaves(jax.eval_shape(lambda: all_examples(problem)))[0].shape[0]


def _trace(problem: Any, params: PyTree, noise: GradientNoise) -> Float[Any, ""]:
    """Tr C from every example's gradient, a few at a time, or from the matrix."""
    if not isinstance(noise, Minibatch):
        return jnp.trace(noise.covariance(problem, params))
    examples = all_examples(problem)

    def square(example: PyTree) -> Float[Any, ""]:
        gradient = problem.flatten(jax.grad(problem.example_loss)(params, example))
        return gradient @ gradient

    squares = chunked_map(square, examples, PROBES_AT_ONCE)
    mean = problem.flatten(jax.grad(problem.batch_loss)(params, examples))
    return noise.variance_factor(problem) * (jnp.mean(squares) - mean @ mean)
