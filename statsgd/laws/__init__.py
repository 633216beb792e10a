"""What theory predicts: one file per family of laws."""

from statsgd.laws.discrepancy import Discrepancy, law_masses, split_discrepancy
from statsgd.laws.discrete_chain import DiscreteChainLaw, FiniteNoise, minibatch_noise
from statsgd.laws.fokker_planck import FokkerPlanckLaw
from statsgd.laws.gaussian import GaussianLaw
from statsgd.laws.grid import Grid, GridWarning, total_variation
from statsgd.laws.grid_law import GridLaw
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
    "Discrepancy",
    "DiscreteChainLaw",
    "FiniteNoise",
    "FokkerPlanckLaw",
    "GaussianLaw",
    "Grid",
    "GridLaw",
    "GridWarning",
    "HeavyBallGaussian",
    "ImproperLawError",
    "Law",
    "LinearRegressionGaussian",
    "PhaseSpaceGaussian",
    "PotentialLaw",
    "critical_learning_rate",
    "gaussian_critical_learning_rate",
    "law_masses",
    "minibatch_noise",
    "split_discrepancy",
    "total_variation",
]
