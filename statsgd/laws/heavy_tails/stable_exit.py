"""First exit from a well under stable noise: by one jump, in a time polynomial in the width."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.special import gamma

from statsgd.arguments import count, fraction, one_of, positive, real
from statsgd.dynamics.noise.heavy_tailed import FORMS
from statsgd.dynamics.noise.stable_numbers import stability_index
from statsgd.laws.bases.nested import require_accurate
from statsgd.laws.heavy_tails.impulse import impulse_response
from statsgd.laws.heavy_tails.stable_line import log_density, tail_constant
from statsgd.laws.law import ImproperLawError
from statsgd.precision import over_points

_PER_SCALE = 3.3  # nodes of the exact solution to one scale ηs of the jumps
_MOST = 6000
_KNOTS = 4096


class StableExit(NamedTuple):
    """The first exit from an interval about a minimum, to leading order in small jumps."""

    steps: float
    """Mean number of steps; the number itself is exponential."""
    right: float
    """Probability of leaving to the right."""


def stable_exit(
    left: Any,
    right: Any,
    alpha: Any,
    scale: Any,
    learning_rate: Any,
    momentum: Any = 0.0,
    curvature: Any = None,
) -> StableExit:
    """Exit of the chain θ' = θ − η(∇L + ξ) from (−left, right) about its minimum, by one jump.

        1/steps = c_α (ηs)^α (left^(−α) + right^(−α)),     P(right) ∝ right^(−α)

    The height of the well, its curvature and the loss in it drop out: they matter at small widths
    alone, where the exact mean (`stable_exit_steps`) is below by O((ηs/width)^α). Kramers' time
    under normal noise (`gibbs.kramers_escape_time`) is exponential in the height instead; as α → 2
    c_α vanishes and it takes over at any noise. With momentum ηs is ηs max_k|ψ_k|.

    It is a limit of unbounded jumps: noise bounded by B, such as that of a finite data set, leaves
    by no single step if ηB is below the width.

    **Arguments:** `left`, `right`, distances > 0 from the minimum, infinite for none; `alpha` in
    (0, 2); `scale` s; η; β, which needs `curvature` h.

    Raises `ValueError` for α = 2 (no jumps). Source: Imkeller, Pavlyukevich (2006) for the SDE,
    Nguyen et al. (2019), arXiv:1906.09069, for SGD; per step, and with momentum, derived. (Their
    Lévy measure |y|^(−1−α)dy makes another prefactor than E e^{iuL} = e^{−t|u|^α} here.)

    >>> found = stable_exit(1.0, 2.0, alpha=1.5, scale=0.1, learning_rate=0.1)
    >>> round(float(found.steps)), round(float(found.right), 3)
    (3704, 0.261)
    """
    index = _jumping(alpha)
    widths = np.array([_width("left", left), _width("right", right)])
    jump = float(positive("learning_rate", learning_rate) * positive("scale", scale))
    jump *= _largest_response(jump, float(learning_rate), momentum, curvature)
    rates = tail_constant(index) * (jump / widths) ** index
    if not rates.sum() > 0:
        raise ValueError(f"left or right must be finite, got {left} and {right}")
    return StableExit(float(1 / rates.sum()), float(rates[1] / rates.sum()))


def stable_exit_steps(
    left: Any,
    right: Any,
    alpha: Any,
    scale: Any,
    learning_rate: Any,
    curvature: Any,
    start: Any = 0.0,
) -> float:
    """Exact mean number of steps of the chain θ' = (1−ηh)θ − ηξ to leave (−left, right).

        u(x) = 1 + ∫ f(y − (1−ηh)x) u(y) dy,    f the density of ηξ

    by Gauss–Legendre with more than three nodes to each ηs; a third more of them tell the error.
    α = 2, normal noise of variance 2s², is allowed. Warns (`UnresolvedWarning`) where it is off by
    more than 10⁻³, `IntractableError` above a tenth. Raises `ValueError` for jumps too short for
    6000 nodes, and `ImproperLawError` outside 0 < ηh < 2. Source: derived.

    >>> round(stable_exit_steps(1.0, 1.0, 1.5, scale=1.0, learning_rate=0.1, curvature=1.0), 2)
    50.31
    """
    index = float(stability_index("alpha", alpha))
    low, high = -_width("left", left), _width("right", right)
    eta = float(positive("learning_rate", learning_rate))
    jump, reach = (
        eta * float(positive("scale", scale)),
        eta * float(positive("curvature", curvature)),
    )
    place = float(
        real(
            "start",
            start,
            allowed=f"in ({low:g}, {high:g})",
            valid=lambda x: (x > low) & (x < high),
        )
    )
    if not reach < 2:
        raise ImproperLawError(f"learning_rate*curvature = {reach:.6g} must be below 2")
    number = int(np.ceil(_PER_SCALE * (high - low) / jump)) + 40
    if not number <= _MOST:
        raise ValueError(
            f"learning_rate*scale = {jump:.3g} must be above "
            f"{_PER_SCALE * (high - low) / _MOST:.3g} for this width: use stable_exit there"
        )
    density = _jump_density(index, jump, 2 * (high - low))
    coarse, fine = (
        _mean_steps(density, low, high, 1 - reach, place, int(share * number)) for share in (1, 1.3)
    )
    require_accurate("mean number of steps", abs(fine / coarse - 1))
    return fine


def norm_tail_constant(alpha: Any, dimension: int, form: str = "isotropic") -> float:
    """K with P(|ξ| > r) ~ K (r/s)^(−α) for stable noise of d coordinates; `form` as in the noise.

    Isotropic 2^α Γ((d+α)/2)/(Γ(d/2)Γ(1−α/2)), independent 2dc_α. Source: derived.

    >>> round(norm_tail_constant(1.5, dimension=2), 4)
    0.717
    """
    index, d = _jumping(alpha), count("dimension", dimension)
    if one_of("form", form, FORMS) == "independent":
        return float(2 * d * tail_constant(index))
    return float(2**index * gamma((d + index) / 2) / (gamma(d / 2) * gamma(1 - index / 2)))


def stable_exit_ball(
    radius: Any, dimension: int, alpha: Any, scale: Any, learning_rate: Any, form: str = "isotropic"
) -> float:
    """Mean number of steps to leave a ball about the minimum by one jump, to leading order.

    (R/(ηs))^α/K with `norm_tail_constant` K. Arguments and source as for `stable_exit`.

    >>> round(stable_exit_ball(1.0, 2, alpha=1.5, scale=0.1, learning_rate=0.1))
    1395
    """
    jump = float(positive("learning_rate", learning_rate) * positive("scale", scale))
    distance = float(positive("radius", radius)) / jump
    return float(distance ** _jumping(alpha) / norm_tail_constant(alpha, dimension, form))


def stable_well_weights(widths: Any, alpha: Any) -> Float[Any, " wells"]:
    """Long-run shares of wells side by side whose shared edge is at `widths` from their minima.

    Two wells have weights in proportion to width^α: heights, curvatures, η and s drop out. They sum
    to one. Raises `ValueError` for other than two wells, whose exits lead elsewhere. Source:
    derived.

    >>> stable_well_weights([1.0, 4.0], alpha=1.5).round(4)
    array([0.1111, 0.8889])
    """
    w = np.atleast_1d(positive("widths", widths))
    if w.shape != (2,):
        raise ValueError(f"widths must be those of two wells, got shape {w.shape}")
    weights = w ** _jumping(alpha)
    return weights / weights.sum()


def _jumping(alpha: Any) -> float:
    index = float(stability_index("alpha", alpha))
    if index == 2:
        raise ValueError("alpha must be below 2 for an exit by one jump, got 2: normal noise")
    return index


def _width(name: str, value: Any) -> float:
    number = float(value)
    if not number > 0:
        raise ValueError(f"{name} must be a positive distance, got {value!r}")
    return number


def _largest_response(jump: float, eta: float, momentum: Any, curvature: Any) -> float:
    if float(fraction("momentum", momentum)) == 0:
        return 1.0
    if curvature is None:
        raise ValueError("curvature must be given with momentum, got None")
    reach = eta * float(positive("curvature", curvature))
    return float(np.max(np.abs(impulse_response(reach, momentum, remainder=1e-3))))


def _density_at(point: Float[Any, " 1"], alpha: Any) -> Float[Any, ""]:
    return log_density(point[0], alpha)


def _jump_density(alpha: float, jump: float, farthest: float) -> Any:
    """The density of ηξ, by a spline of its logarithm in asinh."""
    knots = np.linspace(0, np.arcsinh(farthest / jump), _KNOTS)
    logs = over_points(_density_at, np.sinh(knots)[:, None], np.float64(alpha))
    spline = CubicSpline(knots, logs, bc_type=((1, 0.0), "not-a-knot"))
    return lambda distance: np.exp(spline(np.arcsinh(np.abs(distance) / jump))) / jump


def _mean_steps(
    density: Any, low: float, high: float, kept: float, start: float, number: int
) -> float:
    node, weight = np.polynomial.legendre.leggauss(number)
    y = low + (high - low) * (node + 1) / 2
    weight = weight * (high - low) / 2
    stays = density(y[None, :] - kept * y[:, None]) * weight
    times = np.linalg.solve(np.eye(number) - stays, np.ones(number))
    return float(1 + density(y - kept * start) * weight @ times)
