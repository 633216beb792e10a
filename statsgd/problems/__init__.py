"""What SGD minimises."""

from statsgd.problems.curvature import DENSE_LIMIT, hessian
from statsgd.problems.minimum import Minimum, minimise
from statsgd.problems.problem import (
    EmpiricalRisk,
    Landscape,
    PopulationRisk,
    Problem,
    SampledProblem,
    empirical_risk,
    landscape,
    population_risk,
)
from statsgd.problems.regression import LinearRegression, linear_regression
from statsgd.problems.two_valley import FrozenTwoValley, TwoValleyLandscape

__all__ = [
    "DENSE_LIMIT",
    "EmpiricalRisk",
    "FrozenTwoValley",
    "Landscape",
    "LinearRegression",
    "Minimum",
    "PopulationRisk",
    "Problem",
    "SampledProblem",
    "TwoValleyLandscape",
    "empirical_risk",
    "hessian",
    "landscape",
    "linear_regression",
    "minimise",
    "population_risk",
]
