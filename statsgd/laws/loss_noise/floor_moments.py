"""The chain under loss-scaled noise with a floor: exact moments, tails, wells and escape."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import fraction, non_negative, positive, real, symmetric
from statsgd.laws.bases.nested import log_nested_integral
from statsgd.laws.heavy_tails.kesten import gaussian_tail_index
from statsgd.laws.law import ImproperLawError
from statsgd.laws.loss_noise.setting import loss_exponent


class FloorMoments(NamedTuple):
    """Exact stationary second moments of the chain with noise σ(L + c₀)I on a quadratic."""

    feedback: float
    """Q, the share of the noise that the loss itself feeds back; finite moments iff Q < 1."""
    mean_loss: float
    """E L = c₀Q/(1−Q)."""
    variance: Float[Any, " d"]
    """Var θ in the eigenbasis of H, in the order of the eigenvalues given."""


def floor_second_moments(
    curvatures: Any,
    noise_scale: Any,
    floor: Any,
    learning_rate: Any,
    momentum: Any = 0.0,
    weight_decay: Any = 0.0,
) -> FloorMoments:
    """Exact second moments of heavy-ball SGD on ½Σh_iθ_i² with C = σ(L + c₀)I.

    With h̃_i = h_i + λ and v_i = (η/h̃_i)(1+β)/((1−β)(2(1+β) − ηh̃_i)),

        Q = (σ/2) Σ h_i v_i,     E L = c₀Q/(1−Q),     Var θ_i = σc₀v_i/(1−Q)

    **Arguments:** `curvatures` h `(d,)`, `noise_scale` σ, `floor` c₀, η, β, λ.

    Raises `ImproperLawError` unless Q < 1 and 0 < ηh̃_i < 2(1+β). Source: derived.

    >>> found = floor_second_moments([1.0, 4.0], noise_scale=1.0, floor=1.0, learning_rate=0.1)
    >>> found.variance.round(4), round(float(found.mean_loss), 4)
    (array([0.0558, 0.0166]), 0.0611)
    """
    h = np.atleast_1d(non_negative("curvatures", curvatures))
    sigma, c0 = float(positive("noise_scale", noise_scale)), float(non_negative("floor", floor))
    eta, beta = (
        float(positive("learning_rate", learning_rate)),
        float(fraction("momentum", momentum)),
    )
    stiffness = h + float(non_negative("weight_decay", weight_decay))
    limit = 2 * (1 + beta)
    reach = eta * stiffness
    if not np.all((reach > 0) & (reach < limit)):
        raise ImproperLawError(
            f"learning_rate*(h + weight_decay) must lie in (0, 2(1+momentum)) = (0, {limit:.6g}), "
            f"got {reach.tolist()}"
        )
    v = eta / stiffness * (1 + beta) / ((1 - beta) * (limit - reach))
    feedback = float(sigma / 2 * np.sum(h * v))
    if not feedback < 1:
        raise ImproperLawError(f"second moment of the chain diverges: Q = {feedback:.4g} >= 1")
    rest = 1 - feedback
    return FloorMoments(feedback, c0 * feedback / rest, sigma * c0 * v / rest)


def regression_tail_index(learning_rate: Any, batch_size: int = 1) -> float:
    """The exponent κ with P(|θ| > x) ~ x^(−κ) for the chain of `label_noise_regression`.

    The root of E|1 − ηA|^κ = 1, A the mean of S squared standard normals (Kesten), as
    `heavy_tails.gaussian_tail_index` has it for any number of parameters. The SDE
    law has ν = 1 + S/η in its place. At small steps κ is above it, and the tails of the chain are
    lighter: 17.28 against 11 at η = 0.1, S = 1. They are heavier for η > 0.472 at S = 1, 0.577 at
    S = 2 and 0.615 at S = 4 and 8.

    Raises `ImproperLawError` where E log|1 − ηA| ≥ 0: the chain is not stationary. Source: derived.

    >>> round(regression_tail_index(0.1), 2)
    17.28
    """
    return gaussian_tail_index(learning_rate, batch_size)


def floor_well_weights(hessians: Any, floors: Any, noise_ratio: Any) -> Float[Any, " wells"]:
    """Relative weights of minima with losses c_i > 0 under C = σL I: a power law in the height.

        weight_i ∝ det(H_i)^(−1/2) c_i^(d/2−α),     α = 1 + 2/ε

    (Laplace approximation of L^(−α); under Gibbs the height would count exponentially.)

    **Arguments:** `hessians` `(wells, d, d)`, or `(wells,)` curvatures in one dimension; `floors`
    `(wells,)`. They sum to one. Source: derived.

    >>> floor_well_weights([1.0, 1.0], floors=[1.0, 2.0], noise_ratio=1.0).round(4)
    array([0.8498, 0.1502])
    """
    matrices = np.asarray(real("hessians", hessians, allowed="finite", valid=np.isfinite))
    if matrices.ndim == 1:
        matrices = matrices[:, None, None]
    c = np.atleast_1d(positive("floors", floors))
    if matrices.ndim != 3 or len(matrices) != len(c):
        raise ValueError(
            f"hessians must have shape ({len(c)}, d, d) for {len(c)} floors, got {matrices.shape}"
        )
    checked = [symmetric(f"hessians[{i}]", m, definite="positive") for i, m in enumerate(matrices)]
    alpha = loss_exponent(float(positive("noise_ratio", noise_ratio)))
    log_weight = [
        -np.linalg.slogdet(m)[1] / 2 + (m.shape[0] / 2 - alpha) * np.log(value)
        for m, value in zip(checked, c, strict=True)
    ]
    weight = np.exp(log_weight - np.max(log_weight))
    return weight / np.sum(weight)


def log_loss_mfpt(
    minimum_loss: Any,
    saddle_loss: Any,
    minimum_hessian: Any,
    saddle_hessian: Any,
    noise_ratio: Any,
) -> float:
    """Mean time over a saddle under C = σL I, in t = ηk: the barrier is log L, not L.

        T = (2π/|h_s|) √(|det H_s|/det H_a) (L_s/L_a)^(α−d/2)

    with h_s the one negative eigenvalue of the saddle's Hessian; relative error O(1/α). For
    α < d/2 the exponent is negative and there is no barrier. Losses include a floor where there
    is one. `log_loss_mfpt_1d` is exact in one dimension. Source: derived.

    >>> round(log_loss_mfpt(0.1, 0.5, [[2.0]], [[-1.0]], noise_ratio=0.5), 1)
    6209.1
    """
    low, high = (
        float(positive("minimum_loss", minimum_loss)),
        float(positive("saddle_loss", saddle_loss)),
    )
    bottom = symmetric("minimum_hessian", np.atleast_2d(minimum_hessian), definite="positive")
    top = symmetric("saddle_hessian", np.atleast_2d(saddle_hessian), dimension=len(bottom))
    curvatures = np.linalg.eigvalsh(top)
    if not (curvatures[0] < 0 and np.all(curvatures[1:] > 0)):
        raise ValueError(
            "saddle_hessian must have exactly one negative eigenvalue and no zero, got "
            f"{curvatures.tolist()}"
        )
    alpha = loss_exponent(float(positive("noise_ratio", noise_ratio)))
    ratio = np.abs(np.prod(curvatures)) / np.linalg.det(bottom)
    barrier = (alpha - len(bottom) / 2) * np.log(high / low)
    return float(2 * np.pi / abs(curvatures[0]) * np.sqrt(ratio) * np.exp(barrier))


def log_loss_mfpt_1d(
    loss: Callable[[Float[Any, " n"]], Float[Any, " n"]],
    start: float,
    end: float,
    noise_ratio: Any,
    *,
    reflect_at: float,
) -> float:
    """Exact mean time of the SDE from `start` to `end` > `start` in one dimension, in t = ηk.

        T = ∫_start^end dy L(y)^(2/ε) ∫_{reflect_at}^y (2/ε) L(z)^(−1−2/ε) dz

    `loss` is a NumPy function, positive on [reflect_at, end]; `reflect_at` ≤ start stands for −∞
    and must lie where L^(−α) has no mass left. The quadrature is adaptive: warns
    (`UnresolvedWarning`) where it is off by more than 10⁻³, `IntractableError` above a tenth.

    >>> loss = lambda x: 0.1 + (x**2 - 1) ** 2 / 4
    >>> round(log_loss_mfpt_1d(loss, -1.0, 1.0, noise_ratio=0.5, reflect_at=-4.0))
    1218
    """
    power = 2 / float(positive("noise_ratio", noise_ratio))
    if not reflect_at <= start < end:
        raise ValueError(
            f"reflect_at <= start < end must hold, got {reflect_at}, {start} and {end}"
        )

    def log_loss(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        values = np.asarray(loss(x), dtype=np.float64)
        if not np.all(values > 0):
            raise ValueError(
                f"loss must be positive on [reflect_at, end], got {np.min(values):.4g}"
            )
        return np.log(values)

    def log_outer(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return np.where(x >= start, power * log_loss(x), -np.inf)

    def log_inner(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return np.log(power) - (1 + power) * log_loss(x)

    time = log_nested_integral(log_outer, log_inner, reflect_at, end, [start])
    return time.number("mean first passage time")
