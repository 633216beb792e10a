"""What theory predicts: one file per family of laws."""

from statsgd.laws.catalogue import applicable, catalogue
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.heavy_ball import HeavyBallGaussian
from statsgd.laws.law import LAWS, ImproperLawError, Law
from statsgd.laws.linear_regression import (
    LinearRegressionGaussian,
    critical_learning_rate,
    gaussian_critical_learning_rate,
)
from statsgd.laws.phase_space import PhaseSpaceGaussian
from statsgd.laws.potential import PotentialLaw

__all__ = [
    "LAWS",
    "GaussianLaw",
    "HeavyBallGaussian",
    "ImproperLawError",
    "Law",
    "LinearRegressionGaussian",
    "PhaseSpaceGaussian",
    "PotentialLaw",
    "applicable",
    "catalogue",
    "critical_learning_rate",
    "gaussian_critical_learning_rate",
]
