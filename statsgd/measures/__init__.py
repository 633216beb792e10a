"""What is measured on either side."""

from statsgd.dynamics.noise import noise_covariance
from statsgd.measures.alignment import (
    AlignmentWarning,
    LossScaledAlignment,
    alignment_coefficient,
    alignment_range,
    gaussian_loss_scaled_alignment,
    isotropic_ratio,
    isotropic_ratio_bound,
    loss_scaled_alignment,
    output_gradients,
)
from statsgd.measures.sharpness import ExpectedSharpness, expected_sharpness
from statsgd.measures.stability import (
    StabilityBounds,
    fresh_mean_square_threshold,
    mean_square_growth,
    mean_square_threshold,
    momentum_mean_square_growth,
    stability_bounds,
)
from statsgd.problems import hessian

__all__ = [
    "AlignmentWarning",
    "ExpectedSharpness",
    "LossScaledAlignment",
    "StabilityBounds",
    "alignment_coefficient",
    "alignment_range",
    "expected_sharpness",
    "fresh_mean_square_threshold",
    "gaussian_loss_scaled_alignment",
    "hessian",
    "isotropic_ratio",
    "isotropic_ratio_bound",
    "loss_scaled_alignment",
    "mean_square_growth",
    "mean_square_threshold",
    "momentum_mean_square_growth",
    "noise_covariance",
    "output_gradients",
    "stability_bounds",
]
