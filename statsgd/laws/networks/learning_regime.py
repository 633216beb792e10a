"""Modes of the two-layer diagonal network and the five regimes they divide noise into."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import kinds_checked, non_negative, positive
from statsgd.laws.networks.data_moments import DataMoments


@kinds_checked
def stationary_points(
    moments: DataMoments, noise_scale: Any, weight_decay: Any = 0.0
) -> Float[Any, " k"]:
    """Where the two-layer density has zero slope, positive or not, ascending.

    The real roots of 7a1T f² + (b1 − 10a2T) f + 3a3T − (b2 − λ/2) = 0; those with f > 0 are modes
    and minima of the law, the largest being a mode.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671.

    >>> moments = DataMoments.teacher(b1=1.0, a1=2.0, teacher_slope=1.0, label_std=1.0)
    >>> stationary_points(moments, noise_scale=0.01).round(4)
    array([-6.6864,  0.9721])
    """
    t, decay = _settings(noise_scale, weight_decay)
    square = 7 * float(moments.a1) * t
    linear = float(moments.b1) - 10 * float(moments.a2) * t
    constant = 3 * float(moments.a3) * t - float(moments.b2) + decay / 2
    if square == 0:
        return np.array([-constant / linear])
    discriminant = linear**2 - 4 * square * constant
    if discriminant < 0:
        return np.empty(0)
    # Adding numbers of one sign: the small root would lose its digits otherwise.
    half = -(linear + np.copysign(np.sqrt(discriminant), linear)) / 2
    return np.sort([half / square, constant / half])


@kinds_checked
def learning_regime(moments: DataMoments, noise_scale: Any, weight_decay: Any = 0.0) -> str:
    """One of `"Ia"`, `"Ib"`, `"IIa"`, `"IIb"`, `"III"` for two layers.

    I: T ≥ T_c, the law is a point mass at zero. II: T_c/3 < T < T_c, the density diverges at zero.
    III: T ≤ T_c/3, it vanishes there and has one mode. In I and II, b says that the formula for
    the density has a local maximum at a positive slope (in I a metastable state), a that it has
    none.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671, corrected: whether a local maximum exists is
    read off the roots of the mode equation, whose sign `bimodal_end` does not tell.

    >>> moments = DataMoments.teacher(b1=1.0, a1=2.0, teacher_slope=1.0, label_std=1.0)
    >>> learning_regime(moments, noise_scale=0.01), learning_regime(moments, noise_scale=1.0)
    ('III', 'Ia')
    """
    t, decay = _settings(noise_scale, weight_decay)
    critical = (float(moments.b2) - decay / 2) / float(moments.a3)
    if t <= critical / 3:
        return "III"
    points = stationary_points(moments, t, decay)
    return ("I" if t >= critical else "II") + ("b" if np.any(points > 0) else "a")


@kinds_checked
def bimodal_end(moments: DataMoments) -> float:
    """T*, the published upper end of the regimes b, without decay; NaN where it has no value.

    It is the zero of the discriminant of the mode equation: above it there is no local maximum,
    below it one exists only if 10a2b2 > 3a3b1. Real for 21a1a3 > 25a2²; otherwise a local maximum
    may persist at every T.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671.

    >>> moments = DataMoments.teacher(b1=1.0, a1=2.0, teacher_slope=1.0, label_std=1.0)
    >>> round(float(bimodal_end(moments)), 4)
    0.2016
    """
    b1, b2, a1, a2, a3 = (
        float(x) for x in (moments.b1, moments.b2, moments.a1, moments.a2, moments.a3)
    )
    denominator = 2 * (21 * a1 * a3 - 25 * a2**2)
    if denominator <= 0:
        return float("nan")
    square = 3 * a1 * a3 * b1**2 - 10 * a1 * a2 * b1 * b2 + 7 * a1**2 * b2**2
    return (7 * a1 * b2 - 5 * a2 * b1 + np.sqrt(7 * square)) / denominator


def _settings(noise_scale: Any, weight_decay: Any) -> tuple[float, float]:
    return (
        float(positive("noise_scale", noise_scale)),
        float(non_negative("weight_decay", weight_decay)),
    )
