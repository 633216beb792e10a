"""What theory predicts: one file per family of laws."""

from statsgd.laws.anisotropic_quadratic import AnisotropicQuadraticLaw, escape_efficiency
from statsgd.laws.atlas import ExpectedError, dimensionless_numbers, expected_error
from statsgd.laws.balance import (
    NoiseTraces,
    ProductNoise,
    balance_rate,
    charge,
    charge_step,
    charge_trajectory,
    matrix_charge_step,
    mean_charge_step,
    noise_balance_gap,
    pair_balance_step,
    product_noise,
    rescaling_generator,
    scale_invariant_equilibrium_norm,
    scale_invariant_norm,
)
from statsgd.laws.basis_pursuit import weighted_basis_pursuit
from statsgd.laws.catalogue import applicable, catalogue
from statsgd.laws.collapse import (
    RegressionThresholds,
    collapse_probability,
    discrete_collapse_threshold,
    linear_regression_collapse_threshold,
    lyapunov_exponent,
)
from statsgd.laws.currents import entropy_production_rate, phase_plane_area, stochastic_area
from statsgd.laws.curvature_noise_escape import (
    PiecewiseDiffusion,
    curvature_noise_escape_time,
    curvature_noise_scale,
)
from statsgd.laws.data_moments import DataMoments, noise_scale
from statsgd.laws.diagonal_network import DiagonalNetworkLaw
from statsgd.laws.discrepancy import Discrepancy, law_masses, split_discrepancy
from statsgd.laws.discrete_chain import DiscreteChainLaw, FiniteNoise, minibatch_noise
from statsgd.laws.effective_potential import EffectivePotentialGibbs
from statsgd.laws.epoch_noise import EpochNoiseGaussian
from statsgd.laws.escape import (
    barrier,
    barrier_exponent_1d,
    kramers_escape_time,
    langer_escape_time,
    mean_first_passage_1d,
)
from statsgd.laws.exit_time import mean_exit_time_1d, mean_exit_time_ball, mean_exit_time_box
from statsgd.laws.flatness_functionals import (
    Selection,
    codimension_selection,
    distance_tube_mass,
    flatness_weight,
    loss_tube_mass,
)
from statsgd.laws.floor_moments import (
    FloorMoments,
    floor_second_moments,
    floor_well_weights,
    log_loss_mfpt,
    log_loss_mfpt_1d,
    regression_tail_index,
)
from statsgd.laws.floored import FlooredLossScaledLaw, FlooredPowerOfLossLaw
from statsgd.laws.fokker_planck import FokkerPlanckLaw
from statsgd.laws.freezing import (
    Freezing,
    FreezingPoint,
    freezing_chain,
    freezing_point_scaling,
    freezing_prediction,
)
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.gibbs import Gibbs, gibbs_temperature
from statsgd.laws.grid import Grid, GridWarning, total_variation
from statsgd.laws.grid_law import GridLaw
from statsgd.laws.heavy_ball import HeavyBallGaussian
from statsgd.laws.infinite_depth import InfiniteDepthNetworkLaw
from statsgd.laws.interpolation import InterpolationLaw, absorption_probability
from statsgd.laws.kinked_wells import KinkedWellsGibbs
from statsgd.laws.large_steps import DiagonalNetLargeStep
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.learning_regime import bimodal_end, learning_regime, stationary_points
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.loss_noise_fit import LossNoiseFit, fit_loss_scaled_noise
from statsgd.laws.loss_scaled import LossScaledLaw, TorusPowerOfLossLaw
from statsgd.laws.loss_scaled_setting import effective_noise_ratio
from statsgd.laws.mean_field import MeanFieldLaw, particle_sgd, two_layer_mean_field
from statsgd.laws.mean_field_limit import MeanFieldLimit, log_sobolev_bound, tanh_features
from statsgd.laws.multiplicative_walk import (
    LogMultiplicativeWalk,
    batch_curvature,
    collapse_window,
    momentum_growth_rate,
)
from statsgd.laws.network_collapse import collapse_exponent
from statsgd.laws.noise_equilibrium import NoiseEquilibrium, linear_network_equilibrium
from statsgd.laws.noise_regime import (
    classify_noise_regime,
    contraction_learning_rate,
    critical_noise_ratio,
    mean_loss_contraction,
    mean_square_noise_ratio,
    relaxation_rate,
)
from statsgd.laws.ornstein_uhlenbeck import (
    OrnsteinUhlenbeckLaw,
    optimal_learning_rate,
    posterior_divergence,
)
from statsgd.laws.outlier import OutlierPowerLaw, regression_second_moment
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.phase_space_motion import (
    PhaseSpaceTransition,
    displacement_exponent,
    local_displacement,
    mean_squared_displacement,
)
from statsgd.laws.potential import PotentialLaw
from statsgd.laws.quadratic_mean_field import (
    EntropySandwich,
    QuadraticMeanField,
    entropy_sandwich,
    shared_minibatch_variance,
    variance_reduced_variance,
)
from statsgd.laws.random_shift import random_shift_noise, random_shift_path, shift_noise_covariance
from statsgd.laws.relaxation import relaxation_gap_1d
from statsgd.laws.rescaling_gibbs import RescalingGibbs, langevin_charge_growth
from statsgd.laws.reshuffling import (
    crossover_curvature,
    reshuffle_effective_loss,
    reshuffle_mean_shift,
    single_shuffle_variance,
)
from statsgd.laws.saturating import SaturatedPowerOfLossLaw, SaturatingLossScaledLaw
from statsgd.laws.scalar_noise import ScalarNoiseLaw
from statsgd.laws.slope import SlopeLaw
from statsgd.laws.strata import StrataLaw
from statsgd.laws.student_t import StudentTLaw
from statsgd.laws.two_basins import TwoBasinGibbs, leave_probability
from statsgd.laws.two_cycle import two_cycle, two_cycle_half_width
from statsgd.laws.two_valley import TwoValleyLaw, two_valley_noise
from statsgd.laws.two_valley_hopping import ChainLaw, TwoValleyHopping, two_valley_chain_law
from statsgd.laws.valley import ValleyLaw
from statsgd.laws.valley_diffusion import (
    integrate_valley_flow,
    label_noise_strength,
    return_to_valley,
    sharpness_flow,
    valley_motion,
)
from statsgd.laws.valley_laws import CosineCurvature, ValleyEntropyLaw, ValleySharpnessLaw
from statsgd.laws.valley_stability import LearningRateBounds, max_stable_learning_rate
from statsgd.laws.weight_variance import (
    TwoLayerCovariance,
    log_loss_flatness,
    two_layer_linear_covariance,
    variance_flatness_exponent,
    window_variance,
)
from statsgd.laws.well_weights import (
    discrete_well_factor,
    effective_well_weights,
    equal_weight_batch_size,
    equal_weight_temperature,
    well_weights,
)
from statsgd.laws.zero_flux import require_zero_flux, zero_flux_residual
from statsgd.laws.zero_loss_circle import ZeroLossCircleLaw

__all__ = [
    "LAWS",
    "AnisotropicQuadraticLaw",
    "ChainLaw",
    "CosineCurvature",
    "DataMoments",
    "DiagonalNetLargeStep",
    "DiagonalNetworkLaw",
    "Discrepancy",
    "DiscreteChainLaw",
    "EffectivePotentialGibbs",
    "EntropySandwich",
    "EpochNoiseGaussian",
    "ExpectedError",
    "FiniteNoise",
    "FloorMoments",
    "FlooredLossScaledLaw",
    "FlooredPowerOfLossLaw",
    "FokkerPlanckLaw",
    "Freezing",
    "FreezingPoint",
    "GaussianLaw",
    "Gibbs",
    "Grid",
    "GridLaw",
    "GridWarning",
    "HeavyBallGaussian",
    "ImproperLawError",
    "InfiniteDepthNetworkLaw",
    "InterpolationLaw",
    "KinkedWellsGibbs",
    "Law",
    "LearningRateBounds",
    "LinearRegressionGaussian",
    "LogMultiplicativeWalk",
    "LossNoiseFit",
    "LossScaledLaw",
    "MeanFieldLaw",
    "MeanFieldLimit",
    "NoiseEquilibrium",
    "NoiseTraces",
    "OrnsteinUhlenbeckLaw",
    "OutlierPowerLaw",
    "PhaseSpaceGaussian",
    "PhaseSpaceTransition",
    "PiecewiseDiffusion",
    "PotentialLaw",
    "ProductNoise",
    "QuadraticMeanField",
    "RegressionThresholds",
    "RescalingGibbs",
    "SaturatedPowerOfLossLaw",
    "SaturatingLossScaledLaw",
    "ScalarNoiseLaw",
    "Selection",
    "SlopeLaw",
    "StrataLaw",
    "StudentTLaw",
    "TorusPowerOfLossLaw",
    "TwoBasinGibbs",
    "TwoLayerCovariance",
    "TwoValleyHopping",
    "TwoValleyLaw",
    "ValleyEntropyLaw",
    "ValleyLaw",
    "ValleySharpnessLaw",
    "ZeroLossCircleLaw",
    "absorption_probability",
    "applicable",
    "balance_rate",
    "barrier",
    "barrier_exponent_1d",
    "batch_curvature",
    "bimodal_end",
    "catalogue",
    "charge",
    "charge_step",
    "charge_trajectory",
    "classify_noise_regime",
    "codimension_selection",
    "collapse_exponent",
    "collapse_probability",
    "collapse_window",
    "contraction_learning_rate",
    "critical_learning_rate",
    "critical_noise_ratio",
    "crossover_curvature",
    "curvature_noise_escape_time",
    "curvature_noise_scale",
    "dimensionless_numbers",
    "discrete_collapse_threshold",
    "discrete_well_factor",
    "displacement_exponent",
    "distance_tube_mass",
    "effective_noise_ratio",
    "effective_well_weights",
    "entropy_production_rate",
    "entropy_sandwich",
    "equal_weight_batch_size",
    "equal_weight_temperature",
    "escape_efficiency",
    "expected_error",
    "fit_loss_scaled_noise",
    "flatness_weight",
    "floor_second_moments",
    "floor_well_weights",
    "freezing_chain",
    "freezing_point_scaling",
    "freezing_prediction",
    "gaussian_critical_learning_rate",
    "gibbs_temperature",
    "integrate_valley_flow",
    "kramers_escape_time",
    "label_noise_strength",
    "langer_escape_time",
    "langevin_charge_growth",
    "law_masses",
    "learning_regime",
    "leave_probability",
    "linear_network_equilibrium",
    "linear_regression_collapse_threshold",
    "local_displacement",
    "log_loss_flatness",
    "log_loss_mfpt",
    "log_loss_mfpt_1d",
    "log_sobolev_bound",
    "loss_tube_mass",
    "lyapunov_exponent",
    "matrix_charge_step",
    "max_stable_learning_rate",
    "mean_charge_step",
    "mean_exit_time_1d",
    "mean_exit_time_ball",
    "mean_exit_time_box",
    "mean_first_passage_1d",
    "mean_loss_contraction",
    "mean_square_noise_ratio",
    "mean_squared_displacement",
    "minibatch_noise",
    "momentum_growth_rate",
    "noise_balance_gap",
    "noise_scale",
    "optimal_learning_rate",
    "pair_balance_step",
    "particle_sgd",
    "phase_plane_area",
    "posterior_divergence",
    "product_noise",
    "random_shift_noise",
    "random_shift_path",
    "regression_second_moment",
    "regression_tail_index",
    "relaxation_gap_1d",
    "relaxation_rate",
    "require_zero_flux",
    "rescaling_generator",
    "reshuffle_effective_loss",
    "reshuffle_mean_shift",
    "return_to_valley",
    "scale_invariant_equilibrium_norm",
    "scale_invariant_norm",
    "shared_minibatch_variance",
    "sharpness_flow",
    "shift_noise_covariance",
    "single_shuffle_variance",
    "split_discrepancy",
    "stationary_points",
    "stochastic_area",
    "tanh_features",
    "total_variation",
    "two_cycle",
    "two_cycle_half_width",
    "two_layer_linear_covariance",
    "two_layer_mean_field",
    "two_valley_chain_law",
    "two_valley_noise",
    "valley_motion",
    "variance_flatness_exponent",
    "variance_reduced_variance",
    "weighted_basis_pursuit",
    "well_weights",
    "window_variance",
    "zero_flux_residual",
]
