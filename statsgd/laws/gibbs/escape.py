"""How long SGD stays in a well: asymptotic escape times, and exact ones in one dimension."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree
from scipy.integrate import cumulative_simpson

from statsgd.arguments import fraction, kinds_checked, one_of, positive
from statsgd.laws.bases.nested import log_nested_integral
from statsgd.laws.gibbs.drift_potential import (
    DiffusionOnLine,
    DriftPotential,
    derivatives_on_line,
    diffusion_on_line,
)
from statsgd.laws.law import require_accurate
from statsgd.precision import in_double_precision
from statsgd.problems import Problem, hessian

#: Mean overshoot of a Gaussian random walk over a level, in standard deviations of a step.
OVERSHOOT = 0.5826
_LOOKED_AT = 8001
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


@kinds_checked
def barrier(problem: Problem, minimum: PyTree, saddle: PyTree) -> Barrier:
    """Height and curvatures of the way from `minimum` over `saddle`, both params pytrees.

    Raises `ValueError` unless the Hessian is positive definite at the minimum, has exactly one
    negative eigenvalue at the saddle, and the saddle is higher.

    >>> from statsgd.problems import quartic_wells
    >>> round(barrier(quartic_wells(), minimum=[1.0], saddle=[0.0]).height, 4)
    0.25
    """
    minimum, saddle = problem.parameters(minimum), problem.parameters(saddle)
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


@kinds_checked
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

    >>> from statsgd.problems import quartic_wells
    >>> round(kramers_escape_time(quartic_wells(), [-1.0], [0.0], temperature=0.05))  # t = ηk
    659
    """
    path = barrier(problem, minimum, saddle)
    tau = float(positive("temperature", temperature))
    _warn_if_shallow(path.height / tau)
    time = 2 * np.pi / path.unstable * path.prefactor * np.exp(path.height / tau)
    if learning_rate is None:
        return float(time)
    excess = np.trace(path.saddle) + 2 * path.unstable - np.trace(path.minimum)
    return float(time * (1 + positive("learning_rate", learning_rate) / 4 * excess))


@kinds_checked
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

    >>> from statsgd.problems import quartic_wells
    >>> setting = {"temperature": 0.05, "learning_rate": 0.1, "momentum": 0.5}
    >>> round(langer_escape_time(quartic_wells(), [-1.0], [0.0], **setting))  # t = √η k
    1362
    """
    path = barrier(problem, minimum, saddle)
    tau = float(positive("temperature", temperature))
    _warn_if_shallow(path.height / tau)
    friction = (1 - fraction("momentum", momentum)) / np.sqrt(
        positive("learning_rate", learning_rate)
    )
    growth = (-friction + np.sqrt(friction**2 + 4 * path.unstable)) / 2
    return float(2 * np.pi / growth * path.prefactor * np.exp(path.height / tau))


@kinds_checked
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

    The quadrature is adaptive: warns (`UnresolvedWarning`) where it is off by more than 10⁻³ and
    raises `IntractableError` where by more than a tenth.

    Raises `ValueError` where D vanishes on the way (ψ diverges: the diffusion cannot pass) and
    where nothing confines the motion behind the start.

    >>> from statsgd.problems import quartic_wells
    >>> round(mean_first_passage_1d(quartic_wells(), 0.05, start=-1.0, target=1.0))
    730
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
    behind, psi = _confined_end(problem, diffusion, start, target)

    # In the distance from `behind`, so that the motion goes upwards.
    def log_outer(distance: np.ndarray) -> np.ndarray:
        x = behind + sign * distance
        values = psi(x) - (np.log(spread(x)) if calculus == "fick" else 0.0)
        return np.where(distance >= abs(start - behind), values, -np.inf)

    def log_inner(distance: np.ndarray) -> np.ndarray:
        x = behind + sign * distance
        return -psi(x) - (np.log(spread(x)) if calculus == "ito" else 0.0)

    cuts = [sign * (place - behind) for place in (start, *breaks)]
    time = log_nested_integral(log_outer, log_inner, 0.0, abs(target - behind), cuts)
    return time.number("mean first passage time", 2 * psi.error)


@kinds_checked
def barrier_exponent_1d(
    problem: Problem, diffusion: DiffusionOnLine, start: float, end: float
) -> float:
    """ψ(end) − ψ(start) = ∫L'/D, the exponent of the escape time for any smooth D, d = 1.

    Replaces ΔL/τ where the diffusion D = ηc/2 varies on the way.

    >>> from statsgd.problems import quartic_wells
    >>> round(barrier_exponent_1d(quartic_wells(), lambda x: 0.05, 1.0, 0.0), 4)  # ΔL/D
    5.0
    """
    _require_positive(diffusion_on_line(diffusion), start, end)
    psi = DriftPotential.of(problem, diffusion, start, end)
    require_accurate("escape time that this exponent gives", psi.error)
    return float(psi(np.array([end]))[0])


def _require_positive(spread: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> None:
    x = np.linspace(low, high, _LOOKED_AT)
    d = spread(x)
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
    problem: Problem, diffusion: Any, start: float, target: float
) -> tuple[float, DriftPotential]:
    """A point behind the start that the motion practically never reaches, and ψ from there.

    ψ is up there by 45 from its maximum on the way to the target: a wall that is lower than the
    barrier would be crossed first.
    """
    spread = diffusion_on_line(diffusion)
    away = np.sign(start - target)
    reach = abs(target - start)
    if reach == 0:
        raise ValueError(f"target must differ from start, got {target} for both")

    def rises(ends: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        x = np.linspace(*ends, 2001)
        slope = derivatives_on_line(problem, x)[1] / spread(x)
        distance = np.abs(x - x[0])
        rise = cumulative_simpson(np.sign(x[-1] - x[0]) * slope, x=distance, initial=0.0)
        return x, rise

    way = float(np.max(rises((start, target))[1]))
    for _ in range(60):
        x, rise = rises((start, start + away * reach))
        above = np.flatnonzero(rise > way + _RISE)
        if len(above):
            behind = float(x[above[0]])
            _require_positive(spread, behind, target)
            psi = DriftPotential.of(problem, diffusion, behind, target)
            # What was found on a fixed grid counts if it is there: ψ(behind) is zero.
            if np.max(psi(np.linspace(start, target, _LOOKED_AT))) < 1 - _RISE:
                return behind, psi
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
