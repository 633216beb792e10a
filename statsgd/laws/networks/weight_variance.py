"""How the variance of weights depends on curvature: exponents, finite windows, linear networks."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, fraction, non_negative, one_of, positive, real
from statsgd.laws.minimum.epoch_noise import EpochNoiseGaussian
from statsgd.laws.minimum.heavy_ball import heavy_ball_moments, require_stable_mean


def log_loss_flatness(loss: Any, curvature: Any) -> Any:
    """Width F = 2√(2(e−1)L₀/h) over which ln L of a quadratic rises by one above L₀.

    Source: Feng, Tu (2021), arXiv:2001.01678, for the definition.

    >>> round(float(log_loss_flatness(1.0, curvature=4.0)), 4)
    1.8538
    """
    return 2 * np.sqrt(2 * (math.e - 1) * positive("loss", loss) / positive("curvature", curvature))


def variance_flatness_exponent(
    curvature: Any,
    learning_rate: Any,
    num_batches: int,
    momentum: Any = 0.0,
    *,
    noise_exponent: Any = 1.0,
    statistic: str = "white",
) -> float:
    """Local exponent ψ of variance against flatness, σ² ~ F^(−ψ), for noise C ∝ H^p.

    F ∝ h^(−1/2), so ψ = 2 d ln σ²/d ln h, taken on the exact quadratic law at `curvature` h.

    - `"white"`: i.i.d. batches; 2(p−1).
    - `"average"`: reshuffled, at a random step; 2p for flat modes, 2(p−1) for steep ones.
    - `"end"`: reshuffled, after whole epochs; 2(p+1) for flat modes without momentum, 2p below the
      floor that momentum leaves, 2(p−1) for steep modes.

    So ψ = 4 can come from p = 2 with time averages or from p = 1 at epoch ends.

    Source: Feng, Tu (2021), arXiv:2001.01678, for the relation; the exponents are derived.

    >>> exponent = variance_flatness_exponent(1e-3, 0.1, num_batches=10, noise_exponent=2.0)
    >>> round(exponent, 3)  # 2(p − 1)
    2.0
    """
    h = float(positive("curvature", curvature))
    eta = float(positive("learning_rate", learning_rate))
    beta = float(fraction("momentum", momentum))
    p = float(
        real("noise_exponent", noise_exponent, allowed="a finite number", valid=lambda x: x == x)
    )
    count("num_batches", num_batches, at_least=2)
    one_of("statistic", statistic, ("white", "average", "end"))
    require_stable_mean(np.array([h]), eta, beta)

    def log_variance(log_h: float) -> float:
        value = np.exp(log_h)
        if statistic == "white":
            variance = heavy_ball_moments(np.array([value]), np.ones((1, 1)), eta, beta)[0]
        else:
            phase: int | str = "random" if statistic == "average" else 0
            law = EpochNoiseGaussian([[value]], [[1.0]], eta, num_batches, beta, phase=phase)
            variance = np.asarray(law.covariance())
        return p * log_h + np.log(variance[0, 0])

    step = 1e-3
    rise = log_variance(np.log(h) + step) - log_variance(np.log(h) - step)
    return float(2 * rise / (2 * step))


def window_variance(
    curvature: Any, noise_variance: Any, learning_rate: Any, window: int
) -> Float[Any, "..."]:
    """Expected variance within a window of T steps of a stationary run: white noise, no momentum.

        Γ(0) [1 − (1+a)/(T(1−a)) + 2a(1−a^T)/(T²(1−a)²)],  a = 1 − ηh,  Γ(0) = ηc/(h(2 − ηh))

    For T ≪ 1/(ηh) it is η²cT/6: flat directions then show the noise alone, not a stationary
    variance. Raises `ImproperLawError` unless 0 < ηh < 2. Source: *derived*.

    >>> float(window_variance(1e-6, 1.0, learning_rate=0.1, window=10).round(4))
    0.0165
    """
    h, c = positive("curvature", curvature), non_negative("noise_variance", noise_variance)
    eta, t = positive("learning_rate", learning_rate), count("window", window)
    require_stable_mean(np.atleast_1d(h), float(eta), 0.0)
    gap = eta * h
    full = eta * c / (h * (2 - gap))
    # 1 − a^T without rounding: for short windows the two terms nearly cancel.
    decayed = -np.expm1(t * np.log1p(-np.minimum(gap, 0.5)))
    decayed = np.where(gap < 0.5, decayed, 1 - (1 - gap) ** t)
    lost = (2 - gap) / (t * gap) - 2 * (1 - gap) * decayed / (t * gap) ** 2
    return full * (1 - lost)


class TwoLayerCovariance(NamedTuple):
    """Fluctuations of the pairs (δW₂,ij, δW₁,ij), each array of shape `(outputs, inputs)`."""

    output: Float[Any, "i j"]
    """Var δW₂,ij."""
    input: Float[Any, "i j"]
    """Var δW₁,ij."""
    cross: Float[Any, "i j"]
    """Cov(δW₂,ij, δW₁,ij)."""
    temperature: float
    """T = ηs₂/(2S), the variance of the one fluctuating combination of a pair."""


def two_layer_linear_covariance(
    output_factors: Any,
    input_factors: Any,
    learning_rate: Any,
    label_noise: Any,
    batch_size: int,
) -> TwoLayerCovariance:
    """Weight fluctuations of a two-layer linear network at a minimum, to leading order in η.

    Loss ½|W₂W₁x − y|² an example, in the singular bases of W₂W₁: factors w₂ᵢ and w₁ⱼ whose
    products are the singular values. Each pair has a Hessian of rank one, with noise proportional
    to it, so its covariance is T times the projector on (w₁ⱼ, w₂ᵢ):

        Var δW₂,ij = T w₁ⱼ²/(w₁ⱼ² + w₂ᵢ²);   balanced: T s_j/(s_i + s_j)

    The input variances drop out. Variance within one layer grows with that layer's curvature,
    though the whole covariance is isotropic on the row space. The neutral direction of a pair
    feels no force at this order: quasi-stationary only, and for balanced starts.

    **Arguments:** `output_factors` w₂ `(i,)`, `input_factors` w₁ `(j,)`, positive; `label_noise`
    s₂, the variance of y given x.

    Source: Gross, Raulf, Räth (2024), arXiv:2311.14120, for the effect; the formula is derived.

    >>> found = two_layer_linear_covariance([1.0], [2.0], 0.1, label_noise=1.0, batch_size=10)
    >>> round(float(found.output[0, 0] / found.temperature), 4)  # w₁²/(w₁² + w₂²)
    0.8
    """
    outer = np.atleast_1d(positive("output_factors", output_factors))[:, None] ** 2
    inner = np.atleast_1d(positive("input_factors", input_factors)) ** 2
    noise = positive("label_noise", label_noise) / count("batch_size", batch_size)
    temperature = float(positive("learning_rate", learning_rate) * noise / 2)
    total = outer + inner
    return TwoLayerCovariance(
        temperature * inner / total,
        temperature * outer / total,
        temperature * np.sqrt(inner * outer) / total,
        temperature,
    )
