"""Collapse onto the zero-loss set: where, how fast, and at which noise."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import digamma, expit, gammaln

from statsgd.arguments import count, positive
from statsgd.laws.bases.nested import log_integral
from statsgd.laws.law import require_accurate
from statsgd.laws.loss_noise.flatness_functionals import flatness_weight
from statsgd.laws.loss_noise.setting import loss_exponent


def collapse_probability(
    loss: Callable[[Float[Any, " n"]], Float[Any, " n"]],
    start: Any,
    left: float,
    right: float,
    noise_ratio: Any,
) -> float:
    """Probability that SGD with C = σL started between two zeros of a 1-D loss ends at `right`.

        P(→ right | start) = ∫_left^start L^(2/ε) / ∫_left^right L^(2/ε)

    In one dimension every noise collapses, and the start decides where. `loss` is a NumPy
    function, positive between `left` and `right`. SDE; the chain differs by O(η).
    The quadrature is adaptive: warns (`UnresolvedWarning`) where it is off by more than 10⁻³,
    `IntractableError` above a tenth. Raises `ValueError` if `start` is outside. Source: derived.

    >>> import numpy as np
    >>> loss = lambda x: x**2 * (1 - x) ** 2
    >>> round(collapse_probability(loss, 0.5, 0.0, 1.0, noise_ratio=1.0), 4)
    0.5
    """
    power = 2 / float(positive("noise_ratio", noise_ratio))
    if not left <= start <= right or left == right:
        raise ValueError(f"start must lie in [left, right] = [{left}, {right}], got {start}")

    def log_scale(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        with np.errstate(divide="ignore"):
            return power * np.log(np.maximum(np.asarray(loss(x), dtype=np.float64), 0))

    if start in (left, right):
        return float(start == right)
    before, after = log_integral(log_scale, left, start), log_integral(log_scale, start, right)
    require_accurate("probability", before.error + after.error)
    return float(expit(before.value - after.value))


def lyapunov_exponent(curvatures: Any, noise_ratio: Any) -> float:
    """lim (1/t) log|y| for the distance y to the zero-loss set under C = σL I, t = ηk.

        (ε(q−2)/4 − 1) · A_{α−1}(H)/A_α(H),     α = 1 + 2/ε

    Negative iff ε < 4/(q−2), whatever H; log L changes at twice this rate. The factor A_{α−1}/A_α
    is the mean of νᵀHν over the stationary direction ν, whose density on the sphere is
    ∝ (νᵀHν)^(−α). Isotropic H = hI: h(ε(q−2)/4 − 1). Linearised SDE.

    **Arguments:** `curvatures`, the q positive eigenvalues normal to the set, or the Hessian;
    `noise_ratio` ε = ησ. Source: derived.

    >>> round(lyapunov_exponent([1.0] * 6, noise_ratio=0.5), 4)  # h(ε(q − 2)/4 − 1)
    -0.5
    """
    epsilon = float(positive("noise_ratio", noise_ratio))
    h = np.atleast_1d(np.asarray(curvatures, dtype=np.float64))
    q, alpha = len(h), loss_exponent(epsilon)
    mean_curvature = flatness_weight(h, alpha - 1) / flatness_weight(h, alpha)
    return (epsilon * (q - 2) / 4 - 1) * mean_curvature


def discrete_collapse_threshold(
    codimension: int, learning_rate: Any, curvature: Any = 1.0
) -> float:
    """The noise ratio ε = ησ below which the chain itself collapses, for L = ½h|y|², y ∈ ℝ^q.

    y' = (1−ηh)y + s|y|ξ with s² = ηhε/2: the root of E log|(1−ηh)e + sξ|² = 0. Unlike the SDE
    (4/(q−2), none for q ≤ 2) the chain has a threshold in every dimension. It is computed from
    the Poisson mixture of the noncentral χ². Needs 0 < ηh < 2 with ηh ≠ 1. Source: derived.

    >>> round(discrete_collapse_threshold(6, learning_rate=0.01), 2)  # near 4/(q − 2)
    0.99
    """
    q = count("codimension", codimension)
    reach = float(positive("learning_rate", learning_rate)) * float(
        positive("curvature", curvature)
    )
    if not 0 < reach < 2 or reach == 1:
        raise ValueError(
            f"learning_rate*curvature must lie in (0, 2) and not be 1, got {reach:.6g}"
        )
    square = (1 - reach) ** 2

    def drift(log_ratio: float) -> float:
        return expected_log_square(q, square, reach * np.exp(log_ratio) / 2)

    low = high = np.log(4 / q)
    while drift(low) > 0:
        low -= 1
    while drift(high) < 0:
        high += 1
    return float(np.exp(brentq(drift, low, high, xtol=1e-13)))


def expected_log_square(dimension: int, square: float, variance: float) -> float:
    """E log|v + sξ|² for |v|² = `square`, s² = `variance`, ξ standard normal in q dimensions."""
    half = square / (2 * variance)
    spread = 12 * np.sqrt(half) + 40
    j = np.arange(max(0, int(half - spread)), int(half + spread) + 1)
    weight = np.exp(j * np.log(half) - half - gammaln(j + 1))
    return float(np.log(2 * variance) + weight @ digamma(dimension / 2 + j) / np.sum(weight))


class RegressionThresholds(NamedTuple):
    """Learning rates at which single-example SGD on noiseless regression stops collapsing."""

    discrete: float
    """Almost sure collapse of the chain itself."""
    sde: float
    """Almost sure collapse of its SDE with the true noise, 2L(I + θ̂θ̂ᵀ): 2/(q−3)."""
    isotropic: float
    """The same with the rank-one part dropped: 2/(q−2)."""
    mean_square: float
    """E L of the chain grows above this: 2/(q+2)."""


def linear_regression_collapse_threshold(dimension: int) -> RegressionThresholds:
    """Collapse thresholds of real SGD: y = x·θ*, x ~ N(0, I_q), one fresh example a step.

    θ' = (I − ηaaᵀ)θ has C = 2L(I + θ̂θ̂ᵀ), not isotropic: the rank-one part moves every threshold,
    which is why isotropic laws describe real SGD only at q = 1 or with synthetic noise. The
    discrete one solves E log((1−ηz²)² + η²z²c) = 0, z ~ N(0, 1), c ~ χ²_{q−1}. Infinite where
    there is none. Source: derived.

    >>> found = linear_regression_collapse_threshold(4)
    >>> found._fields, round(float(found.discrete), 2)
    (('discrete', 'sde', 'isotropic', 'mean_square'), 0.44)
    """
    q = count("dimension", dimension, at_least=2)

    def drift(log_rate: float) -> float:
        return linear_regression_growth_rate(q, float(np.exp(log_rate)))

    low, high = np.log(1 / (q + 2)), np.log(2.0)
    while drift(high) < 0:
        high += 0.5
    discrete = float(np.exp(brentq(drift, low, high, xtol=1e-11)))
    return RegressionThresholds(
        discrete,
        2 / (q - 3) if q > 3 else np.inf,
        2 / (q - 2) if q > 2 else np.inf,
        2 / (q + 2),
    )


def linear_regression_growth_rate(dimension: int, learning_rate: Any) -> float:
    """Mean change of log|θ − θ*| in one step of the SGD of `linear_regression_collapse_threshold`.

    ½ E log((1−ηz²)² + η²z²c), z ~ N(0, 1), c ~ χ²_{q−1}: negative where SGD collapses almost
    surely. About −η at small η. Source: derived.

    >>> round(linear_regression_growth_rate(2, learning_rate=0.01), 3)  # about −η
    -0.01
    """
    q = count("dimension", dimension, at_least=2)
    eta = float(positive("learning_rate", learning_rate))
    # c by the trapezoidal rule in log c; z by Gauss–Legendre on either side of the kink z² = 1/η.
    shape = (q - 1) / 2
    below = 42 / shape + 1.5 * np.sqrt(84 / shape)
    above = min(np.log(2 + 45 / shape), 1.5 * np.sqrt(84 / shape))
    log_c = np.log(2 * shape) + np.linspace(-below, above, 1501)
    c = np.exp(log_c)
    weight = np.exp(shape * (log_c - log_c[0]) - (c - c[0]) / 2)
    weight /= np.sum(weight)
    nodes, node_weights = np.polynomial.legendre.leggauss(160)
    total = 0.0
    kink = 1 / np.sqrt(eta)
    ends = sorted({0.0, min(kink, 9.0), min(kink + 2, 9.0), 9.0})
    for low, high in itertools.pairwise(ends):
        z = low + (high - low) * (1 + nodes) / 2
        inside = np.log((1 - eta * z[:, None] ** 2) ** 2 + (eta * z[:, None]) ** 2 * c) @ weight
        density = np.exp(-(z**2) / 2) * np.sqrt(2 / np.pi)
        total += (high - low) / 2 * float(node_weights @ (density * inside))
    return total / 2
