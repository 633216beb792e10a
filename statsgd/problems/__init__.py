"""What SGD minimises."""

from statsgd.problems.batch_loss import BatchRisk, batch_risk
from statsgd.problems.curvature import DENSE_LIMIT, hessian
from statsgd.problems.datasets import Images, read_cifar10, read_mnist, read_svhn
from statsgd.problems.hadamard_regression import HadamardRegression, hadamard_regression
from statsgd.problems.landscapes import (
    kinked_wells,
    quadratic,
    quartic_wells,
    shifted_tilted_quartic,
    smooth_wells,
    tilted_quartic,
    valley_wells,
)
from statsgd.problems.minimum import ConvergenceWarning, Minimum, minimise
from statsgd.problems.networks import (
    DiagonalLinearNetwork,
    LinearNetwork,
    diagonal_linear_network,
    linear_network,
    multilayer_perceptron,
    perceptron,
)
from statsgd.problems.problem import Landscape, Problem, SampledProblem, landscape
from statsgd.problems.regression import LinearRegression, linear_regression
from statsgd.problems.risk import EmpiricalRisk, PopulationRisk, empirical_risk, population_risk
from statsgd.problems.sums import hessian_product, mean_over_chunks, mean_over_examples
from statsgd.problems.twin import BatchTwin, LinearTwin, linear_twin
from statsgd.problems.two_basins import TwoBasinLoss, two_basins
from statsgd.problems.two_valley import FrozenTwoValley, TwoValleyLandscape

__all__ = [
    "DENSE_LIMIT",
    "BatchRisk",
    "BatchTwin",
    "ConvergenceWarning",
    "DiagonalLinearNetwork",
    "EmpiricalRisk",
    "FrozenTwoValley",
    "HadamardRegression",
    "Images",
    "Landscape",
    "LinearNetwork",
    "LinearRegression",
    "LinearTwin",
    "Minimum",
    "PopulationRisk",
    "Problem",
    "SampledProblem",
    "TwoBasinLoss",
    "TwoValleyLandscape",
    "batch_risk",
    "diagonal_linear_network",
    "empirical_risk",
    "hadamard_regression",
    "hessian",
    "hessian_product",
    "kinked_wells",
    "landscape",
    "linear_network",
    "linear_regression",
    "linear_twin",
    "mean_over_chunks",
    "mean_over_examples",
    "minimise",
    "multilayer_perceptron",
    "perceptron",
    "population_risk",
    "quadratic",
    "quartic_wells",
    "read_cifar10",
    "read_mnist",
    "read_svhn",
    "shifted_tilted_quartic",
    "smooth_wells",
    "tilted_quartic",
    "two_basins",
    "valley_wells",
]


def __dir__() -> list[str]:
    return sorted(__all__)
