"""Near one minimum: Gaussian and Student-t laws of SGD with momentum, and how it moves there."""

from statsgd.laws.minimum.adaptive_gaussian import AdaptiveGaussian
from statsgd.laws.minimum.adaptive_of_optax import adaptive_optimiser
from statsgd.laws.minimum.adaptive_optimiser import Adam, ClippedOptimiser, SignDescent
from statsgd.laws.minimum.anisotropic_quadratic import AnisotropicQuadraticLaw, escape_efficiency
from statsgd.laws.minimum.currents import entropy_production_rate, phase_plane_area, stochastic_area
from statsgd.laws.minimum.epoch_enumeration import ReshuffledRegressionGaussian
from statsgd.laws.minimum.epoch_noise import EpochNoiseGaussian
from statsgd.laws.minimum.gaussian import MinimumGaussian
from statsgd.laws.minimum.heavy_ball import HeavyBallGaussian
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser
from statsgd.laws.minimum.linear_optimiser_gaussian import LinearOptimiserGaussian
from statsgd.laws.minimum.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.minimum.ornstein_uhlenbeck import (
    OrnsteinUhlenbeckLaw,
    optimal_learning_rate,
    posterior_divergence,
)
from statsgd.laws.minimum.outlier import OutlierPowerLaw, regression_second_moment
from statsgd.laws.minimum.phase_space import PhaseSpaceGaussian
from statsgd.laws.minimum.phase_space_motion import (
    PhaseSpaceTransition,
    displacement_exponent,
    local_displacement,
    mean_squared_displacement,
)
from statsgd.laws.minimum.regression_shape import gaussian_regression_kurtosis, regression_shape
from statsgd.laws.minimum.reshuffling import (
    crossover_curvature,
    reshuffle_effective_loss,
    reshuffle_mean_shift,
    single_shuffle_variance,
)
from statsgd.laws.minimum.two_cycle import two_cycle, two_cycle_half_width

__all__ = [
    "Adam",
    "AdaptiveGaussian",
    "AnisotropicQuadraticLaw",
    "ClippedOptimiser",
    "EpochNoiseGaussian",
    "HeavyBallGaussian",
    "LinearOptimiser",
    "LinearOptimiserGaussian",
    "LinearRegressionGaussian",
    "MinimumGaussian",
    "OrnsteinUhlenbeckLaw",
    "OutlierPowerLaw",
    "PhaseSpaceGaussian",
    "PhaseSpaceTransition",
    "ReshuffledRegressionGaussian",
    "SignDescent",
    "adaptive_optimiser",
    "critical_learning_rate",
    "crossover_curvature",
    "displacement_exponent",
    "entropy_production_rate",
    "escape_efficiency",
    "gaussian_critical_learning_rate",
    "gaussian_regression_kurtosis",
    "local_displacement",
    "mean_squared_displacement",
    "optimal_learning_rate",
    "phase_plane_area",
    "posterior_divergence",
    "regression_second_moment",
    "regression_shape",
    "reshuffle_effective_loss",
    "reshuffle_mean_shift",
    "single_shuffle_variance",
    "stochastic_area",
    "two_cycle",
    "two_cycle_half_width",
]


def __dir__() -> list[str]:
    return sorted(__all__)
