"""Drift of sharpness-aware minimisation and of SGD along a valley of equal minima."""

from typing import Any

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from statsgd.arguments import non_negative, positive, symmetric


def sharpness_aware_drift(
    hessian: Any, slope: Any, noise_covariance: Any, learning_rate: Any, radius: Any = 0.0
) -> float:
    """E Δu a step along a valley L = ½xᵀH(u)x, from the fluctuations of x across it.

        E Δu = −(η/2) Tr[∂_uH M],   M = (I+ρH)P(I+ρH) + ρ²C

    P the stationary covariance of x under unnormalised sharpness-aware minimisation that climbs the
    gradient of the same batch, at ρ = 0 under SGD. The part ρ²C stays as η → 0: for C = cI the
    drift is down (ρ²c/2) Tr H there. Leading order in how slowly u moves.

    **Arguments:** `hessian` H `(d, d)`, positive definite, and `slope` ∂_uH; `noise_covariance` C;
    `learning_rate` η; `radius` ρ ≥ 0. Unit of u.

    Raises `ValueError` for other shapes, and where x is unstable. Source: *derived*, after Wen, Ma,
    Li (2023), arXiv:2211.05729.

    >>> import numpy as np
    >>> H, slope = np.array([[2.0]]), np.array([[1.0]])
    >>> round(sharpness_aware_drift(H, slope, np.eye(1), learning_rate=0.1, radius=0.1), 5)
    -0.00295
    """
    h = symmetric("hessian", hessian, definite="positive")
    d = len(h)
    bend = symmetric("slope", slope, dimension=d)
    c = symmetric("noise_covariance", noise_covariance, dimension=d, definite="semi")
    eta = float(positive("learning_rate", learning_rate))
    rho = float(non_negative("radius", radius))
    reach = np.eye(d) + rho * h
    step = np.eye(d) - eta * h @ reach
    growth = float(np.max(np.abs(np.linalg.eigvalsh(step))))
    if growth >= 1:
        raise ValueError(
            f"learning_rate must keep ηh(1+ρh) below 2 for every eigenvalue h of hessian, got "
            f"{eta}, where a step multiplies by {growth:.6g}"
        )
    spread = solve_discrete_lyapunov(step, eta**2 * reach @ c @ reach)
    fluctuations = reach @ spread @ reach + rho**2 * c
    return float(-eta / 2 * np.trace(bend @ fluctuations))
