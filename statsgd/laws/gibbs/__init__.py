"""Isotropic noise: Gibbs laws, how they divide mass between wells, and escape from them."""

from statsgd.laws.gibbs.curvature_noise_escape import (
    PiecewiseDiffusion,
    curvature_noise_escape_time,
    curvature_noise_scale,
)
from statsgd.laws.gibbs.effective_potential import EffectivePotentialGibbs
from statsgd.laws.gibbs.escape import (
    barrier,
    barrier_exponent_1d,
    kramers_escape_time,
    langer_escape_time,
    mean_first_passage_1d,
)
from statsgd.laws.gibbs.exit_time import mean_exit_time_1d, mean_exit_time_ball, mean_exit_time_box
from statsgd.laws.gibbs.gibbs import Gibbs, gibbs_temperature
from statsgd.laws.gibbs.kinked_wells import KinkedWellsGibbs
from statsgd.laws.gibbs.relaxation import relaxation_gap_1d
from statsgd.laws.gibbs.two_basins import TwoBasinGibbs, leave_probability
from statsgd.laws.gibbs.underdamped_relaxation import underdamped_gap_1d
from statsgd.laws.gibbs.well_weights import (
    discrete_well_factor,
    effective_well_weights,
    equal_weight_batch_size,
    equal_weight_temperature,
    well_weights,
)
from statsgd.laws.gibbs.zero_flux import require_zero_flux, zero_flux_residual

__all__ = [
    "EffectivePotentialGibbs",
    "Gibbs",
    "KinkedWellsGibbs",
    "PiecewiseDiffusion",
    "TwoBasinGibbs",
    "barrier",
    "barrier_exponent_1d",
    "curvature_noise_escape_time",
    "curvature_noise_scale",
    "discrete_well_factor",
    "effective_well_weights",
    "equal_weight_batch_size",
    "equal_weight_temperature",
    "gibbs_temperature",
    "kramers_escape_time",
    "langer_escape_time",
    "leave_probability",
    "mean_exit_time_1d",
    "mean_exit_time_ball",
    "mean_exit_time_box",
    "mean_first_passage_1d",
    "relaxation_gap_1d",
    "require_zero_flux",
    "underdamped_gap_1d",
    "well_weights",
    "zero_flux_residual",
]


def __dir__() -> list[str]:
    return sorted(__all__)
