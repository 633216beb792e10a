"""Linear stability of SGD at an interpolating minimum, in mean square."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array, fraction, non_negative, one_of, positive
from statsgd.laws.minimum import gaussian_critical_learning_rate
from statsgd.laws.minimum.second_moments import (
    feedback_noise,
    moment_growth,
    stability_threshold,
)
from statsgd.measures.noise.alignment import alignment_range

_WHITE = ("with_replacement", "without_replacement")


class StabilityBounds(NamedTuple):
    """Learning rates above which SGD is unstable in mean square; all at least the threshold."""

    isotropic: float
    """2 Tr G/((1−b)‖G‖² + (b/N)Σ|a|⁴), from second moments ∝ I."""
    trace: float
    """2/(b Tr G)."""
    alignment: float
    """1/(‖G‖ √(b μ₀)), μ₀ the least alignment factor."""
    full_batch: float
    """2/h_max."""


def mean_square_threshold(
    gradients: Float[Any, "N d"], batch_size: int, sampling: str = "with_replacement"
) -> float:
    """The learning rate up to which an interpolating minimum is stable in mean square, exactly.

    Near such a minimum e = aᵀζ and ζ ← (I − ηG_B)ζ, G_B the batch mean of a aᵀ. Second moments P
    stay bounded iff η < 2/Λ, with Λ the largest eigenvalue of P ↦ X solving

        GX + XG = 2𝒟(P),    𝒟(P) = (1−b) GPG + (b/N) Σ (aᵀPa) a aᵀ

    and b = 1/S, or (N−S)/(S(N−1)) without repeats. Typical runs may converge above it, while the
    mean of the squares explodes. `batch_curvature_along` has that of a network along a few modes.

    **Arguments:** `gradients` a = ∇f of each example's output at the minimum, `(N, d)`;
    `batch_size` S; `sampling`, `"with_replacement"` or `"without_replacement"`.

    Raises `ValueError` for other sampling (shuffled epochs are not white), for vanishing
    gradients, and for S above N without repeats.

    Source: Wu, Wang, Su (2022), arXiv:2207.02628, and Wu, Su (2023), arXiv:2305.17490, for the
    setting; the exact threshold is derived.

    Numbers are float64.

    >>> import numpy as np
    >>> round(mean_square_threshold(np.ones((2, 1)), 1), 6)
    2.0
    """
    a, h, b = _setting(gradients, batch_size, sampling)
    return stability_threshold(lambda p: feedback_noise(a, h, b, p), h)


def mean_square_growth(
    gradients: Float[Any, "N d"],
    batch_size: int,
    learning_rate: float,
    sampling: str = "with_replacement",
) -> float:
    """Growth of E ζζᵀ per step: the spectral radius of P ↦ P − η(GP + PG) + η²𝒟(P).

    Below 1 iff η < `mean_square_threshold`. Arguments, errors and source as there.

    >>> import numpy as np
    >>> round(mean_square_growth(np.ones((2, 1)), 1, learning_rate=0.5), 6)  # (1 − η)²
    0.25
    """
    a, h, b = _setting(gradients, batch_size, sampling)
    eta = float(positive("learning_rate", learning_rate))
    return moment_growth(lambda p: feedback_noise(a, h, b, p), h, eta, 0.0)


def momentum_mean_square_growth(
    gradients: Float[Any, "N d"],
    batch_size: int,
    learning_rate: float,
    momentum: float,
    sampling: str = "with_replacement",
) -> float:
    """Growth per step of the second moments of (ζ, m) of heavy-ball SGD.

    The spectral radius of P ↦ E TPTᵀ, T = [[I−ηG_B, −ηβI], [G_B, βI]]. In every case computed
    momentum lowers the threshold, although it raises that of full batches. Arguments, errors and
    source as `mean_square_threshold`.

    >>> import numpy as np
    >>> growth = momentum_mean_square_growth(np.ones((2, 1)), 1, learning_rate=0.5, momentum=0.25)
    >>> round(growth, 6)
    0.25
    """
    a, h, b = _setting(gradients, batch_size, sampling)
    eta = float(positive("learning_rate", learning_rate))
    beta = float(fraction("momentum", momentum))
    return moment_growth(lambda p: feedback_noise(a, h, b, p), h, eta, beta)


def stability_bounds(
    gradients: Float[Any, "N d"], batch_size: int, sampling: str = "with_replacement"
) -> StabilityBounds:
    """Four necessary conditions on η that cost no iteration; see `StabilityBounds`.

    With S = 1 the second reads Tr G ≤ 2/η, with replacement the third ‖G‖ ≤ √(S/μ₀)/η. Arguments
    and errors as `mean_square_threshold`.

    Source: Wu, Wang, Su (2022), arXiv:2207.02628; Wu, Su (2023), arXiv:2305.17490.

    >>> import numpy as np
    >>> round(stability_bounds(np.array([[1.0, 0.0], [0.0, 1.0]]), 1).trace, 6)  # 2/Tr G
    2.0
    """
    a, h, b = _setting(gradients, batch_size, sampling)
    fourth = np.mean(np.sum(a**2, axis=1) ** 2)
    lowest = max(alignment_range(a)[0], 0.0)
    with np.errstate(divide="ignore"):
        return StabilityBounds(
            float(2 * h.sum() / ((1 - b) * np.sum(h**2) + b * fourth)),
            float(np.divide(2, b * h.sum())),
            float(np.divide(1, np.linalg.norm(h) * np.sqrt(b * lowest))),
            float(2 / h.max()),
        )


def fresh_mean_square_threshold(covariance_eigenvalues: Any, batch_size: int) -> float:
    """The same threshold for fresh Gaussian inputs, from the eigenvalues ω of their covariance.

    Stable iff ηω(1 + 1/S) < 2 for every ω and Σ ηω/(2 − ηω(1 + 1/S)) < S; 2S/(S + d + 1) for
    ω = 1. Infinite without any inputs, ω = 0. Source: derived.

    >>> round(fresh_mean_square_threshold([1.0, 1.0], 1), 6)  # 2S/(S + d + 1)
    0.5
    """
    omega = np.atleast_1d(non_negative("covariance_eigenvalues", covariance_eigenvalues))
    moving = omega[omega > 0]
    return gaussian_critical_learning_rate(np.diag(moving), batch_size) if len(moving) else np.inf


def _setting(gradients: Any, batch_size: int, sampling: str) -> tuple[Any, Any, float]:
    """Features in the eigenbasis of G on their span, its eigenvalues, and b."""
    a = np.asarray(finite_array("gradients", gradients, ndim=2), dtype=np.float64)
    number = len(a)
    b = repeat_factor(number, count("batch_size", batch_size), sampling)
    left, singular, _ = np.linalg.svd(a, full_matrices=False)
    kept = singular > 1e-10 * singular[0]
    if not singular[0] > 0:
        raise ValueError("gradients must not all vanish, got zeros")
    return left[:, kept] * singular[kept], singular[kept] ** 2 / number, b


def repeat_factor(number: int, size: int, sampling: str) -> float:
    """b, by which a batch of `size` of `number` examples scales the covariance of one."""
    if one_of("sampling", sampling, (*_WHITE, "reshuffle", "single_shuffle")) not in _WHITE:
        raise ValueError(f"white-noise threshold does not cover sampling={sampling!r}")
    if sampling == "with_replacement":
        return 1 / size
    if size > number:
        raise ValueError(f"batch_size must be at most the number of rows {number}, got {size}")
    return (number - size) / (size * max(number - 1, 1))
