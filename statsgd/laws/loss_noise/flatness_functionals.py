"""Which minima loss-scaled noise prefers: flatness functionals of the Hessian, and codimension."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import comb, gammaln, logsumexp

from statsgd.arguments import count, positive, real
from statsgd.laws.loss_noise.regime import critical_noise_ratio
from statsgd.laws.loss_noise.setting import loss_exponent

_STEP = 0.05  # of the trapezoidal rule in log u, whose error is e^(−2π²/step)


def flatness_weight(curvatures: Any, exponent: Any) -> float:
    """A_α(H), the mean of (νᵀHν)^(−α) over unit vectors ν: the weight of a flat minimum.

        A_α(H) = Γ(q/2)/(Γ(q/2−α)Γ(α)) ∫₀^∞ u^(α−1) Π_i (1+u h_i)^(−1/2) du        (0 < α < q/2)

    and, for every other real α, its continuation: A_{q/2} = det(H)^(−1/2) and
    A_α(H) = det(H)^(−1/2) A_{q/2−α}(H⁻¹).

    Conditional on the distance tube |y| < δ → 0 about a zero-loss set, L^(−α) weighs the points
    of the set by A_α of the normal Hessian (Gibbs: all the same), conditional on a loss tube
    L < s → 0 by det(H)^(−1/2).

    **Arguments:** `curvatures` h, the q eigenvalues of the Hessian normal to the set, all positive,
    or the `(q, q)` Hessian itself; `exponent` α. Unit: curvature^(−α). Source: derived.

    >>> round(flatness_weight([4.0, 4.0, 4.0], exponent=1.0), 4)  # h^(−α)
    0.25
    """
    h = _eigenvalues(curvatures)
    alpha = float(real("exponent", exponent, allowed="finite", valid=np.isfinite))
    q = len(h)
    log_root = -np.sum(np.log(h)) / 2
    if alpha > q / 4:
        return float(np.exp(log_root)) * flatness_weight(1 / h, q / 2 - alpha)
    # (νᵀHν)^m with m = −α, from E Q^m = E|z|^(2m) E(νᵀHν)^m for normal z and Q = zᵀHz.
    m = -alpha
    log_radial = m * np.log(2) + gammaln(q / 2 + m) - gammaln(q / 2)
    return float(np.exp(_log_moment(h, m) - log_radial))


def distance_tube_mass(curvatures: Any, noise_ratio: Any, distance: Any) -> float:
    """Mass of L^(−α) within `distance` δ of the zero-loss set, per unit volume of the set.

    2^α |S^(q−1)| A_α(H) δ^(q−2α)/(q−2α); infinite where α ≥ q/2. Unnormalised. Source: derived.

    >>> round(distance_tube_mass([1.0, 1.0, 1.0], noise_ratio=8.0, distance=0.1), 4)
    18.9029
    """
    h = _eigenvalues(curvatures)
    alpha = loss_exponent(float(positive("noise_ratio", noise_ratio)))
    q, delta = len(h), float(positive("distance", distance))
    if alpha >= q / 2:
        return np.inf
    log_sphere = np.log(2) + q / 2 * np.log(np.pi) - gammaln(q / 2)
    power = q - 2 * alpha
    size = np.exp(alpha * np.log(2) + log_sphere + power * np.log(delta)) / power
    return float(size * flatness_weight(h, alpha))


def loss_tube_mass(curvatures: Any, noise_ratio: Any, loss: Any) -> float:
    """Mass of L^(−α) in {L < `loss`}, per unit volume of the zero-loss set.

    det(H)^(−1/2) (2π)^(q/2)/Γ(q/2) · s^(q/2−α)/(q/2−α); infinite where α ≥ q/2. Unnormalised.

    >>> round(loss_tube_mass([1.0, 1.0, 1.0], noise_ratio=8.0, loss=0.1), 4)
    39.9747
    """
    h = _eigenvalues(curvatures)
    alpha = loss_exponent(float(positive("noise_ratio", noise_ratio)))
    q, s = len(h), float(positive("loss", loss))
    if alpha >= q / 2:
        return np.inf
    power = q / 2 - alpha
    log_ball = q / 2 * np.log(2 * np.pi) - gammaln(q / 2) - np.sum(np.log(h)) / 2
    return float(np.exp(log_ball + power * np.log(s)) / power)


class Selection(NamedTuple):
    """What becomes of the strata of a zero-loss set at one noise ratio."""

    attracting: tuple[bool, ...]
    """Whether SGD collapses onto each stratum: ε < 4/(q−2)."""
    outcome: str
    """`"ergodic"` (all repel), `"selected"` (some attract: those of low codimension win) or
    `"collapse"` (all attract; the start decides)."""
    low_noise_limit: tuple[float, ...]
    """Weights as the noise falls to the largest critical ratio among the strata from above."""


def codimension_selection(strata: Sequence[Any], noise_ratio: Any) -> Selection:
    """How C = σL I chooses among strata of a zero-loss set with different codimension.

    A stratum attracts iff ε = ησ < 4/(q_i−2): flat means low codimension, whatever the Hessians.
    While all repel, the law concentrates, as α ↑ q_min/2, on the lowest codimension, where unit
    volumes weigh det(H)^(−1/2), as under Gibbs at τ → 0.

    **Arguments:** `strata`, for each the positive curvatures in its normal directions (q numbers);
    `noise_ratio` ε. Weights are per unit volume, exact for points. Source: derived.

    >>> codimension_selection([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], noise_ratio=3.0)
    Selection(attracting=(True, False), outcome='selected', low_noise_limit=(1.0, 0.0))
    """
    spectra = [_eigenvalues(stratum) for stratum in strata]
    count("number of strata", len(spectra))
    epsilon = float(positive("noise_ratio", noise_ratio))
    attracting = tuple(epsilon < critical_noise_ratio(len(h)) for h in spectra)
    outcome = "collapse" if all(attracting) else "selected" if any(attracting) else "ergodic"
    lowest = min(len(h) for h in spectra)
    weights = np.array([np.prod(h) ** -0.5 if len(h) == lowest else 0.0 for h in spectra])
    return Selection(attracting, outcome, tuple((weights / np.sum(weights)).tolist()))


def _eigenvalues(curvatures: Any) -> np.ndarray:
    h = np.asarray(real("curvatures", curvatures, allowed="finite", valid=np.isfinite))
    h = np.linalg.eigvalsh(h) if h.ndim == 2 else np.atleast_1d(h)
    return positive("curvatures", h)


def _log_moment(h: np.ndarray, power: float) -> float:
    """log E Q^power of Q = Σ h_i z_i², z standard normal, for power > −q/2.

    E Q^m = 1/Γ(n−m) ∫ u^(n−m−1) E[Q^n e^(−uQ)] du for any integer n > m. Under the tilt e^(−uQ) the
    cumulants of Q are those of the shrunk curvatures h/(1+2uh), which give its n-th moment.
    """
    q = len(h)
    if power == int(power) and power >= 0:
        return float(np.log(_tilted_moment(h[:, None], int(power))[0]))
    # Not just above m, where the integrand would fall off too slowly at zero.
    n = max(0, int(np.floor(power + 0.05)) + 1)
    left, right = n - power, power + q / 2
    x = np.arange(-np.log(h.max()) - 42 / left, -np.log(h.min()) + 42 / right, _STEP)
    uh = np.exp(np.log(h)[:, None] + x)
    shrunk = h[:, None] / (1 + 2 * uh)
    log_terms = left * x - np.sum(np.log1p(2 * uh), 0) / 2 + np.log(_tilted_moment(shrunk, n))
    return float(logsumexp(log_terms) + np.log(_STEP) - gammaln(left))


def _tilted_moment(h: np.ndarray, order: int) -> np.ndarray:
    """E Q^order for the curvatures in each column of `h`, by the recursion from cumulants."""
    factorial = np.cumprod([1.0, *range(1, order + 1)])
    cumulants = [2 ** (j - 1) * factorial[j - 1] * np.sum(h**j, 0) for j in range(1, order + 1)]
    moments = [np.ones(h.shape[1])]
    for n in range(1, order + 1):
        terms = [comb(n - 1, j - 1) * cumulants[j - 1] * moments[n - j] for j in range(1, n + 1)]
        moments.append(np.sum(terms, axis=0))
    return moments[order]
