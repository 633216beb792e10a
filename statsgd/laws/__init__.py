"""What theory predicts: one file per family of laws."""

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
from statsgd.laws.fokker_planck import FokkerPlanckLaw
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.gibbs import Gibbs, gibbs_temperature
from statsgd.laws.grid import Grid, GridWarning, total_variation
from statsgd.laws.grid_law import GridLaw
from statsgd.laws.heavy_ball import HeavyBallGaussian
from statsgd.laws.infinite_depth import InfiniteDepthNetworkLaw
from statsgd.laws.interpolation import InterpolationLaw, absorption_probability
from statsgd.laws.kinked_wells import KinkedWellsGibbs
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.learning_regime import bimodal_end, learning_regime, stationary_points
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
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
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.potential import PotentialLaw
from statsgd.laws.quadratic_mean_field import (
    EntropySandwich,
    QuadraticMeanField,
    entropy_sandwich,
    shared_minibatch_variance,
)
from statsgd.laws.relaxation import relaxation_gap_1d
from statsgd.laws.rescaling_gibbs import RescalingGibbs, langevin_charge_growth
from statsgd.laws.reshuffling import (
    crossover_curvature,
    reshuffle_effective_loss,
    reshuffle_mean_shift,
    single_shuffle_variance,
)
from statsgd.laws.slope import SlopeLaw
from statsgd.laws.two_cycle import two_cycle, two_cycle_half_width
from statsgd.laws.valley_diffusion import (
    integrate_valley_flow,
    label_noise_strength,
    return_to_valley,
    sharpness_flow,
    valley_motion,
)
from statsgd.laws.valley_laws import CosineCurvature, ValleyEntropyLaw, ValleySharpnessLaw
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

__all__ = [
    "LAWS",
    "CosineCurvature",
    "DataMoments",
    "DiagonalNetworkLaw",
    "Discrepancy",
    "DiscreteChainLaw",
    "EffectivePotentialGibbs",
    "EntropySandwich",
    "EpochNoiseGaussian",
    "FiniteNoise",
    "FokkerPlanckLaw",
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
    "LinearRegressionGaussian",
    "LogMultiplicativeWalk",
    "MeanFieldLaw",
    "MeanFieldLimit",
    "NoiseEquilibrium",
    "NoiseTraces",
    "PhaseSpaceGaussian",
    "PiecewiseDiffusion",
    "PotentialLaw",
    "ProductNoise",
    "QuadraticMeanField",
    "RescalingGibbs",
    "SlopeLaw",
    "TwoLayerCovariance",
    "ValleyEntropyLaw",
    "ValleySharpnessLaw",
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
    "collapse_exponent",
    "collapse_window",
    "critical_learning_rate",
    "crossover_curvature",
    "curvature_noise_escape_time",
    "curvature_noise_scale",
    "discrete_well_factor",
    "effective_well_weights",
    "entropy_sandwich",
    "equal_weight_batch_size",
    "equal_weight_temperature",
    "gaussian_critical_learning_rate",
    "gibbs_temperature",
    "integrate_valley_flow",
    "kramers_escape_time",
    "label_noise_strength",
    "langer_escape_time",
    "langevin_charge_growth",
    "law_masses",
    "learning_regime",
    "linear_network_equilibrium",
    "log_loss_flatness",
    "log_sobolev_bound",
    "matrix_charge_step",
    "mean_charge_step",
    "mean_exit_time_1d",
    "mean_exit_time_ball",
    "mean_exit_time_box",
    "mean_first_passage_1d",
    "minibatch_noise",
    "momentum_growth_rate",
    "noise_balance_gap",
    "noise_scale",
    "pair_balance_step",
    "particle_sgd",
    "product_noise",
    "relaxation_gap_1d",
    "require_zero_flux",
    "rescaling_generator",
    "reshuffle_effective_loss",
    "reshuffle_mean_shift",
    "return_to_valley",
    "scale_invariant_equilibrium_norm",
    "scale_invariant_norm",
    "shared_minibatch_variance",
    "sharpness_flow",
    "single_shuffle_variance",
    "split_discrepancy",
    "stationary_points",
    "tanh_features",
    "total_variation",
    "two_cycle",
    "two_cycle_half_width",
    "two_layer_linear_covariance",
    "two_layer_mean_field",
    "valley_motion",
    "variance_flatness_exponent",
    "weighted_basis_pursuit",
    "well_weights",
    "window_variance",
    "zero_flux_residual",
]
