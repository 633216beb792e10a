"""How long SGD stays in a well: asymptotic escape times, and exact ones in one dimension."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy.integrate import cumulative_simpson

from statsgd.arguments import fraction, one_of, positive
from statsgd.precision import in_double_precision
from statsgd.problems import Problem, hessian

type DiffusionOnLine = Callable[[PyTree], Float[Any, ""]]

#: Mean overshoot of a Gaussian random walk over a level, in standard deviations of a step.
OVERSHOOT = 0.5826
_SEGMENT = 8001
_RISE = 45.0
_SHALLOW = 2.0


class Barrier(NamedTuple):
    """What escape formulas need to know of a minimum a and a saddle s."""

    height: float
    """ΔL = L(s) − L(a)."""
    unstable: float
    """|h_s|, the negative Hessian eigenvalue at the saddle, positive."""
    direction: Float[Any, " d"]
    """Its eigenvector."""
    prefactor: float
    """√(|det H_s|/det H_a)."""
    minimum: Float[Any, "d d"]
    saddle: Float[Any, "d d"]


def barrier(problem: Problem, minimum: PyTree, saddle: PyTree) -> Barrier:
    """Height and curvatures of the way from `minimum` over `saddle`, both params pytrees.

    Raises `ValueError` unless the Hessian is positive definite at the minimum, has exactly one
    negative eigenvalue at the saddle, and the saddle is higher.
    """
    below, above = (np.asarray(hessian(problem, point)) for point in (minimum, saddle))
    lows = np.linalg.eigvalsh(below)
    if lows[0] <= 0:
        raise ValueError(
            f"minimum must have a positive definite Hessian, got eigenvalue {lows[0]:.6g}"
        )
    values, vectors = np.linalg.eigh(above)
    negative = int(np.sum(values < 0))
    if negative != 1 or np.any(values == 0):
        raise ValueError(
            "saddle must have a Hessian with exactly one negative eigenvalue, got "
            f"{negative} among {values[:8].tolist()}"
        )
    height = float(
        in_double_precision(problem.loss, saddle) - in_double_precision(problem.loss, minimum)
    )
    if height <= 0:
        raise ValueError(f"saddle must lie above minimum, got a barrier of {height:.6g}")
    ratio = np.sum(np.log(np.abs(values))) - np.sum(np.log(lows))
    return Barrier(
        height, float(-values[0]), vectors[:, 0], float(np.exp(0.5 * ratio)), below, above
    )


def kramers_escape_time(
    problem: Problem,
    minimum: PyTree,
    saddle: PyTree,
    temperature: Any,
    *,
    learning_rate: Any = None,
) -> float:
    """Mean time of SGD without momentum from one well to the next, constant isotropic noise.

        T = (2π/|h_s|) √(|det H_s|/det H_a) exp(ΔL/τ)        in t = ηk: steps = T/η

    To a point well beyond the saddle; the mean first passage to the saddle itself is T/2.
    Relative error O(τ), 10–25 % at ΔL/τ = 2–5. With `learning_rate` η the first-order correction
    for the discrete chain, the factor 1 + (η/4)(Tr H_s + 2|h_s| − Tr H_a), is applied.

    **Arguments:** `minimum`, `saddle`, params; `temperature` τ = ηc/2. Warns if ΔL/τ < 2; raises
    `ValueError` as `barrier`.

    Source: Kramers (1940); Dai, Zhu (2021), arXiv:2112.00987, for SGD; the discrete correction is
    derived.
    """
    path = barrier(problem, minimum, saddle)
    tau = float(positive("temperature", temperature))
    _warn_if_shallow(path.height / tau)
    time = 2 * np.pi / path.unstable * path.prefactor * np.exp(path.height / tau)
    if learning_rate is None:
        return float(time)
    excess = np.trace(path.saddle) + 2 * path.unstable - np.trace(path.minimum)
    return float(time * (1 + positive("learning_rate", learning_rate) / 4 * excess))


def langer_escape_time(
    problem: Problem,
    minimum: PyTree,
    saddle: PyTree,
    temperature: Any,
    learning_rate: Any,
    momentum: Any,
) -> float:
    """Mean time of heavy-ball SGD from one well to the next, constant isotropic noise.

        T = (2π/λ₊) √(|det H_s|/det H_a) exp(ΔL/τ),   λ₊ = (−μ + √(μ² + 4|h_s|))/2

    in the kinetic time √η k: steps = T/√η. The friction is μ = (1−β)/√η, and `temperature` is
    τ = ηc/(2(1−β)). Holds where μ is not small against the motion over the barrier; below, energy
    diffuses slowly and escape takes longer. Warns and raises as `kramers_escape_time`.

    Source: Langer (1969); Dai, Zhu (2021), arXiv:2112.00987, for SGD.
    """
    path = barrier(problem, minimum, saddle)
    tau = float(positive("temperature", temperature))
    _warn_if_shallow(path.height / tau)
    friction = (1 - fraction("momentum", momentum)) / np.sqrt(
        positive("learning_rate", learning_rate)
    )
    growth = (-friction + np.sqrt(friction**2 + 4 * path.unstable)) / 2
    return float(2 * np.pi / growth * path.prefactor * np.exp(path.height / tau))


def mean_first_passage_1d(
    problem: Problem,
    diffusion: Any,
    start: float,
    target: float,
    *,
    breaks: Sequence[float] = (),
    learning_rate: Any = None,
    calculus: str = "ito",
) -> float:
    """Exact mean time from `start` to a first visit of `target`, one parameter, by quadrature.

        T = ∫_a^b e^{ψ(y)} ∫_{−∞}^y e^{−ψ(z)}/D(z) dz dy,   ψ' = L'/D       (t = ηk)

    mirrored where the target lies to the left.

    **Arguments:** `diffusion`, the temperature τ = ηc/2 or a function of params giving D = ηc/2;
    `breaks`, points where D jumps; `learning_rate` η, which moves the target outward by
    0.5826√(2ηD), the mean overshoot of the discrete chain; `calculus`, `"ito"` (SGD) or `"fick"`
    (noise of the form ∇·D∇p, for comparison).

    Raises `ValueError` where D vanishes on the way (ψ diverges: the diffusion cannot pass) and
    where nothing confines the motion behind the start.
    """
    if problem.dimension != 1:
        raise ValueError(f"problem must have one parameter, got d = {problem.dimension}")
    one_of("calculus", calculus, ("ito", "fick"))
    spread = diffusion_on_line(diffusion)
    if learning_rate is not None:
        step = np.sqrt(
            2 * positive("learning_rate", learning_rate) * spread(np.array([target], float))[0]
        )
        target = target + np.sign(target - start) * OVERSHOOT * float(step)
    sign = 1.0 if target > start else -1.0
    behind = _confined_end(problem, spread, start, target, breaks)
    log_outer, log_inner, lengths = [], [], []
    psi = 0.0
    cuts = sorted(c for c in (*breaks, start) if min(behind, target) < c < max(behind, target))
    ends = [behind, *(cuts if sign > 0 else cuts[::-1]), target]
    for begin, end in itertools.pairwise(ends):
        x = np.linspace(begin, end, _SEGMENT)
        # One-sided values of D where it jumps.
        inside = np.linspace(begin + 1e-9 * (end - begin), end - 1e-9 * (end - begin), _SEGMENT)
        d = spread(inside)
        _require_positive(d, inside, spread)
        rise = derivatives_on_line(problem, inside)[1] / d
        values = psi + sign * cumulative_simpson(rise, x=np.abs(x - begin), initial=0.0)
        psi = values[-1]
        log_d = np.log(d)
        log_outer.append(values - (log_d if calculus == "fick" else 0.0))
        log_inner.append(-values - (log_d if calculus == "ito" else 0.0))
        lengths.append(abs(end - begin))
    scale_in = max(np.max(part) for part in log_inner)
    scale_out = max(np.max(part) for part in log_outer)
    held, total = 0.0, 0.0
    for outer, inner, length, begin in zip(log_outer, log_inner, lengths, ends, strict=False):
        s = np.linspace(0.0, length, _SEGMENT)
        inner_mass = held + cumulative_simpson(np.exp(inner - scale_in), x=s, initial=0.0)
        held = inner_mass[-1]
        if sign * (begin - start) >= 0:
            total += cumulative_simpson(np.exp(outer - scale_out) * inner_mass, x=s)[-1]
    return float(np.exp(scale_in + scale_out) * total)


def barrier_exponent_1d(
    problem: Problem, diffusion: DiffusionOnLine, start: float, end: float
) -> float:
    """ψ(end) − ψ(start) = ∫L'/D, the exponent of the escape time for any smooth D, d = 1.

    Replaces ΔL/τ where the diffusion D = ηc/2 varies on the way.
    """
    x = np.linspace(start, end, _SEGMENT)
    d = diffusion_on_line(diffusion)(x)
    _require_positive(d, x, diffusion_on_line(diffusion))
    s = np.linspace(0.0, 1.0, _SEGMENT)
    values = cumulative_simpson(derivatives_on_line(problem, x)[1] / d, x=s)
    return float(values[-1] * (end - start))


def derivatives_on_line(
    problem: Problem, x: Float[Any, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L, L' and L'' of a problem with one parameter at every x, in float64."""
    with jax.enable_x64(True):
        parts = _derivatives(problem, np.asarray(x, dtype=np.float64))
        loss, slope, curvature = (np.asarray(part) for part in parts)
    return loss, slope, curvature


@eqx.filter_jit
def _derivatives(problem: Problem, x: Any) -> tuple[Any, Any, Any]:
    def loss(value):
        return problem.loss(problem.unflatten(value[None]))

    slope = jax.grad(loss)
    return jax.vmap(loss)(x), jax.vmap(slope)(x), jax.vmap(jax.grad(slope))(x)


def diffusion_on_line(diffusion: Any) -> Callable[[np.ndarray], np.ndarray]:
    """D at every x, in float64, of a number or a function of params."""
    if not callable(diffusion):
        constant = float(positive("diffusion", diffusion))
        return lambda x: np.full(len(x), constant)

    def evaluate(x):
        with jax.enable_x64(True):
            return np.asarray(_diffusions(diffusion, np.asarray(x, dtype=np.float64)))

    return evaluate


@eqx.filter_jit
def _diffusions(diffusion: DiffusionOnLine, x: Any) -> Any:
    return jax.vmap(lambda value: jnp.reshape(diffusion(value[None]), ()))(x)


def _require_positive(d: np.ndarray, x: np.ndarray, spread: Callable) -> None:
    place = int(np.argmin(d))
    low, high = x[max(place - 1, 0)], x[min(place + 1, len(x) - 1)]
    lowest, where = d[place], x[place]
    for _ in range(8):
        zoom = np.linspace(low, high, 65)
        values = spread(zoom)
        best = int(np.argmin(values))
        lowest, where = values[best], zoom[best]
        low, high = zoom[max(best - 1, 0)], zoom[min(best + 1, 64)]
    if not lowest > 1e-9 * np.max(d):
        raise ValueError(f"diffusion vanishes at {where:.6g}: use a piecewise or floored D")


def _confined_end(
    problem: Problem, spread: Callable, start: float, target: float, breaks: Sequence[float]
) -> float:
    """A point behind the start that the motion practically never reaches: ψ is up by 45."""
    away = np.sign(start - target)
    reach = abs(target - start)
    if reach == 0:
        raise ValueError(f"target must differ from start, got {target} for both")
    for _ in range(60):
        x = start + away * np.linspace(0.0, reach, 2001)
        slope = derivatives_on_line(problem, x)[1]
        rise = away * cumulative_simpson(slope / spread(x), x=away * (x - start), initial=0.0)
        above = np.flatnonzero(rise - np.minimum.accumulate(rise) > _RISE)
        if len(above):
            return float(x[above[0]])
        reach *= 1.5
    raise ValueError(
        f"start must be confined on the side away from target, got a loss that does not rise "
        f"behind {start} up to a distance of {reach:.3g}"
    )


def _warn_if_shallow(ratio: float) -> None:
    if ratio < _SHALLOW:
        warnings.warn(
            f"barrier/temperature = {ratio:.2f} < 2: asymptotic escape formula unreliable",
            stacklevel=3,
        )
