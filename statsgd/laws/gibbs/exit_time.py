"""How long SGD stays in a region: mean exit times from intervals, balls and boxes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.interpolate import RectBivariateSpline
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from statsgd.arguments import count, finite_array, kinds_checked, non_negative, positive
from statsgd.laws.bases.nested import (
    LogIntegral,
    log_integral,
    log_nested_integral,
)
from statsgd.laws.gibbs.drift_potential import DriftPotential, diffusion_on_line
from statsgd.laws.gibbs.escape import OVERSHOOT
from statsgd.laws.law import require_accurate
from statsgd.precision import over_points
from statsgd.problems import Problem

_LOOKED_AT = 8001


@kinds_checked
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

    With ψ' = L'/D and Sc(x, y) = ∫_x^y e^ψ,

        T = [Sc(start, high) ∫_low^start Sc(low, y) m(y) dy
             + Sc(low, start) ∫_start^high Sc(y, high) m(y) dy]/Sc(low, high),   m = e^(−ψ)/D

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

    >>> from statsgd.problems import quartic_wells
    >>> round(mean_exit_time_1d(quartic_wells(), 0.05, start=-1.0, low=-3.0, high=0.0))
    362
    """
    spread = diffusion_on_line(diffusion)
    if not low < start < high:
        raise ValueError(f"start must lie between low and high, got {start} for ({low}, {high})")
    if learning_rate is not None:
        eta = positive("learning_rate", learning_rate)
        shifts = OVERSHOOT * np.sqrt(2 * eta * spread(np.array([low, high], dtype=float)))
        low, high = low - float(shifts[0]), high + float(shifts[1])
    x = np.linspace(low, high, _LOOKED_AT)
    d = spread(x)
    if not np.min(d) > 1e-12 * np.max(d):
        raise ValueError(
            f"mean exit time infinite or ill-posed: D = 0 at {x[int(np.argmin(d))]:.6g}"
        )
    psi = DriftPotential.of(problem, diffusion, low, high)

    def speed(place: np.ndarray) -> np.ndarray:
        return -psi(place) - np.log(spread(place))

    def mirrored(function: Callable, place: np.ndarray) -> np.ndarray:
        return function(-place)

    below, above = log_integral(psi, low, start), log_integral(psi, start, high)
    from_low = log_nested_integral(speed, psi, low, start)
    from_high = log_nested_integral(partial(mirrored, speed), partial(mirrored, psi), -high, -start)
    whole = np.logaddexp(below.value, above.value)
    parts = (from_low.value + above.value - whole, from_high.value + below.value - whole)
    error = max(part.error for part in (below, above)) + max(from_low.error, from_high.error)
    time = LogIntegral(float(np.logaddexp(*parts)), error)
    return time.number("mean exit time", 2 * psi.error)


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

    R²/(2nD) at h = 0. With `learning_rate` the radius grows by 0.5826√(2ηD). Source: classical.

    >>> round(mean_exit_time_ball(0.0, diffusion=0.1, radius=1.0, dimension=2), 4)  # R²/(2nD)
    2.5
    """
    h, d = float(non_negative("curvature", curvature)), float(positive("diffusion", diffusion))
    r, n = float(positive("radius", radius)), count("dimension", dimension)
    if learning_rate is not None:
        r += OVERSHOOT * float(np.sqrt(2 * positive("learning_rate", learning_rate) * d))
    if h == 0:
        return r**2 / (2 * n * d)

    # In the logarithm of the radius, where nothing is singular at the centre.
    def log_outer(log_radius: np.ndarray) -> np.ndarray:
        return (2 - n) * log_radius + h * np.exp(2 * log_radius) / (2 * d)

    def log_inner(log_radius: np.ndarray) -> np.ndarray:
        return n * log_radius - h * np.exp(2 * log_radius) / (2 * d) - np.log(d)

    end = float(np.log(r))
    start = min(end, float(np.log(d / h)) / 2) - 40
    return log_nested_integral(log_outer, log_inner, start, end).number("mean exit time")


@kinds_checked
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
    corners `(2,)`; `points` of the grid in each direction. Half as many tell the error: warns
    (`UnresolvedWarning`) where it is above 10⁻³ and raises `IntractableError` above a tenth. Raises
    `ValueError` where no noise crosses the boundary (n·Dn = 0 on an edge).

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> bowl, ends = quadratic(np.eye(2)), np.ones(2)
    >>> round(mean_exit_time_box(bowl, lambda x: 0.5 * jnp.eye(2), [0.0, 0.0], -ends, ends), 3)
    0.815
    """
    if problem.dimension != 2:
        raise ValueError(f"problem must have two parameters, got d = {problem.dimension}")
    lower, upper, place = (
        np.asarray(finite_array(name, value, ndim=1), dtype=np.float64)
        for name, value in (("low", low), ("high", high), ("start", start))
    )
    if not (np.all(lower < place) and np.all(place < upper)):
        raise ValueError(f"start must lie inside the box, got {start} for {low} to {high}")
    n = count("points", points, at_least=9)
    box = (problem, diffusion, place, lower, upper)
    coarse, fine = _time_in_box(*box, (n + 1) // 2), _time_in_box(*box, n)
    # Of second order: half as many cells are off by four times as much.
    require_accurate("mean exit time", abs(fine - coarse) / (3 * abs(fine)))
    return fine


def _time_in_box(
    problem: Problem, diffusion: Callable, place: Any, lower: Any, upper: Any, n: int
) -> float:
    axes = [np.linspace(lower[i], upper[i], n) for i in range(2)]
    steps = (upper - lower) / (n - 1)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    slope, d = over_points(_coefficients, grid, problem, diffusion)
    for axis in range(2):
        for edge in (0, -1):
            if np.max(np.take(d[..., axis, axis], edge, axis=axis)) <= 0:
                raise ValueError(
                    "mean exit time infinite or ill-posed: n·Dn = 0 on the boundary along axis "
                    f"{axis}"
                )
    times = _solve_exit_problem(slope, d, steps, n)
    return float(RectBivariateSpline(*axes, times)(*place)[0, 0])


def _coefficients(
    params: Float[Any, " 2"], problem: Problem, diffusion: Callable
) -> tuple[Any, Any]:
    slope = jax.grad(lambda vector: problem.loss(problem.unflatten(vector)))
    return slope(params), jnp.asarray(diffusion(params))


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
