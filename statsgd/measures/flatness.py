"""Flatness of a minimum as widths, volumes, and means over a tube around a set of minima."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from scipy.special import gammaln

from statsgd.arguments import count, finite_array, is_traced, non_negative, positive, real
from statsgd.measures.evaluation import (
    Estimate,
    chunked_map,
    evaluate,
    flat_point,
    random_key,
    sample_mean,
)
from statsgd.measures.operators import dense, hessian_operator
from statsgd.problems import DENSE_LIMIT, Problem

_BISECTIONS, _RAYS_AT_ONCE = 50, 64


class FlatnessWidth(NamedTuple):
    """How far the loss stays low along directions, `(k,)` each; infinite where it always does."""

    width: Any
    """F = right + left."""
    left: Any
    right: Any


def flatness_width(
    problem: Problem,
    params: PyTree,
    directions: Any,
    *,
    rise: float = 1.0,
    step: float = 1e-3,
    furthest: float = 1e3,
) -> FlatnessWidth:
    """F = θ_r − θ_l, between the points on either side where ln L has risen by `rise`.

    On a quadratic of curvature h along the direction, above a loss L₀ at its minimum,
    F = 2√(2(e−1)L₀/h). See `laws.networks.log_loss_flatness`.

    **Arguments:** `directions`, `(k, d)` or a function `params -> (k, d)`, one a row, of unit
    length for widths in the unit of params: in the source the principal directions of the weights'
    own motion; `lambda params: top_eigenpairs(problem, params, k).vectors` for the Hessian's;
    `step`, the distance of the first look, which doubles until the loss is high, up to `furthest`:
    a barrier narrower than that can be missed.

    Raises `ValueError` where the loss is not positive (the logarithm has no value there); traced,
    the widths are NaN.

    Source: Feng, Tu (2021), arXiv:2001.01678.
    """
    if not callable(directions):
        rows = np.asarray(finite_array("directions", directions, ndim=2), dtype=np.float64)
        if rows.shape[1] != problem.dimension:
            raise ValueError(
                f"directions must have {problem.dimension} columns, got shape {rows.shape}"
            )
    factor = float(np.exp(positive("rise", rise)))
    shortest, longest = float(positive("step", step)), float(positive("furthest", furthest))

    def widths(flat: Float[Array, " d"]) -> tuple[Any, Any]:
        at = problem.unflatten(flat)
        here = problem.loss(at)
        along = jnp.asarray(directions(at) if callable(directions) else rows, flat.dtype)
        both = jnp.concatenate([along, -along])
        right, left = jnp.split(
            _distances(problem, flat, both, factor * here, shortest, longest), 2
        )
        left, right = (jnp.where(here > 0, side, jnp.nan) for side in (left, right))
        return FlatnessWidth(left + right, left, right), here

    found, here = evaluate(widths, flat_point(problem, params))
    if not is_traced(here) and not here > 0:
        raise ValueError(f"the loss at params must be positive, got {here:.6g}")
    return found


def basin_volume(
    problem: Problem,
    params: PyTree,
    rise: float,
    *,
    directions: int = 1000,
    shape: Float[Any, "d d"] | None = None,
    step: float = 1e-3,
    furthest: float = 1e3,
    seed: Any = 0,
) -> Estimate:
    """Logarithm of the volume of {L < L(θ) + `rise`} that is in sight of θ.

    V = |ball| · |det R| · E r(u)^d over random unit vectors u, with r(u) the distance at which the
    loss has risen along R u; ½ log of (2 rise)^d/det H plus that of the unit ball for a quadratic.

    **Arguments:** `directions`, half of them the negatives of the others; `shape` R, the identity
    by default; `step` and `furthest` as in `flatness_width`, in units of R. With R = H^(−1/2) a
    quadratic is exact. With R = I few directions carry the mean where d is large or H is
    ill-conditioned: then the standard error, to first order in the volume's relative error, is too
    small. Infinite where a direction never rises.

    Raises `ValueError` unless `rise` is positive and there are at least 4 directions.
    """
    height = float(positive("rise", rise))
    pairs = count("directions", directions, at_least=4) // 2
    shortest, longest = float(positive("step", step)), float(positive("furthest", furthest))
    d = problem.dimension
    root = np.eye(d) if shape is None else np.asarray(finite_array("shape", shape, ndim=2))
    if root.shape != (d, d):
        raise ValueError(f"shape must be a ({d}, {d}) matrix, got shape {root.shape}")
    log_ball = d / 2 * np.log(np.pi) - gammaln(d / 2 + 1) + np.linalg.slogdet(root)[1]

    def log_volume(flat: Float[Array, " d"]) -> Estimate:
        target = problem.loss(problem.unflatten(flat)) + height
        normal = jax.random.normal(random_key(seed), (pairs, d), flat.dtype)
        unit = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
        rays = (unit if shape is None else unit @ jnp.asarray(root).T).astype(flat.dtype)
        both = jnp.concatenate([rays, -rays])
        logs = d * jnp.log(_distances(problem, flat, both, target, shortest, longest))
        top = jnp.max(logs)
        weights = jnp.exp(logs - top).reshape(2, pairs)
        mean, error = sample_mean(jnp.mean(weights, axis=0))
        return Estimate(log_ball + top + jnp.log(mean), error / mean)

    return evaluate(log_volume, flat_point(problem, params))


def tube_mean(
    problem: Problem,
    params: PyTree,
    exponent: float,
    distance: float,
    *,
    normals: Any = None,
    codimension: int | None = None,
    samples: int = 1000,
    seed: Any = 0,
) -> Estimate:
    """A_α: mean over unit normals ν of (2[L(θ + δν) − L(θ)]/δ²)^(−α), at δ = `distance`.

    At δ → 0 it is the mean of (νᵀHν)^(−α), the weight L^(−α) gives a point of a set of minima on
    condition of a distance tube around the set; `laws.loss_noise.flatness_weight` gives that limit
    from eigenvalues, and `distance=0` estimates it from products with H. θ is a point of the set:
    `over_endpoints` averages over a sample of it.

    **Arguments:** the normal space of the set at θ, as `normals`, `(q, d)` orthonormal rows or a
    function `params -> (q, d)`, where the set is known, or as `codimension` q, for the span of the
    q sharpest eigenvectors of the Hessian there; `samples`, half of them the negatives of the
    others.

    Raises `ValueError` unless exactly one of `normals` and `codimension` is given, for d above
    `problems.DENSE_LIMIT` with `codimension`, and where the loss falls along a normal: θ is no
    minimum then (traced: NaN).
    """
    alpha = float(real("exponent", exponent, allowed="finite", valid=np.isfinite))
    delta = float(non_negative("distance", distance))
    pairs = count("samples", samples, at_least=4) // 2
    basis_at = _normal_space(problem, normals, codimension)

    def mean(flat: Float[Array, " d"]) -> Estimate:
        at = problem.unflatten(flat)
        here, hessian = problem.loss(at), hessian_operator(problem, at)
        basis = jnp.asarray(basis_at(at), flat.dtype)
        normal = jax.random.normal(random_key(seed), (pairs, len(basis)), flat.dtype)
        rays = normal / jnp.linalg.norm(normal, axis=1, keepdims=True) @ basis

        def power(ray: Float[Array, " d"]) -> Float[Array, ""]:
            if delta == 0:
                curvature = (ray @ hessian.product(ray))[None]
            else:
                ends = [problem.loss(problem.unflatten(flat + s * delta * ray)) for s in (1, -1)]
                curvature = 2 * (jnp.stack(ends) - here) / delta**2
            positive_part = jnp.where(curvature > 0, curvature, jnp.nan)
            return jnp.mean(positive_part**-alpha)

        return sample_mean(chunked_map(power, rays, _RAYS_AT_ONCE))

    found = evaluate(mean, flat_point(problem, params))
    if not is_traced(found) and not np.isfinite(found.value):
        raise ValueError(
            "params must be a minimum across the set, got a loss that does not rise along a normal"
        )
    return found


def _normal_space(
    problem: Problem, normals: Any, codimension: int | None
) -> Callable[[PyTree], Float[Any, "q d"]]:
    if (normals is None) == (codimension is None):
        raise ValueError(
            f"exactly one of normals and codimension must be given, got normals={normals!r} and "
            f"codimension={codimension!r}"
        )
    if callable(normals):
        return normals
    if normals is not None:
        rows = np.asarray(finite_array("normals", normals, ndim=2), dtype=np.float64)
        if not np.allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-6):
            raise ValueError("normals must be orthonormal rows, got rows that are not")
        return lambda _: rows
    q, d = count("codimension", codimension), problem.dimension
    if q > d or d > DENSE_LIMIT:
        raise ValueError(f"codimension must be at most d = {d} ≤ {DENSE_LIMIT}, got {q}")

    def sharpest(params: PyTree) -> Float[Any, "q d"]:
        matrix = dense(hessian_operator(problem, params), problem.flatten(params))
        return jnp.linalg.eigh(matrix)[1][:, -q:].T

    return sharpest


def _distances(
    problem: Problem,
    flat: Float[Array, " d"],
    rays: Float[Array, "n d"],
    target: Any,
    step: float,
    furthest: float,
) -> Float[Array, " n"]:
    """Where along each ray from `flat` the loss first reaches `target`; infinite beyond the last
    look."""
    looks = step * 2.0 ** np.arange(max(int(np.ceil(np.log2(furthest / step))), 0) + 1)

    def distance(ray: Float[Array, " d"]) -> Float[Array, ""]:
        def low(t: Any) -> Any:
            # A loss that is not a number is beyond the wall.
            return problem.loss(problem.unflatten(flat + t * ray)) < target

        ladder = jnp.asarray(looks, flat.dtype)
        high = ~jax.lax.map(low, ladder)
        first = jnp.argmax(high)
        inner = jnp.where(first > 0, ladder[first - 1], 0.0)

        def halve(_: Any, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
            a, b = bracket
            middle = (a + b) / 2
            below = low(middle)
            return jnp.where(below, middle, a), jnp.where(below, b, middle)

        a, b = jax.lax.fori_loop(0, _BISECTIONS, halve, (inner, ladder[first]))
        return jnp.where(jnp.any(high), (a + b) / 2, jnp.inf)

    return chunked_map(distance, rays, _RAYS_AT_ONCE)
