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
from statsgd.measures.evaluation import Estimate
from statsgd.measures.flatness import FlatnessWidth, basin_volume, flatness_width, tube_mean
from statsgd.measures.learning_coefficient import (
    LearningCoefficient,
    effective_sample_size,
    local_learning_coefficient,
)
from statsgd.measures.noise_spectrum import (
    LeadingAlignment,
    LowRankNoise,
    NoiseAlignment,
    leading_alignment,
    low_rank_noise,
    noise_alignment,
)
from statsgd.measures.operators import (
    Operator,
    block_operator,
    curvature_matrix,
    fisher,
    fisher_operator,
    gauss_newton,
    gauss_newton_operator,
    hessian_operator,
    noise_operator,
)
from statsgd.measures.replicas import over_endpoints, over_replicas
from statsgd.measures.sharpness import ExpectedSharpness, expected_sharpness
from statsgd.measures.spectrum import (
    Eigenpairs,
    LogDeterminant,
    log_determinant,
    over_blocks,
    spectral_density,
    top_eigenpairs,
    trace,
    trace_of_square,
)
from statsgd.measures.square_loss import (
    SquareLossStability,
    square_loss_alignment,
    square_loss_stability,
)
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
    "Eigenpairs",
    "Estimate",
    "ExpectedSharpness",
    "FlatnessWidth",
    "LeadingAlignment",
    "LearningCoefficient",
    "LogDeterminant",
    "LossScaledAlignment",
    "LowRankNoise",
    "NoiseAlignment",
    "Operator",
    "SquareLossStability",
    "StabilityBounds",
    "alignment_coefficient",
    "alignment_range",
    "basin_volume",
    "block_operator",
    "curvature_matrix",
    "effective_sample_size",
    "expected_sharpness",
    "fisher",
    "fisher_operator",
    "flatness_width",
    "fresh_mean_square_threshold",
    "gauss_newton",
    "gauss_newton_operator",
    "gaussian_loss_scaled_alignment",
    "hessian",
    "hessian_operator",
    "isotropic_ratio",
    "isotropic_ratio_bound",
    "leading_alignment",
    "local_learning_coefficient",
    "log_determinant",
    "loss_scaled_alignment",
    "low_rank_noise",
    "mean_square_growth",
    "mean_square_threshold",
    "momentum_mean_square_growth",
    "noise_alignment",
    "noise_covariance",
    "noise_operator",
    "output_gradients",
    "over_blocks",
    "over_endpoints",
    "over_replicas",
    "spectral_density",
    "square_loss_alignment",
    "square_loss_stability",
    "stability_bounds",
    "top_eigenpairs",
    "trace",
    "trace_of_square",
    "tube_mean",
]
