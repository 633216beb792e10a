"""What SGD minimises."""

from statsgd.problems.curvature import DENSE_LIMIT, hessian
from statsgd.problems.landscapes import (
    kinked_wells,
    quadratic,
    quartic_wells,
    shifted_tilted_quartic,
    smooth_wells,
    tilted_quartic,
    valley_wells,
)
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

__all__ = [
    "DENSE_LIMIT",
    "EmpiricalRisk",
    "Landscape",
    "LinearRegression",
    "Minimum",
    "PopulationRisk",
    "Problem",
    "SampledProblem",
    "empirical_risk",
    "hessian",
    "kinked_wells",
    "landscape",
    "linear_regression",
    "minimise",
    "population_risk",
    "quadratic",
    "quartic_wells",
    "shifted_tilted_quartic",
    "smooth_wells",
    "tilted_quartic",
    "valley_wells",
]
