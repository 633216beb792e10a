"""What theory predicts: one file per family of laws."""

from statsgd.laws.curvature_noise_escape import (
    PiecewiseDiffusion,
    curvature_noise_escape_time,
    curvature_noise_scale,
)
from statsgd.laws.effective_potential import EffectivePotentialGibbs
from statsgd.laws.escape import (
    barrier,
    barrier_exponent_1d,
    kramers_escape_time,
    langer_escape_time,
    mean_first_passage_1d,
)
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.gibbs import Gibbs, gibbs_temperature
from statsgd.laws.heavy_ball import HeavyBallGaussian
from statsgd.laws.kinked_wells import KinkedWellsGibbs
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.potential import PotentialLaw
from statsgd.laws.relaxation import relaxation_gap_1d
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
    "EffectivePotentialGibbs",
    "GaussianLaw",
    "Gibbs",
    "HeavyBallGaussian",
    "ImproperLawError",
    "KinkedWellsGibbs",
    "Law",
    "LinearRegressionGaussian",
    "PhaseSpaceGaussian",
    "PiecewiseDiffusion",
    "PotentialLaw",
    "barrier",
    "barrier_exponent_1d",
    "critical_learning_rate",
    "curvature_noise_escape_time",
    "curvature_noise_scale",
    "discrete_well_factor",
    "effective_well_weights",
    "equal_weight_batch_size",
    "equal_weight_temperature",
    "gaussian_critical_learning_rate",
    "gibbs_temperature",
    "kramers_escape_time",
    "langer_escape_time",
    "mean_first_passage_1d",
    "relaxation_gap_1d",
    "require_zero_flux",
    "well_weights",
    "zero_flux_residual",
]
