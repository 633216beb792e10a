"""Flatness of a minimum as widths, volumes, and means over a tube around a set of minima."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from scipy.special import gammaln

from statsgd.arguments import (
    count,
    finite_array,
    is_traced,
    kinds_checked,
    non_negative,
    positive,
    real,
)
from statsgd.estimate import Estimate, sample_mean
from statsgd.measures.curvature.operators import dense, hessian_operator
from statsgd.measures.curvature.probes import chunked_map, random_key
from statsgd.precision import in_double_precision
from statsgd.problems import DENSE_LIMIT, Problem
from statsgd.problems.parameters import floating

_BISECTIONS, _RAYS_AT_ONCE = 50, 64


class FlatnessWidth(NamedTuple):
    """How far the loss stays low along directions, `(k,)` each; infinite where it always does."""

    width: Any
    """F = right + left."""
    left: Any
    right: Any


@kinds_checked
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

    >>> import numpy as np
    >>> from statsgd.problems import landscape
    >>> bowl = landscape(lambda x: 1.0 + 0.5 * x @ np.diag([4.0, 1.0]) @ x, np.zeros(2))
    >>> flatness_width(bowl, np.zeros(2), np.eye(2)).width.round(2)
    array([1.85, 3.71])
    """
    if not callable(directions):
        directions = np.asarray(finite_array("directions", directions, ndim=2), dtype=np.float64)
        if directions.shape[1] != problem.dimension:
            raise ValueError(
                f"directions must have {problem.dimension} columns, got shape {directions.shape}"
            )
    factor = np.exp(positive("rise", rise))
    looks = _looks(step, furthest)
    found, here = in_double_precision(
        _widths, problem, floating(problem.parameters(params)), directions, factor, looks
    )
    if not is_traced(here) and not here > 0:
        raise ValueError(f"the loss at params must be positive, got {here:.6g}")
    return found


def _widths(
    problem: Problem, params: PyTree, directions: Any, factor: Any, looks: Float[Any, " m"]
) -> tuple[FlatnessWidth, Float[Array, ""]]:
    """The widths, and the loss in the middle."""
    flat, here = problem.flatten(params), problem.loss(params)
    rows = directions(params) if callable(directions) else directions
    along = jnp.asarray(rows, flat.dtype)
    both = jnp.concatenate([along, -along])
    right, left = jnp.split(_distances(problem, flat, both, factor * here, looks), 2)
    left, right = (jnp.where(here > 0, side, jnp.nan) for side in (left, right))
    return FlatnessWidth(left + right, left, right), here


@kinds_checked
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

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> volume = basin_volume(quadratic(np.eye(2)), np.zeros(2), 0.5)  # a disc of radius 1
    >>> round(float(np.exp(volume.value)), 3)
    3.142
    """
    height = positive("rise", rise)
    pairs = count("directions", directions, at_least=4) // 2
    d = problem.dimension
    root = None if shape is None else np.asarray(finite_array("shape", shape, ndim=2))
    if root is not None and root.shape != (d, d):
        raise ValueError(f"shape must be a ({d}, {d}) matrix, got shape {root.shape}")
    ask = (height, pairs, root, _looks(step, furthest), random_key(seed))
    return in_double_precision(_log_volume, problem, floating(problem.parameters(params)), *ask)


def _log_volume(
    problem: Problem,
    params: PyTree,
    height: Any,
    pairs: int,
    root: Float[Any, "d d"] | None,
    looks: Float[Any, " m"],
    key: PRNGKeyArray,
) -> Estimate:
    flat, d = problem.flatten(params), problem.dimension
    normal = jax.random.normal(key, (pairs, d), flat.dtype)
    rays = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
    log_ball = d / 2 * np.log(np.pi) - gammaln(d / 2 + 1)
    if root is not None:
        rays, log_ball = rays @ root.T, log_ball + jnp.linalg.slogdet(root)[1]
    rays = rays.astype(flat.dtype)
    both = jnp.concatenate([rays, -rays])
    logs = d * jnp.log(_distances(problem, flat, both, problem.loss(params) + height, looks))
    top = jnp.max(logs)
    found = sample_mean(jnp.mean(jnp.exp(logs - top).reshape(2, pairs), axis=0))
    relative = found.standard_error / found.value
    return Estimate(log_ball + top + jnp.log(found.value), relative, found.clusters)


@kinds_checked
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

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> bowl = quadratic(np.diag([4.0, 4.0]))
    >>> round(float(tube_mean(bowl, np.zeros(2), 0.5, 0.1, normals=np.eye(2)).value), 4)  # h^(−α)
    0.5
    """
    alpha = real("exponent", exponent, allowed="finite", valid=np.isfinite)
    delta = float(non_negative("distance", distance))
    pairs = count("samples", samples, at_least=4) // 2
    space = _normal_space(problem, normals, codimension)
    # Products and differences are two programs: only a distance that is not zero is traced.
    ask = (space, alpha, delta or None, pairs, random_key(seed))
    found = in_double_precision(_tube_mean, problem, floating(problem.parameters(params)), *ask)
    if not is_traced(found) and not np.isfinite(found.value):
        raise ValueError(
            "params must be a minimum across the set, got a loss that does not rise along a normal"
        )
    return found


def _tube_mean(
    problem: Problem,
    params: PyTree,
    space: Any,
    alpha: Any,
    delta: Any,
    pairs: int,
    key: PRNGKeyArray,
) -> Estimate:
    flat, here = problem.flatten(params), problem.loss(params)
    hessian = hessian_operator(problem, params)
    if isinstance(space, int):
        rows = jnp.linalg.eigh(dense(hessian, flat))[1][:, -space:].T
    else:
        rows = space(params) if callable(space) else space
    basis = jnp.asarray(rows, flat.dtype)
    normal = jax.random.normal(key, (pairs, len(basis)), flat.dtype)
    rays = normal / jnp.linalg.norm(normal, axis=1, keepdims=True) @ basis

    def power(ray: Float[Array, " d"]) -> Float[Array, ""]:
        if delta is None:
            curvature = (ray @ hessian.product(ray))[None]
        else:
            ends = [problem.loss(problem.unflatten(flat + s * delta * ray)) for s in (1, -1)]
            curvature = 2 * (jnp.stack(ends) - here) / delta**2
        return jnp.mean(jnp.where(curvature > 0, curvature, jnp.nan) ** -alpha)

    return sample_mean(chunked_map(power, rays, _RAYS_AT_ONCE))


def _normal_space(problem: Problem, normals: Any, codimension: int | None) -> Any:
    """Rows, a function of params that gives them, or the number of sharpest eigenvectors."""
    if (normals is None) == (codimension is None):
        raise ValueError(
            f"exactly one of normals and codimension must be given, got normals={normals!r} and "
            f"codimension={codimension!r}"
        )
    if normals is None:
        q, d = count("codimension", codimension), problem.dimension
        if q > d or d > DENSE_LIMIT:
            raise ValueError(f"codimension must be at most d = {d} ≤ {DENSE_LIMIT}, got {q}")
        return q
    if callable(normals):
        return normals
    rows = np.asarray(finite_array("normals", normals, ndim=2), dtype=np.float64)
    if not np.allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-6):
        raise ValueError("normals must be orthonormal rows, got rows that are not")
    return rows


def _looks(step: float, furthest: float) -> Float[np.ndarray, " m"]:
    """Distances at which to look first: doubling from `step` to at least `furthest`."""
    shortest, longest = float(positive("step", step)), float(positive("furthest", furthest))
    return shortest * 2.0 ** np.arange(max(int(np.ceil(np.log2(longest / shortest))), 0) + 1)


def _distances(
    problem: Problem,
    flat: Float[Array, " d"],
    rays: Float[Array, "n d"],
    target: Any,
    looks: Float[Any, " m"],
) -> Float[Array, " n"]:
    """Where along each ray from `flat` the loss first reaches `target`; infinite beyond the last
    look."""

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
