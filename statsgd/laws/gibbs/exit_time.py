"""How long SGD stays in a region: mean exit times from intervals, balls and boxes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import cumulative_simpson, quad
from scipy.interpolate import RectBivariateSpline
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.special import expi

from statsgd.arguments import count, finite_array, non_negative, positive
from statsgd.laws.gibbs.escape import OVERSHOOT, derivatives_on_line, diffusion_on_line
from statsgd.problems import Problem

_POINTS = 8001


def mean_exit_time_1d(
    problem: Problem,
    diffusion: Any,
    start: float,
    low: float,
    high: float,
    *,
    learning_rate: Any = None,
) -> float:
    """Mean time t = ηk at which dθ = −L'dt + √(2D)dW leaves (low, high), one parameter.

    With ψ' = L'/D, Sc(x) = ∫e^ψ and M(y) = ∫_low^y e^(−ψ)/D,

        T = (Sc(start)/Sc(high)) ∫_low^high e^ψ M − ∫_low^start e^ψ M

    **Arguments:** `diffusion`, a number or a function of params giving D = ηC/2; multiplicative
    noise changes the time by factors. With `learning_rate` η both ends move outward by
    0.5826√(2ηD), the overshoot of the discrete chain: 1–2 % for steps below 0.15 of the width, if
    ηh ≪ 1 too. The shift leaves out that a chain in a well is hotter by ηh/2, relatively, which
    counts in the exponent of a barrier: ηh = 0.1, ends ±0.7 and D = 0.1 give 119.9 steps against
    102.2 of the chain.
    Raises `ValueError` unless low < start < high, and where D vanishes: the exit is then
    ill-posed.

    Source: classical; Barbieri, Bonforte, Ibarrondo (2025), arXiv:2501.08425, for SGD; the
    boundary shift is derived.
    """
    spread = diffusion_on_line(diffusion)
    if not low < start < high:
        raise ValueError(f"start must lie between low and high, got {start} for ({low}, {high})")
    if learning_rate is not None:
        eta = positive("learning_rate", learning_rate)
        shifts = OVERSHOOT * np.sqrt(2 * eta * spread(np.array([low, high], dtype=float)))
        low, high = low - float(shifts[0]), high + float(shifts[1])
    x = np.linspace(low, high, _POINTS)
    d = spread(x)
    if not np.min(d) > 1e-12 * np.max(d):
        raise ValueError(
            f"mean exit time infinite or ill-posed: D = 0 at {x[int(np.argmin(d))]:.6g}"
        )
    psi = cumulative_simpson(derivatives_on_line(problem, x)[1] / d, x=x, initial=0.0)
    speed = cumulative_simpson(np.exp(np.min(psi) - psi) / d, x=x, initial=0.0)
    outer = np.exp(psi - np.max(psi))
    scale = cumulative_simpson(outer, x=x, initial=0.0)
    held = cumulative_simpson(outer * speed, x=x, initial=0.0)
    times = np.exp(np.max(psi) - np.min(psi)) * (scale / scale[-1] * held[-1] - held)
    return float(np.interp(start, x, times))


def mean_exit_time_ball(
    curvature: Any,
    diffusion: Any,
    radius: Any,
    dimension: int,
    *,
    learning_rate: Any = None,
) -> float:
    """Mean time to leave a ball about the minimum of h|θ|²/2 with D = `diffusion` I, from there.

        T = (1/D) ∫₀^R r^(1−n) e^(hr²/2D) ∫₀^r y^(n−1) e^(−hy²/2D) dy dr

    (Ei(z) − log z − γ)/(2h) with z = hR²/2D in two dimensions, R²/(2nD) at h = 0. With
    `learning_rate` the radius grows by 0.5826√(2ηD). Source: classical.
    """
    h, d = float(non_negative("curvature", curvature)), float(positive("diffusion", diffusion))
    r, n = float(positive("radius", radius)), count("dimension", dimension)
    if learning_rate is not None:
        r += OVERSHOOT * float(np.sqrt(2 * positive("learning_rate", learning_rate) * d))
    if h == 0:
        return r**2 / (2 * n * d)
    if n == 2:
        z = h * r**2 / (2 * d)
        return float((expi(z) - np.log(z) - np.euler_gamma) / (2 * h))

    def inner(outer_radius: float) -> float:
        # y = r u: r^(1−n) cancels, and nothing is singular at the centre.
        value = quad(
            lambda u: u ** (n - 1) * np.exp(h * outer_radius**2 * (1 - u**2) / (2 * d)), 0, 1
        )
        return outer_radius * value[0]

    return float(quad(inner, 0, r)[0] / d)


def mean_exit_time_box(
    problem: Problem,
    diffusion: Callable[[Float[Any, " 2"]], Float[Any, "2 2"]],
    start: Any,
    low: Any,
    high: Any,
    *,
    points: int = 201,
) -> float:
    """Mean time to leave a box in two dimensions, by sparse finite differences of second order.

    Solves Σ D_ij ∂_ij T − ∇L·∇T = −1 with T = 0 on the boundary.

    **Arguments:** `diffusion`, a function of flat params giving D = ηC/2, `(2, 2)`; `low`, `high`,
    corners `(2,)`; `points` of the grid in each direction. Raises `ValueError` where no noise
    crosses the boundary (n·Dn = 0 on an edge).
    """
    if problem.dimension != 2:
        raise ValueError(f"problem must have two parameters, got d = {problem.dimension}")
    lower, upper, place = (
        np.asarray(finite_array(name, value, ndim=1), dtype=np.float64)
        for name, value in (("low", low), ("high", high), ("start", start))
    )
    if not (np.all(lower < place) and np.all(place < upper)):
        raise ValueError(f"start must lie inside the box, got {start} for {low} to {high}")
    n = count("points", points, at_least=5)
    axes = [np.linspace(lower[i], upper[i], n) for i in range(2)]
    steps = (upper - lower) / (n - 1)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    with jax.enable_x64(True):
        slope, d = (np.asarray(part) for part in _coefficients(problem, diffusion, grid))
    for axis in range(2):
        for edge in (0, -1):
            if np.max(np.take(d[..., axis, axis], edge, axis=axis)) <= 0:
                raise ValueError(
                    "mean exit time infinite or ill-posed: n·Dn = 0 on the boundary along axis "
                    f"{axis}"
                )
    times = _solve_exit_problem(slope, d, steps, n)
    return float(RectBivariateSpline(*axes, times)(*place)[0, 0])


@eqx.filter_jit
def _coefficients(problem: Problem, diffusion: Callable, grid: Any) -> tuple[Any, Any]:
    slope = jax.grad(lambda vector: problem.loss(problem.unflatten(vector)))
    return (
        jax.vmap(jax.vmap(slope))(grid),
        jax.vmap(jax.vmap(lambda vector: jnp.asarray(diffusion(vector))))(grid),
    )


def _solve_exit_problem(
    slope: np.ndarray, d: np.ndarray, steps: np.ndarray, n: int
) -> Float[Any, "n n"]:
    number = np.arange(n * n).reshape(n, n)
    inner = (slice(1, -1), slice(1, -1))
    rows, columns, values = [], [], []

    def add(shift: tuple[int, int], weight: np.ndarray) -> None:
        rows.append(number[inner].ravel())
        columns.append(np.roll(number, (-shift[0], -shift[1]), axis=(0, 1))[inner].ravel())
        values.append(weight[inner].ravel())

    centre = np.zeros((n, n))
    for axis in range(2):
        second = d[..., axis, axis] / steps[axis] ** 2
        first = slope[..., axis] / (2 * steps[axis])
        forward = (1, 0) if axis == 0 else (0, 1)
        add(forward, second - first)
        add((-forward[0], -forward[1]), second + first)
        centre -= 2 * second
    add((0, 0), centre)
    mixed = (d[..., 0, 1] + d[..., 1, 0]) / (4 * steps[0] * steps[1])
    for i in (1, -1):
        for j in (1, -1):
            add((i, j), i * j * mixed)
    boundary = np.ones((n, n), dtype=bool)
    boundary[inner] = False
    edge = number[boundary]
    rows.append(edge)
    columns.append(edge)
    values.append(np.ones(len(edge)))
    matrix = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    ).tocsr()
    source = np.where(boundary, 0.0, -1.0).ravel()
    return spsolve(matrix, source).reshape(n, n)
