"""Transient freezing: the barrier between two valleys grows until the choice is made."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.interpolate import PchipInterpolator

from statsgd.arguments import count, positive
from statsgd.laws.law import ImproperLawError, require_accurate
from statsgd.laws.valleys.two_valley import TwoValleyLaw, Wells
from statsgd.laws.valleys.two_valley_hopping import (
    TwoValleyHopping,
    committed_start,
    transition_matrix,
)
from statsgd.problems.two_valley import TwoValleyLandscape

_POINTS = 400
_TABLE = 81
#: Barrier z² beyond which no walker crosses in any run.
_IMPASSABLE = 60.0


class Freezing(NamedTuple):
    """Occupation of the flat valley along a run; arrays over the times `time` = ηk."""

    time: Float[Any, " n"]
    along: Float[Any, " n"]
    """Mean y."""
    flat_probability: Float[Any, " n"]
    last_hop_cdf: Float[Any, " n"] | None
    """Probability that the last committed hop has happened; None at the level of the chain."""
    error: float | None = None
    """Of the probabilities: what half as many places and times change in them."""

    @property
    def final_flat_probability(self) -> float:
        """P_flat at the end of the run."""
        return float(self.flat_probability[-1])

    @property
    def freezing_along(self) -> float:
        """Mean y at the last committed hop (the start, if there is none)."""
        if self.last_hop_cdf is None:
            raise ValueError("the last hop is known at the level of the SDE: freezing_prediction")
        steps = np.diff(self.last_hop_cdf)
        middle = (self.along[1:] + self.along[:-1]) / 2
        return float(self.last_hop_cdf[0] * self.along[0] + np.sum(steps * middle))


def valley_drift(
    landscape: TwoValleyLandscape, along: float, law: TwoValleyLaw, flat: float
) -> float:
    """dy/dt = −⟨∂_y L⟩ over the frozen law at y = `along`, with the occupation P_flat = `flat`."""
    means, deviations = law.well_moments()
    sides = np.arange(2)
    force = _force(landscape, along, law.wells, sides, np.abs(means), deviations**2 + means**2)
    return float(flat * force[0] + (1 - flat) * force[1])


def freezing_prediction(
    landscape: TwoValleyLandscape, learning_rate: Any, strength: Any, steps: int
) -> Freezing:
    """Occupation along a run of SGD with C = 2σH, at the level of the SDE.

        dP/dt = λ₁(y)[P_Itô(y) − P],     dy/dt = −⟨∂_y L⟩,     Δ_S = ησ

    from the two mirror starts of the landscape, after walkers have settled from the ridge. λ₁ falls
    exponentially as the barrier grows along y, and P freezes. The last committed hop is before t
    with probability P e^(−∫_t k(f→s)) + (1−P) e^(−∫_t k(s→f)). Fails where η is no longer far below
    f₂ (`freezing_chain` does not). Warns with `UnresolvedWarning` where the probabilities are off
    by more than 10⁻³.

    **Arguments:** `learning_rate` η, `strength` σ, `steps` of SGD. Source: derived.

    >>> from statsgd.problems import TwoValleyLandscape
    >>> found = freezing_prediction(TwoValleyLandscape(), 0.01, strength=0.1, steps=1000)
    >>> round(float(found.final_flat_probability), 2)
    0.73
    """
    eta, sigma = (
        float(positive("learning_rate", learning_rate)),
        float(positive("strength", strength)),
    )
    duration = eta * count("steps", steps)
    x_start, y_start = (float(value) for value in landscape.start)
    level = eta * sigma

    def at(y: float) -> TwoValleyLaw:
        return TwoValleyLaw(landscape, y, level)

    def drift(y: float, flat: float) -> float:
        return valley_drift(landscape, y, at(y), flat)

    fate = solve_ivp(lambda _, y: [drift(y[0], 0.5)], (0, duration), [y_start], rtol=1e-6)
    reach = fate.y[0, -1] + 0.1 * (fate.y[0, -1] - y_start)
    # Dense near the start, where λ₁ falls fastest.
    table = y_start + (reach - y_start) * np.linspace(0, 1, _TABLE) ** 2
    laws = [at(y) for y in table]
    flat = np.array([float(law.flat_probability()) for law in laws])
    relaxation = np.array([_relaxation_rate(law) for law in laws])
    pairs = list(zip(table, laws, strict=True))
    slow_speed, fast_speed = (
        np.array([valley_drift(landscape, y, law, p) for y, law in pairs]) for p in (0.0, 1.0)
    )
    columns = np.stack([np.log(np.maximum(relaxation, 1e-300)), flat, slow_speed, fast_speed])
    settled = float(np.mean(committed_start(at(y_start).wells, abs(x_start))))
    # Finely spaced early on, where hopping is fast.
    times = duration * np.linspace(0, 1, _POINTS + 1) ** 2
    fine = _occupation(table, columns, times, settled)
    rough = _occupation(table[::2], columns[:, ::2], times[::2], settled)
    error = max(np.max(np.abs(a[::2] - b)) for a, b in zip(fine[1:], rough[1:], strict=True))
    require_accurate("occupation of the flat valley", error)
    return Freezing(times, *fine, float(error))


def _occupation(
    table: Float[np.ndarray, " n"],
    columns: Float[np.ndarray, "4 n"],
    times: Float[np.ndarray, " m"],
    settled: float,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """y, P and the distribution of the last hop at `times`.

    From log λ₁, P_Itô and both speeds at the places y of `table`, between which they are cubic.
    """
    between = _monotone(table, columns, axis=1)

    def move(_, state):
        p, y = state
        log_rate, target, slow, fast = between(min(y, table[-1]))
        return [np.exp(log_rate) * (target - p), slow + p * (fast - slow)]

    path = solve_ivp(
        move,
        (0, times[-1]),
        [settled, table[0]],
        method="LSODA",
        t_eval=times,
        rtol=1e-8,
        atol=1e-10,
    )
    occupation, along = path.y
    log_rate, target, *_ = between(np.minimum(along, table[-1]))
    leave_flat = _remaining(times, np.exp(log_rate) * (1 - target))
    leave_sharp = _remaining(times, np.exp(log_rate) * target)
    last = occupation * np.exp(-leave_flat) + (1 - occupation) * np.exp(-leave_sharp)
    return along, occupation, last


def freezing_chain(
    landscape: TwoValleyLandscape,
    learning_rate: Any,
    strength: Any,
    steps: int,
    *,
    resolution: int = 8,
    refresh: int = 25,
) -> Freezing:
    """As `freezing_prediction` at the level of the chain: right at any η < f₂.

    The distribution of x is advanced step by step with the transition matrix at the current y, on a
    grid of `resolution` (two or more) nodes to the smallest step deviation, and y by its mean
    drift; matrices are renewed every `refresh` steps. Half as many of both tell the error. Seconds
    to a minute for 20 000 steps.

    Raises `ImproperLawError` unless η < f₂ at the start; warns with `UnresolvedWarning` where the
    final probability is off by more than 10⁻³. Source: derived.

    >>> from statsgd.problems import TwoValleyLandscape
    >>> found = freezing_chain(TwoValleyLandscape(), 0.1, strength=0.01, steps=50, refresh=5)
    >>> round(float(found.final_flat_probability), 2)
    0.73
    """
    eta, sigma = (
        float(positive("learning_rate", learning_rate)),
        float(positive("strength", strength)),
    )
    number, every = count("steps", steps), count("refresh", refresh)
    nodes = count("resolution", resolution, at_least=2)
    wells = Wells.of(landscape, float(landscape.start[1]), eta * sigma, 1.0)
    if not eta < float(wells.flatness[1]):
        raise ImproperLawError(
            f"learning_rate = {eta:.6g} must be below f2 = {float(wells.flatness[1]):.6g} at the "
            "start: the sharp valley is beyond its edge of stability"
        )
    fine = _chain(landscape, eta, sigma, number, nodes, every)
    rough = _chain(landscape, eta, sigma, number, nodes // 2, 2 * every)
    known = np.interp(rough.time, fine.time, fine.flat_probability)
    change = np.abs(known - rough.flat_probability)
    require_accurate("final occupation of the flat valley", change[-1])
    return fine._replace(error=float(np.max(change)))


def _chain(
    landscape: TwoValleyLandscape,
    eta: float,
    sigma: float,
    number: int,
    resolution: int,
    every: int,
) -> Freezing:
    x_start, y = abs(float(landscape.start[0])), float(landscape.start[1])
    wells = Wells.of(landscape, y, eta * sigma, 1.0)
    # f grows along y towards f₀x₂²/x₀², so that steps are smallest and wells widest far out.
    far = Wells.of(landscape, 1e9, eta * sigma, 1.0)
    step = float(np.sqrt(2 * eta * np.min(far.diffusion))) / resolution
    spread = np.sqrt(wells.variance / (1 - eta / wells.flatness))
    reach = _reach(landscape, eta, eta * sigma, number)
    high, low = (np.asarray(landscape.widths(reach)) / 2 + 9 * spread) / step
    nodes = (np.arange(-int(np.ceil(low)), int(np.ceil(high))) + 0.5) * step
    vector = np.zeros(len(nodes))
    for place in (x_start, -x_start):
        position = (place - nodes[0]) / step
        left = int(np.floor(position))
        vector[left] += (left + 1 - position) / 2
        vector[left + 1] += (position - left) / 2
    flat = nodes > 0
    times, along, occupation = [0.0], [y], [float(vector @ flat)]
    side, distance = np.where(flat, 0, 1), np.abs(nodes)
    for done in range(0, number, every):
        chunk = min(every, number - done)
        # Halfway through, so that what standing still costs is of second order.
        ahead = eta * float(_force(landscape, y, wells, side, distance, distance**2) @ vector)
        between = y + chunk / 2 * ahead
        wells = Wells.of(landscape, between, eta * sigma, 1.0)
        matrix = transition_matrix(wells, eta, nodes)
        force = _force(landscape, between, wells, side, distance, distance**2)
        for _ in range(chunk):
            y += eta * float(force @ vector)
            vector = matrix @ vector
        times.append(eta * (done + chunk))
        along.append(y)
        occupation.append(float(vector @ flat))
    return Freezing(np.array(times), np.array(along), np.array(occupation), None)


class FreezingPoint(NamedTuple):
    """Published scaling estimate of where the choice freezes, and what it is."""

    along: float
    """y at freezing."""
    flat_probability: float


def freezing_point_scaling(
    landscape: TwoValleyLandscape, noise_level: Any, separation: Any
) -> FreezingPoint:
    """The published scaling estimate of freezing; a message, not a quantitative law.

        Φ = [2(x₁²−x₂²)/(27y_b)] (L_d/y_d + 8x₀²/(27y_f)),   s = √(Δ_S ln[Δ_S/(εΦ)²])
        y_freeze = y_b s/(x₂ − s),   P = [1 + γ^(−1/2) (√Δ_S/(εΦ))^(1−γ)]⁻¹

    y_freeze grows with Δ_S, so the final P_flat grows with noise although P_flat at fixed y falls.

    **Arguments:** `noise_level` Δ_S = ησ, `separation` ε, the fitted separation of time scales (the
    published figures use 30). Raises `ValueError` unless 0 < s < x₂.

    Source: Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962.

    >>> from statsgd.problems import TwoValleyLandscape
    >>> found = freezing_point_scaling(TwoValleyLandscape(), noise_level=0.01, separation=30.0)
    >>> round(float(found.along), 2), round(float(found.flat_probability), 3)
    (31.38, 0.955)
    """
    level, separation = (
        float(positive("noise_level", noise_level)),
        float(positive("separation", separation)),
    )
    scaled = separation * freezing_drive(landscape)
    sharp = float(landscape.sharp_width)
    square = level * np.log(level / scaled**2)
    s = float(np.sqrt(square)) if square > 0 else 0.0
    if not 0 < s < sharp:
        raise ValueError(
            f"no finite freezing point: s = {s:.6g} must lie in (0, x2) = (0, {sharp:.6g})"
        )
    ratio = float(landscape.flatness_ratio)
    odds = ratio**-0.5 * (np.sqrt(level) / scaled) ** (1 - ratio)
    return FreezingPoint(float(landscape.branching_length) * s / (sharp - s), float(1 / (1 + odds)))


def freezing_drive(landscape: TwoValleyLandscape) -> float:
    """Φ of `freezing_point_scaling`, for unit f₀."""
    flat, sharp = float(landscape.flat_width), float(landscape.sharp_width)
    decay = float(landscape.descent_height) / float(landscape.descent_length)
    descent = 8 * float(landscape.width_scale) ** 2 / (27 * float(landscape.softening_length))
    return 2 * (flat**2 - sharp**2) / (27 * float(landscape.branching_length)) * (decay + descent)


def _relaxation_rate(law: TwoValleyLaw) -> float:
    if np.min(law.wells.barrier_height) > _IMPASSABLE:
        return 0.0
    return TwoValleyHopping(law).relaxation_rate(2000)


def _monotone(places: Any, values: Any, axis: int = 0) -> PchipInterpolator:
    # The inverse of the least slopes is infinite, and they count as zero.
    with np.errstate(over="ignore"):
        return PchipInterpolator(places, values, axis=axis)


def _remaining(times: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """∫ from each time to the end."""
    passed = _monotone(times, rate).antiderivative()(times)
    return passed[-1] - passed


def _reach(landscape: TwoValleyLandscape, eta: float, level: float, steps: int) -> float:
    """A y that the run does not pass."""

    def drift(_, y):
        return [valley_drift(landscape, y[0], TwoValleyLaw(landscape, y[0], level), 0.5)]

    start = float(landscape.start[1])
    path = solve_ivp(drift, (0, eta * steps), [start], rtol=1e-4)
    return start + 1.3 * (float(path.y[0, -1]) - start)


def _force(
    landscape: TwoValleyLandscape, y: float, wells: Wells, side: Any, distance: Any, square: Any
) -> np.ndarray:
    """−∂_y L from |x| and x², or their means, in the flat (`side` 0) or the sharp well (1)."""
    y_b = float(landscape.branching_length)
    f, g = wells.flatness[side], wells.width[side]
    width = np.array([float(landscape.flat_width), float(landscape.sharp_width)])[side]
    stretch = 2 * (1 / (y + float(landscape.softening_length)) - 1 / (y + y_b))
    widening = 2 * width * y_b / (y + y_b) ** 2
    decay = float(landscape.descent_height) / float(landscape.descent_length)
    descent = decay * np.exp(-y / float(landscape.descent_length))
    return descent + ((square - distance * g) * stretch + distance * widening) / f
