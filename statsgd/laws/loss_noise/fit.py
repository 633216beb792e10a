"""How far measured gradient noise is loss-scaled: slope, floor, and departure from isotropy."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from statsgd.arguments import count, finite_array


class LossNoiseFit(NamedTuple):
    """C ≈ σ(L + c₀)I fitted to measured covariance traces, with standard errors."""

    strength: float
    """σ, slope of (trace C)/q against L; of one example or of a batch, as the traces are."""
    strength_error: float
    floor: float
    """c₀ = intercept/slope."""
    floor_error: float
    r_squared: float
    """Share of the variance of the traces that the line explains."""
    radial_ratio: float | None
    """Mean of q·uᵀCu/Tr C, u the direction away from the zero-loss set: 1 if isotropic,
    2q/(q+1) for linear regression with one example. None if no radial variances were given."""
    radial_ratio_error: float | None

    @property
    def isotropic(self) -> bool | None:
        """Whether the radial ratio is within 0.1 of one; None if it was not measured.

        Otherwise the laws of isotropic loss-scaled noise have wrong exponents and thresholds.
        """
        return None if self.radial_ratio is None else abs(self.radial_ratio - 1) <= 0.1


def fit_loss_scaled_noise(
    loss_values: Any, covariance_traces: Any, codimension: int, radial_variances: Any = None
) -> LossNoiseFit:
    """Fit C = σ(L + c₀)I to noise covariances measured at several points, by least squares.

    With traces of ONE example's covariance Σ₁ the slope is σ₁: then σ = σ₁/S with replacement or
    fresh, σ₁(N−S)/(S(N−1)) without. The floor is the same for both.

    **Arguments:** `loss_values` `(n,)`; `covariance_traces` `(n,)`, Tr C there; `codimension` q,
    the number of directions that carry the noise; `radial_variances` `(n,)`, uᵀCu with u the unit
    vector from the nearest zero-loss point, to test isotropy.

    Warns where the radial ratio is off one by more than 0.1. Raises `ValueError` for fewer than
    three points or equal losses.

    >>> found = fit_loss_scaled_noise([1.0, 2.0, 3.0], [8.0, 12.0, 16.0], codimension=2)
    >>> round(float(found.strength), 4), round(float(found.floor), 4)  # tr C = 2·2(L + 1)
    (2.0, 1.0)
    """
    q = count("codimension", codimension)
    loss = np.asarray(finite_array("loss_values", loss_values, ndim=1), dtype=np.float64)
    traces = np.asarray(finite_array("covariance_traces", covariance_traces, ndim=1), np.float64)
    n = len(loss)
    if n < 3 or traces.shape != (n,):
        raise ValueError(
            "loss_values and covariance_traces must have one common length of at least 3, got "
            f"{n} and {len(traces)}"
        )
    spread = float(np.sum((loss - loss.mean()) ** 2))
    if spread == 0:
        raise ValueError("loss_values must not all be equal: the slope is undetermined")
    variance = traces / q
    slope = float(np.sum((loss - loss.mean()) * variance) / spread)
    intercept = float(variance.mean() - slope * loss.mean())
    residual = variance - intercept - slope * loss
    noise = float(residual @ residual) / (n - 2)
    slope_error = np.sqrt(noise / spread)
    # c₀ = intercept/slope by the delta method, with Cov(intercept, slope) = −mean·Var(slope).
    floor = intercept / slope
    reach = loss.mean() + floor
    floor_error = np.sqrt(noise / n + reach**2 * slope_error**2) / abs(slope)
    total = float(np.sum((variance - variance.mean()) ** 2))
    r_squared = 1 - float(residual @ residual) / total if total > 0 else 0.0
    ratio = ratio_error = None
    if radial_variances is not None:
        radial = np.asarray(finite_array("radial_variances", radial_variances, ndim=1), np.float64)
        if radial.shape != (n,):
            raise ValueError(f"radial_variances must have length {n}, got {len(radial)}")
        ratios = q * radial / traces
        ratio, ratio_error = float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(n))
    fit = LossNoiseFit(
        slope, float(slope_error), floor, float(floor_error), r_squared, ratio, ratio_error
    )
    if fit.isotropic is False:
        warnings.warn(
            f"the radial ratio of the noise is {ratio:.3g}, not within 0.1 of one: laws of "
            "isotropic loss-scaled noise have other exponents and thresholds",
            stacklevel=2,
        )
    return fit
