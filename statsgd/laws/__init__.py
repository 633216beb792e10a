"""What theory predicts: one file per family of laws."""

from statsgd.laws.collapse import collapse_exponent
from statsgd.laws.data_moments import DataMoments, noise_scale
from statsgd.laws.diagonal_network import DiagonalNetworkLaw
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.heavy_ball import HeavyBallGaussian
from statsgd.laws.infinite_depth import InfiniteDepthNetworkLaw
from statsgd.laws.interpolation import InterpolationLaw, absorption_probability
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.learning_regime import bimodal_end, learning_regime, stationary_points
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.potential import PotentialLaw
from statsgd.laws.slope import SlopeLaw

__all__ = [
    "LAWS",
    "DataMoments",
    "DiagonalNetworkLaw",
    "GaussianLaw",
    "HeavyBallGaussian",
    "ImproperLawError",
    "InfiniteDepthNetworkLaw",
    "InterpolationLaw",
    "Law",
    "LinearRegressionGaussian",
    "PhaseSpaceGaussian",
    "PotentialLaw",
    "SlopeLaw",
    "absorption_probability",
    "bimodal_end",
    "collapse_exponent",
    "critical_learning_rate",
    "gaussian_critical_learning_rate",
    "learning_regime",
    "noise_scale",
    "stationary_points",
]
