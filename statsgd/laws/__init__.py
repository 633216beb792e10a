"""What theory predicts: one file per family of laws."""

from statsgd.laws.collapse import (
    RegressionThresholds,
    collapse_probability,
    discrete_collapse_threshold,
    linear_regression_collapse_threshold,
    lyapunov_exponent,
)
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
from statsgd.laws.freezing import (
    Freezing,
    FreezingPoint,
    freezing_chain,
    freezing_point_scaling,
    freezing_prediction,
)
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.heavy_ball import HeavyBallGaussian
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.loss_noise_fit import LossNoiseFit, fit_loss_scaled_noise
from statsgd.laws.loss_scaled import LossScaledLaw, TorusPowerOfLossLaw
from statsgd.laws.loss_scaled_setting import effective_noise_ratio
from statsgd.laws.noise_regime import (
    classify_noise_regime,
    contraction_learning_rate,
    critical_noise_ratio,
    mean_loss_contraction,
    mean_square_noise_ratio,
    relaxation_rate,
)
from statsgd.laws.outlier import OutlierPowerLaw, regression_second_moment
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.potential import PotentialLaw
from statsgd.laws.random_shift import random_shift_noise, random_shift_path, shift_noise_covariance
from statsgd.laws.saturating import SaturatedPowerOfLossLaw, SaturatingLossScaledLaw
from statsgd.laws.scalar_noise import ScalarNoiseLaw
from statsgd.laws.strata import StrataLaw
from statsgd.laws.student_t import StudentTLaw
from statsgd.laws.two_valley import TwoValleyLaw, two_valley_noise
from statsgd.laws.two_valley_hopping import ChainLaw, TwoValleyHopping, two_valley_chain_law
from statsgd.laws.valley import ValleyLaw
from statsgd.laws.valley_stability import LearningRateBounds, max_stable_learning_rate
from statsgd.laws.zero_loss_circle import ZeroLossCircleLaw

__all__ = [
    "LAWS",
    "ChainLaw",
    "FloorMoments",
    "FlooredLossScaledLaw",
    "FlooredPowerOfLossLaw",
    "Freezing",
    "FreezingPoint",
    "GaussianLaw",
    "HeavyBallGaussian",
    "ImproperLawError",
    "Law",
    "LearningRateBounds",
    "LinearRegressionGaussian",
    "LossNoiseFit",
    "LossScaledLaw",
    "OutlierPowerLaw",
    "PhaseSpaceGaussian",
    "PotentialLaw",
    "RegressionThresholds",
    "SaturatedPowerOfLossLaw",
    "SaturatingLossScaledLaw",
    "ScalarNoiseLaw",
    "Selection",
    "StrataLaw",
    "StudentTLaw",
    "TorusPowerOfLossLaw",
    "TwoValleyHopping",
    "TwoValleyLaw",
    "ValleyLaw",
    "ZeroLossCircleLaw",
    "classify_noise_regime",
    "codimension_selection",
    "collapse_probability",
    "contraction_learning_rate",
    "critical_learning_rate",
    "critical_noise_ratio",
    "discrete_collapse_threshold",
    "distance_tube_mass",
    "effective_noise_ratio",
    "fit_loss_scaled_noise",
    "flatness_weight",
    "floor_second_moments",
    "floor_well_weights",
    "freezing_chain",
    "freezing_point_scaling",
    "freezing_prediction",
    "gaussian_critical_learning_rate",
    "linear_regression_collapse_threshold",
    "log_loss_mfpt",
    "log_loss_mfpt_1d",
    "loss_tube_mass",
    "lyapunov_exponent",
    "max_stable_learning_rate",
    "mean_loss_contraction",
    "mean_square_noise_ratio",
    "random_shift_noise",
    "random_shift_path",
    "regression_second_moment",
    "regression_tail_index",
    "relaxation_rate",
    "shift_noise_covariance",
    "two_valley_chain_law",
    "two_valley_noise",
]
