"""Currents of a stationary run: areas swept, and entropy produced."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array, fraction, positive
from statsgd.estimate import Estimate
from statsgd.measures.runs.averages import cut, mean_over_clusters, mean_over_runs, stretch_count


def area_rate(
    params: Float[Any, "replica step d"], directions: Float[Any, "d k"] | None = None
) -> Estimate:
    """Area ½⟨θ_i dθ_j − θ_j dθ_i⟩ swept per step in each plane of two coordinates, `(d, d)`.

    From consecutive steps of stationary runs, params²; zero in detailed balance. With
    `directions`, in the planes of those columns. The prediction near a minimum is
    `laws.minimum.stochastic_area`.

    Raises `ValueError` for fewer than two steps and runs too short for an error.

    Source: Adhikari et al. (2023), arXiv:2306.03521.

    Numbers are float64.

    >>> import numpy as np
    >>> angles = 2 * np.pi * np.arange(10) / 10 + np.arange(8)[:, None]  # anticlockwise
    >>> turning = np.stack([np.cos(angles), np.sin(angles)], axis=-1)  # eight runs of ten steps
    >>> area_rate(turning).value.round(4).tolist()
    [[0.0, 0.2939], [-0.2939, 0.0]]
    """
    theta = _along(_steps("params", params, 2), directions)
    theta = theta - theta.mean(axis=(0, 1))
    cuts = stretch_count(theta)
    before, moves = cut(theta[:, :-1], cuts), cut(np.diff(theta, axis=1), cuts)
    outer = np.einsum("nti,ntj->nij", before, moves) / before.shape[1]
    return mean_over_clusters((outer - np.swapaxes(outer, 1, 2)) / 2)


def phase_plane_area_rate(
    params: Float[Any, "replica step d"],
    momentum_buffer: Float[Any, "replica step d"],
    directions: Float[Any, "d k"] | None = None,
) -> Estimate:
    """Area ½⟨x dv − v dx⟩ swept per step in the plane of each position x and its velocity v = −m.

    Negative: SGD turns clockwise. With `directions`, the eigenvectors of the Hessian say, along
    those columns. The prediction is `laws.minimum.phase_plane_area`. Raises as `area_rate`.

    Source: Kunin et al. (2021), arXiv:2107.09133.

    >>> import numpy as np
    >>> angles = 2 * np.pi * np.arange(10) / 10 + np.arange(8)[:, None]  # eight runs of ten steps
    >>> x, v = np.cos(angles)[..., None], -np.sin(angles)[..., None]  # clockwise
    >>> phase_plane_area_rate(x, -v).value.round(4)
    array([-0.2939])
    """
    x = _along(_steps("params", params, 2), directions)
    v = -_along(_steps("momentum_buffer", momentum_buffer, 2), directions)
    if x.shape != v.shape:
        raise ValueError(f"momentum_buffer must have shape {x.shape}, got {v.shape}")
    x = x - x.mean(axis=(0, 1))
    swept = x[:, :-1] * np.diff(v, axis=1) - v[:, :-1] * np.diff(x, axis=1)
    return mean_over_runs(0.5 * swept)


def entropy_production(
    params: Float[Any, "replica step d"],
    gradients: Float[Any, "replica step d"],
    learning_rate: Any,
    momentum: Any = 0.0,
    noise_covariance: Any = None,
) -> Estimate:
    """Entropy production of the sequence of θ, nats per step, from consecutive stationary steps.

    The mean of the log ratio of a step's probability to that of the step back, with the velocity
    reversed (it is odd under time reversal, as a sequence of θ read backwards has it). For Gaussian
    noise of covariance C and δ_k = θ_{k+1} − θ_k,

        σ_k = −(1−β) (δ_k + δ_{k−1})ᵀ (η²C)⁻¹ [η∇ + (1+β)(δ_k − δ_{k−1})/2],   ∇ = ∇L + λθ at θ_k

    which is exact for any loss, learning rate and momentum, and for C that varies with θ; its
    prediction near a minimum is `laws.minimum.entropy_production_rate` of a `HeavyBallGaussian`.
    One mode
    alone, or C that commutes with H, gives zero: the estimate may be negative within its error.

    **Arguments:** `gradients` ∇ at every step; `noise_covariance` C, `(d, d)` or `(replica, step,
    d, d)`, by default that of the steps' own noise, taken as constant.

    Raises `ValueError` for shapes that do not fit, fewer than three steps, runs too short for an
    error, and unless C is positive definite: without noise in a direction the rate is infinite.

    Source: Adhikari et al. (2023), arXiv:2306.03521, for the question; the estimator is derived.

    Numbers are float64.

    >>> import numpy as np
    >>> runs = np.random.default_rng(0).normal(size=(50, 40, 2))  # white: no direction of time
    >>> rate = entropy_production(runs, runs, learning_rate=1.0)
    >>> bool(abs(rate.deviation(0.0)) < 4)
    True
    """
    theta, grad = _steps("params", params, 3), _steps("gradients", gradients, 3)
    if grad.shape != theta.shape:
        raise ValueError(f"gradients must have shape {theta.shape}, got {grad.shape}")
    eta = float(positive("learning_rate", learning_rate))
    beta = float(fraction("momentum", momentum))
    moves, force = np.diff(theta, axis=1), eta * grad[:, 1:-1]
    before, after = moves[:, :-1], moves[:, 1:]
    if noise_covariance is None:
        kicks = (after - beta * before + force).reshape(-1, theta.shape[2])
        covariance = np.atleast_2d(np.cov(kicks.T))
    else:
        covariance = eta**2 * np.asarray(
            finite_array("noise_covariance", noise_covariance), dtype=np.float64
        )
        d = theta.shape[2]
        if covariance.shape not in ((d, d), (*theta.shape, d)):
            raise ValueError(
                f"noise_covariance must have shape {(d, d)} or {(*theta.shape, d)}, got "
                f"{covariance.shape}"
            )
        covariance = covariance[:, 1:-1] if covariance.ndim == 4 else covariance
    smallest = float(np.linalg.eigvalsh(covariance).min())
    if smallest <= 1e-10 * float(np.abs(covariance).max()):
        raise ValueError(
            "noise_covariance must be positive definite for an entropy production, got smallest "
            f"eigenvalue {smallest / eta**2:.6g}"
        )
    push = force + (1 + beta) * (after - before) / 2
    against = np.linalg.solve(covariance, push[..., None])[..., 0]
    return mean_over_runs(-(1 - beta) * np.sum((after + before) * against, axis=2))


def _steps(name: str, values: Any, at_least: int) -> np.ndarray:
    array = np.asarray(finite_array(name, values, ndim=3), dtype=np.float64)
    if array.shape[1] < at_least:
        raise ValueError(f"{name} must have at least {at_least} steps, got shape {array.shape}")
    return array


def _along(values: np.ndarray, directions: Any) -> np.ndarray:
    if directions is None:
        return values
    return values @ np.asarray(finite_array("directions", directions, ndim=2), dtype=np.float64)
