"""How a Gibbs-like law divides its mass between wells at low temperature, and flat-minimum bias."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array, non_negative, positive, symmetric


def well_weights(
    hessians: Sequence[Any], heights: Any, temperature: Any, *, discrete_step: Any = 0.0
) -> Float[Any, " wells"]:
    """Probabilities of wells under the Gibbs law, by Laplace's method.

    weight_i ∝ det(H_i)^(−1/2) exp(−L_i/τ), relative error O(τ). At equal heights the ratio is
    √(det H_2/det H_1) at every batch size: flatter wells weigh more.

    **Arguments:** `hessians`, one positive definite `(d, d)` matrix a well; `heights` L_i
    `(wells,)`; `temperature` τ; `discrete_step` e = η/(1+β), zero by default, multiplies the
    weights by `discrete_well_factor`.

    Source: Dai, Zhu (2018), arXiv:1812.00542, for the preference; the discrete factor is derived.

    >>> well_weights([[[1.0]], [[9.0]]], [0.0, 0.0], temperature=0.1)
    array([0.75, 0.25])
    """
    logs = -0.5 * _log_determinants(hessians)
    logs = logs - _per_well("heights", heights, hessians) / positive("temperature", temperature)
    return _normalised(logs + np.log(discrete_well_factor(hessians, discrete_step)))


def effective_well_weights(
    hessians: Sequence[Any], effective_losses: Any, noise_variances: Any, learning_rate: Any
) -> Float[Any, " wells"]:
    """Probabilities of wells when the noise is isotropic but varies, C = c(θ)I.

    weight_i ∝ c_i^(d/2−1) det(H_i)^(−1/2) exp(−(2/η)Φ_i) with ∇Φ = ∇L/c
    (`EffectivePotentialGibbs.effective_loss`). Equal heights of L are equal heights of Φ only if
    c is a function of the loss; otherwise the well reached through weaker noise wins,
    exponentially in the batch size.

    Source: derived.

    >>> weights = effective_well_weights([[[1.0]], [[1.0]]], [0.0, 0.0], [1.0, 4.0], 0.1)
    >>> weights.round(4)
    array([0.6667, 0.3333])
    """
    phi = _per_well("effective_losses", effective_losses, hessians)
    c = positive("noise_variances", _per_well("noise_variances", noise_variances, hessians))
    d = np.shape(hessians[0])[0]
    logs = (d / 2 - 1) * np.log(c) - 0.5 * _log_determinants(hessians)
    return _normalised(logs - 2 * phi / positive("learning_rate", learning_rate))


def discrete_well_factor(hessians: Sequence[Any], discrete_step: Any) -> Float[Any, " wells"]:
    """exp(−(e/4) Tr H_i), by which the discrete chain changes the weight of well i.

    To first order in the learning rate, with e = η/(1+β) and ηh ≪ (1−β)²: SGD prefers flat minima
    more than its diffusion limit, by a factor that does not depend on the batch size. Derived.

    >>> discrete_well_factor([[[1.0]], [[9.0]]], discrete_step=0.1).round(4)
    array([0.9753, 0.7985])
    """
    step = non_negative("discrete_step", discrete_step)
    traces = np.array([np.trace(symmetric("hessians", matrix)) for matrix in hessians])
    return np.exp(-step / 4 * traces)


def equal_weight_temperature(flat_hessian: Any, sharp_hessian: Any, height: Any) -> float:
    """τ* = Δ/(½ log(det H_sharp/det H_flat)): a flat and a lower sharp well weigh the same.

    `height` Δ > 0 is that of the flat minimum above the sharp one; below τ* the sharp well wins.
    Raises `ValueError` unless det H_sharp > det H_flat. Source: derived.

    >>> round(equal_weight_temperature([[1.0]], [[9.0]], height=0.1), 4)
    0.091
    """
    flat, sharp = _log_determinants([flat_hessian, sharp_hessian])
    if not sharp > flat:
        raise ValueError(
            "sharp_hessian must have the larger determinant, got log determinants "
            f"{sharp:.6g} (sharp) and {flat:.6g} (flat)"
        )
    return float(positive("height", height) / (0.5 * (sharp - flat)))


def equal_weight_batch_size(
    flat_hessian: Any,
    sharp_hessian: Any,
    height: Any,
    learning_rate: Any,
    example_noise_variance: Any,
) -> float:
    """S* = ηv₁/(2τ*), the batch size at `equal_weight_temperature`; larger batches go sharp.

    `example_noise_variance` v₁ is the variance of each coordinate of one example's gradient.

    >>> round(equal_weight_batch_size([[1.0]], [[9.0]], 0.1, 0.1, example_noise_variance=4.0), 4)
    2.1972
    """
    temperature = equal_weight_temperature(flat_hessian, sharp_hessian, height)
    variance = positive("example_noise_variance", example_noise_variance)
    return float(positive("learning_rate", learning_rate) * variance / (2 * temperature))


def _log_determinants(hessians: Sequence[Any]) -> Float[Any, " wells"]:
    checked = [symmetric("hessians", matrix, definite="positive") for matrix in hessians]
    if len({matrix.shape for matrix in checked}) != 1:
        raise ValueError(
            f"hessians must have one shape, got {[matrix.shape for matrix in checked]}"
        )
    return np.array([np.linalg.slogdet(matrix)[1] for matrix in checked])


def _per_well(name: str, values: Any, hessians: Sequence[Any]) -> Float[Any, " wells"]:
    array = np.asarray(finite_array(name, values, ndim=1), dtype=np.float64)
    if len(array) != len(hessians):
        raise ValueError(f"{name} must have one entry a well, {len(hessians)}, got {len(array)}")
    return array


def _normalised(logs: Float[Any, " wells"]) -> Float[Any, " wells"]:
    weights = np.exp(logs - np.max(logs))
    return weights / np.sum(weights)
