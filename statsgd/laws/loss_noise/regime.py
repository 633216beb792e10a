"""Regimes of noise that vanishes with the loss: collapse, a stationary law, or escape."""

from typing import Any

import numpy as np

from statsgd.arguments import count, non_negative, positive
from statsgd.laws.loss_noise.setting import loss_exponent


def critical_noise_ratio(codimension: int) -> float:
    """ε_c = 4/(q−2): SGD with C = σLI collapses onto the zero-loss set iff ε = ησ < ε_c.

    Independent of curvature and learning rate (SDE; see `discrete_collapse_threshold` for the
    chain). Infinite for codimension q ≤ 2, where every noise collapses. Source: derived.

    >>> critical_noise_ratio(6), critical_noise_ratio(2)
    (1.0, inf)
    """
    q = count("codimension", codimension)
    return 4 / (q - 2) if q > 2 else np.inf


def mean_square_noise_ratio(codimension: int) -> float:
    """4/q, the noise ratio above which E L grows on a quadratic.

    Between 4/q and `critical_noise_ratio` E L grows while almost every path dies: there, measure
    the median or log L, never the mean. Source: derived.

    >>> mean_square_noise_ratio(4)
    1.0
    """
    return 4 / count("codimension", codimension)


def classify_noise_regime(
    noise_ratio: Any, codimension: int, dim: int | None = None, growth: Any = None
) -> str:
    """What the SDE of SGD with C = σLI does, for a compact zero-loss set 𝓜 of codimension q.

    With α = 1 + 2/ε, and L ~ |θ|^p at infinity:

    - `"collapse"`: ε < 4/(q−2); the loss goes to zero exponentially; the end law on 𝓜 depends on
      the start, and nothing selects among minima.
    - `"critical"`: ε = 4/(q−2); near 𝓜 in probability, without almost sure convergence.
    - `"ergodic"`: above, and settled at infinity; the one stationary law is L^(−α)/Z.
    - `"explosive"`: above, with α < 1 + (d−2)/p (p > 2) or αp ≤ d: escape to infinity.
    - `"bistable"`: q/2 < α < 1 + (d−2)/p: 𝓜 and infinity both attract, the outcome is random.

    **Arguments:** `noise_ratio` ε = ησ > 0, `codimension` q; `dim` d and `growth` p together, or
    neither where infinity does not matter (compact domain, noise that saturates). Source: derived.

    >>> classify_noise_regime(1.0, codimension=5), classify_noise_regime(2.0, codimension=5)
    ('collapse', 'ergodic')
    """
    epsilon = float(positive("noise_ratio", noise_ratio))
    critical = critical_noise_ratio(codimension)
    if (dim is None) != (growth is None):
        raise ValueError(
            f"dim and growth must be given together, got dim={dim!r}, growth={growth!r}"
        )
    settles = True
    if dim is not None:
        d, p = count("dim", dim), float(positive("growth", growth))
        if d < codimension:
            raise ValueError(f"dim must be at least codimension = {codimension}, got {d}")
        alpha = loss_exponent(epsilon)
        recurrent = alpha >= 1 + (d - 2) / p
        # On a quadratic the law at infinity has the exponent of the law at zero, so that "below
        # critical" is already "no escape"; only faster growth adds a threshold of its own.
        settles = recurrent and alpha * p > d if epsilon > critical else p <= 2 or recurrent
    if epsilon == critical:
        return "critical"
    if epsilon < critical:
        return "collapse" if settles else "bistable"
    return "ergodic" if settles else "explosive"


def mean_loss_contraction(
    learning_rate: Any, smoothness: Any, gradient_dominance: Any, noise_trace_scale: Any
) -> float:
    """The factor ρ with E L_{k+1} ≤ ρ E L_k: the mean loss contracts iff ρ < 1.

        ρ = 1 − Λη + C_L(Λ + σ_I)η²/2

    for a loss with `smoothness`-Lipschitz gradient (C_L), |∇L|² ≥ ΛL (`gradient_dominance`) and
    E|ĝ−∇L|² ≤ σ_I L (`noise_trace_scale`, a bound on the trace: qσ where C = σLI). Equality holds
    for L = ½h|y|² in q dimensions with isotropic noise, Λ = 2h, C_L = h.

    Raises `ValueError` for η > 2/C_L. Source: Wojtowytsch (2021), arXiv:2105.01650.

    >>> round(mean_loss_contraction(0.1, 1.0, gradient_dominance=2.0, noise_trace_scale=2.0), 4)
    0.82
    """
    eta, c = (
        float(positive("learning_rate", learning_rate)),
        float(positive("smoothness", smoothness)),
    )
    dominance = float(positive("gradient_dominance", gradient_dominance))
    sigma = float(non_negative("noise_trace_scale", noise_trace_scale))
    if eta > 2 / c:
        raise ValueError(f"learning_rate must be at most 2/smoothness = {2 / c:.6g}, got {eta:.6g}")
    return 1 - dominance * eta + c * (dominance + sigma) * eta**2 / 2


def contraction_learning_rate(
    smoothness: Any, gradient_dominance: Any, noise_trace_scale: Any
) -> float:
    """2Λ/(C_L(Λ + σ_I)): below it `mean_loss_contraction` is below one.

    >>> round(contraction_learning_rate(1.0, gradient_dominance=2.0, noise_trace_scale=2.0), 4)
    1.0
    """
    dominance = float(positive("gradient_dominance", gradient_dominance))
    sigma = float(non_negative("noise_trace_scale", noise_trace_scale))
    return 2 * dominance / (float(positive("smoothness", smoothness)) * (dominance + sigma))


def relaxation_rate(noise_ratio: Any, codimension: int, curvature: Any) -> float:
    """εh(q−2α)²/16, the bottom of the essential spectrum at 𝓜, per unit time t = ηk.

    For isotropic curvature h in the q normal directions. It vanishes as α ↑ q/2 (critical slowing
    down): simulate at least five times its inverse. Source: derived.

    >>> round(float(relaxation_rate(4.0, codimension=6, curvature=1.0)), 4)
    2.25
    """
    epsilon = float(positive("noise_ratio", noise_ratio))
    h, q = float(positive("curvature", curvature)), count("codimension", codimension)
    return epsilon * h * (q - 2 * loss_exponent(epsilon)) ** 2 / 16
