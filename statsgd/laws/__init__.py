"""What theory predicts: one file per family of laws."""

from statsgd.laws.basis_pursuit import weighted_basis_pursuit
from statsgd.laws.catalogue import applicable, catalogue
from statsgd.laws.curvature_noise_escape import (
    PiecewiseDiffusion,
    curvature_noise_escape_time,
    curvature_noise_scale,
)
from statsgd.laws.discrepancy import Discrepancy, law_masses, split_discrepancy
from statsgd.laws.discrete_chain import DiscreteChainLaw, FiniteNoise, minibatch_noise
from statsgd.laws.effective_potential import EffectivePotentialGibbs
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
from statsgd.laws.kinked_wells import KinkedWellsGibbs
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.multiplicative_walk import (
    LogMultiplicativeWalk,
    batch_curvature,
    collapse_window,
    momentum_growth_rate,
)
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.potential import PotentialLaw
from statsgd.laws.relaxation import relaxation_gap_1d
from statsgd.laws.two_cycle import two_cycle, two_cycle_half_width
from statsgd.laws.valley_diffusion import (
    integrate_valley_flow,
    label_noise_strength,
    return_to_valley,
    sharpness_flow,
    valley_motion,
)
from statsgd.laws.valley_laws import CosineCurvature, ValleyEntropyLaw, ValleySharpnessLaw
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
    "Discrepancy",
    "DiscreteChainLaw",
    "EffectivePotentialGibbs",
    "FiniteNoise",
    "FokkerPlanckLaw",
    "GaussianLaw",
    "Gibbs",
    "Grid",
    "GridLaw",
    "GridWarning",
    "HeavyBallGaussian",
    "ImproperLawError",
    "KinkedWellsGibbs",
    "Law",
    "LinearRegressionGaussian",
    "LogMultiplicativeWalk",
    "PhaseSpaceGaussian",
    "PiecewiseDiffusion",
    "PotentialLaw",
    "ValleyEntropyLaw",
    "ValleySharpnessLaw",
    "applicable",
    "barrier",
    "barrier_exponent_1d",
    "batch_curvature",
    "catalogue",
    "collapse_window",
    "critical_learning_rate",
    "curvature_noise_escape_time",
    "curvature_noise_scale",
    "discrete_well_factor",
    "effective_well_weights",
    "equal_weight_batch_size",
    "equal_weight_temperature",
    "gaussian_critical_learning_rate",
    "gibbs_temperature",
    "integrate_valley_flow",
    "kramers_escape_time",
    "label_noise_strength",
    "langer_escape_time",
    "law_masses",
    "mean_exit_time_1d",
    "mean_exit_time_ball",
    "mean_exit_time_box",
    "mean_first_passage_1d",
    "minibatch_noise",
    "momentum_growth_rate",
    "relaxation_gap_1d",
    "require_zero_flux",
    "return_to_valley",
    "sharpness_flow",
    "split_discrepancy",
    "total_variation",
    "two_cycle",
    "two_cycle_half_width",
    "valley_motion",
    "weighted_basis_pursuit",
    "well_weights",
    "zero_flux_residual",
]
