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
from statsgd.measures.climb import loss_climb, loss_climb_dataset
from statsgd.measures.measured import (
    Measured,
    bootstrap,
    correlation_time,
    jackknife,
    mean_over_clusters,
    mean_over_runs,
    stretches,
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
from statsgd.measures.survival import (
    ExitTimes,
    Rate,
    RestrictedMean,
    Survival,
    escape_rate,
    exit_times,
    first_exit,
    restricted_mean,
    survival,
    survival_dataset,
)
from statsgd.measures.trajectories import Trajectories, endpoint_trajectories, trajectories
from statsgd.problems import hessian

__all__ = [
    "AlignmentWarning",
    "ExitTimes",
    "ExpectedSharpness",
    "LossScaledAlignment",
    "Measured",
    "Rate",
    "RestrictedMean",
    "StabilityBounds",
    "Survival",
    "Trajectories",
    "alignment_coefficient",
    "alignment_range",
    "bootstrap",
    "correlation_time",
    "endpoint_trajectories",
    "escape_rate",
    "exit_times",
    "expected_sharpness",
    "first_exit",
    "fresh_mean_square_threshold",
    "gaussian_loss_scaled_alignment",
    "hessian",
    "isotropic_ratio",
    "isotropic_ratio_bound",
    "jackknife",
    "loss_climb",
    "loss_climb_dataset",
    "loss_scaled_alignment",
    "mean_over_clusters",
    "mean_over_runs",
    "mean_square_growth",
    "mean_square_threshold",
    "momentum_mean_square_growth",
    "noise_covariance",
    "output_gradients",
    "restricted_mean",
    "stability_bounds",
    "stretches",
    "survival",
    "survival_dataset",
    "trajectories",
]
