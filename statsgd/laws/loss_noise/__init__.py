"""Noise that grows with the loss: powers of the loss, floors, saturation and collapse."""

from statsgd.laws.loss_noise.collapse import (
    RegressionThresholds,
    collapse_probability,
    discrete_collapse_threshold,
    linear_regression_collapse_threshold,
    linear_regression_growth_rate,
    lyapunov_exponent,
)
from statsgd.laws.loss_noise.fit import LossNoiseFit, fit_loss_scaled_noise
from statsgd.laws.loss_noise.flatness_functionals import (
    Selection,
    codimension_selection,
    distance_tube_mass,
    flatness_weight,
    loss_tube_mass,
)
from statsgd.laws.loss_noise.floor_moments import (
    FloorMoments,
    floor_second_moments,
    floor_well_weights,
    log_loss_mfpt,
    log_loss_mfpt_1d,
    regression_tail_index,
)
from statsgd.laws.loss_noise.floored import FlooredLossScaledLaw, FlooredPowerOfLossLaw
from statsgd.laws.loss_noise.loss_scaled import LossScaledLaw
from statsgd.laws.loss_noise.multiplicative_walk import (
    LogMultiplicativeWalk,
    batch_curvature,
    collapse_window,
    moment_threshold,
    momentum_growth_rate,
)
from statsgd.laws.loss_noise.regime import (
    classify_noise_regime,
    contraction_learning_rate,
    critical_noise_ratio,
    mean_loss_contraction,
    mean_square_noise_ratio,
    relaxation_rate,
)
from statsgd.laws.loss_noise.saturating import SaturatedPowerOfLossLaw, SaturatingLossScaledLaw
from statsgd.laws.loss_noise.scalar_noise import ScalarNoiseLaw
from statsgd.laws.loss_noise.setting import effective_noise_ratio
from statsgd.laws.loss_noise.strata import StrataLaw
from statsgd.laws.loss_noise.torus import TorusPowerOfLossLaw
from statsgd.laws.loss_noise.zero_loss_circle import ZeroLossCircleLaw

__all__ = [
    "FloorMoments",
    "FlooredLossScaledLaw",
    "FlooredPowerOfLossLaw",
    "LogMultiplicativeWalk",
    "LossNoiseFit",
    "LossScaledLaw",
    "RegressionThresholds",
    "SaturatedPowerOfLossLaw",
    "SaturatingLossScaledLaw",
    "ScalarNoiseLaw",
    "Selection",
    "StrataLaw",
    "TorusPowerOfLossLaw",
    "ZeroLossCircleLaw",
    "batch_curvature",
    "classify_noise_regime",
    "codimension_selection",
    "collapse_probability",
    "collapse_window",
    "contraction_learning_rate",
    "critical_noise_ratio",
    "discrete_collapse_threshold",
    "distance_tube_mass",
    "effective_noise_ratio",
    "fit_loss_scaled_noise",
    "flatness_weight",
    "floor_second_moments",
    "floor_well_weights",
    "linear_regression_collapse_threshold",
    "linear_regression_growth_rate",
    "log_loss_mfpt",
    "log_loss_mfpt_1d",
    "loss_tube_mass",
    "lyapunov_exponent",
    "mean_loss_contraction",
    "mean_square_noise_ratio",
    "moment_threshold",
    "momentum_growth_rate",
    "regression_tail_index",
    "relaxation_rate",
]


def __dir__() -> list[str]:
    return sorted(__all__)
