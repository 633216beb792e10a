"""What is measured on either side: functions, and the rooms they live in.

Types of results are reached through the module of the function that returns them, such as
`statsgd.measures.curvature.eigenpairs.Eigenpairs`; a number with its error is a
`statsgd.estimate.Estimate`.
"""

from statsgd.dynamics.noise import (
    example_slopes,
    noise_and_curvature_along,
    noise_covariance,
    noise_covariance_along,
    noise_covariance_along_estimate,
)
from statsgd.ensembles import endpoint_trajectories, trajectories
from statsgd.measures.balance.charges import (
    charge_change,
    charge_decay_rate,
    charge_identity,
    check_charge_identity,
    noise_equilibrium_residual,
    predicted_charge_change,
)
from statsgd.measures.balance.symmetries import (
    candidate_symmetries,
    exponential_symmetry,
    find_symmetries,
    rescaling_symmetry,
    scale_symmetry,
    symmetry_violation,
)
from statsgd.measures.curvature.coefficient_grid import learning_coefficient_grid
from statsgd.measures.curvature.eigenpairs import top_eigenpairs
from statsgd.measures.curvature.flatness import basin_volume, flatness_width, tube_mean
from statsgd.measures.curvature.learning_coefficient import local_learning_coefficient
from statsgd.measures.curvature.operators import (
    block_operator,
    curvature_matrix,
    fisher,
    fisher_operator,
    gauss_newton,
    gauss_newton_operator,
    hessian_operator,
    noise_operator,
)
from statsgd.measures.curvature.quadrature import log_determinant, spectral_density
from statsgd.measures.curvature.secant import secant_curvature
from statsgd.measures.curvature.sharpness import expected_sharpness
from statsgd.measures.curvature.traces import over_blocks, trace, trace_of_square
from statsgd.measures.escape.barrier import loss_barrier
from statsgd.measures.escape.basins import assign_basins, gradient_flow
from statsgd.measures.escape.climb import loss_climb
from statsgd.measures.escape.exits import (
    escape_rate,
    escape_rate_interval,
    exit_times,
    first_exit,
    restricted_mean,
    survival_curve,
)
from statsgd.measures.escape.passage import first_passage
from statsgd.measures.motion.currents import area_rate, entropy_production, phase_plane_area_rate
from statsgd.measures.motion.displacement import (
    anomalous_exponent,
    mean_square_step,
    squared_displacement,
)
from statsgd.measures.motion.fluctuations import (
    first_fluctuation_relation,
    fluctuation_dissipation,
    full_gradients,
    second_fluctuation_relation,
    stochastic_gradients,
)
from statsgd.measures.motion.mode_variance import equipartition, paired_variance_ratio
from statsgd.measures.motion.weight_variance import (
    ensemble_variance,
    power_law_fit,
    variance_exponent,
    window_variances,
)
from statsgd.measures.noise.alignment import (
    alignment_coefficient,
    alignment_range,
    gaussian_loss_scaled_alignment,
    isotropic_ratio,
    isotropic_ratio_bound,
    loss_scaled_alignment,
    output_gradients,
)
from statsgd.measures.noise.batch_curvature import batch_curvature_along
from statsgd.measures.noise.leading import leading_alignment, low_rank_noise, noise_alignment
from statsgd.measures.noise.mean_square import (
    fresh_mean_square_threshold,
    mean_square_growth,
    mean_square_threshold,
    momentum_mean_square_growth,
    stability_bounds,
)
from statsgd.measures.noise.noise_quadrature import (
    noise_spectrum,
    predicted_displacement,
    predicted_exponent,
    predicted_rise,
)
from statsgd.measures.noise.square_loss import square_loss_alignment, square_loss_stability
from statsgd.measures.runs.averages import (
    bootstrap,
    correlation_time,
    jackknife,
    mean_over_clusters,
    mean_over_runs,
)
from statsgd.measures.runs.replicas import over_endpoints, over_replicas
from statsgd.measures.tails.estimators import tail_index
from statsgd.measures.tails.gaussianity import batch_gaussianity, noise_excess_kurtosis
from statsgd.measures.tails.recorded import gradient_noise
from statsgd.problems import hessian

__all__ = [
    "alignment_coefficient",
    "alignment_range",
    "anomalous_exponent",
    "area_rate",
    "assign_basins",
    "basin_volume",
    "batch_curvature_along",
    "batch_gaussianity",
    "block_operator",
    "bootstrap",
    "candidate_symmetries",
    "charge_change",
    "charge_decay_rate",
    "charge_identity",
    "check_charge_identity",
    "correlation_time",
    "curvature_matrix",
    "endpoint_trajectories",
    "ensemble_variance",
    "entropy_production",
    "equipartition",
    "escape_rate",
    "escape_rate_interval",
    "example_slopes",
    "exit_times",
    "expected_sharpness",
    "exponential_symmetry",
    "find_symmetries",
    "first_exit",
    "first_fluctuation_relation",
    "first_passage",
    "fisher",
    "fisher_operator",
    "flatness_width",
    "fluctuation_dissipation",
    "fresh_mean_square_threshold",
    "full_gradients",
    "gauss_newton",
    "gauss_newton_operator",
    "gaussian_loss_scaled_alignment",
    "gradient_flow",
    "gradient_noise",
    "hessian",
    "hessian_operator",
    "isotropic_ratio",
    "isotropic_ratio_bound",
    "jackknife",
    "leading_alignment",
    "learning_coefficient_grid",
    "local_learning_coefficient",
    "log_determinant",
    "loss_barrier",
    "loss_climb",
    "loss_scaled_alignment",
    "low_rank_noise",
    "mean_over_clusters",
    "mean_over_runs",
    "mean_square_growth",
    "mean_square_step",
    "mean_square_threshold",
    "momentum_mean_square_growth",
    "noise_alignment",
    "noise_and_curvature_along",
    "noise_covariance",
    "noise_covariance_along",
    "noise_covariance_along_estimate",
    "noise_equilibrium_residual",
    "noise_excess_kurtosis",
    "noise_operator",
    "noise_spectrum",
    "output_gradients",
    "over_blocks",
    "over_endpoints",
    "over_replicas",
    "paired_variance_ratio",
    "phase_plane_area_rate",
    "power_law_fit",
    "predicted_charge_change",
    "predicted_displacement",
    "predicted_exponent",
    "predicted_rise",
    "rescaling_symmetry",
    "restricted_mean",
    "scale_symmetry",
    "secant_curvature",
    "second_fluctuation_relation",
    "spectral_density",
    "square_loss_alignment",
    "square_loss_stability",
    "squared_displacement",
    "stability_bounds",
    "stochastic_gradients",
    "survival_curve",
    "symmetry_violation",
    "tail_index",
    "top_eigenpairs",
    "trace",
    "trace_of_square",
    "trajectories",
    "tube_mean",
    "variance_exponent",
    "window_variances",
]

_ROOMS = ("balance", "curvature", "escape", "motion", "noise", "runs", "tails")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
