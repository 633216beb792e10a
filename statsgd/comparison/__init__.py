"""Endpoints against laws."""

from statsgd.comparison.accuracy import Accuracy, Marginal, accuracy
from statsgd.comparison.calibration import (
    CALIBRATED_TESTS,
    Setting,
    calibrate,
    normal_setting,
    standard_settings,
    wells_setting,
)
from statsgd.comparison.claims import Claim, Quantity
from statsgd.comparison.compare import compare
from statsgd.comparison.dependence import Thinned, thin_by_effective_size
from statsgd.comparison.distribution_tests import TESTS
from statsgd.comparison.effects import (
    BasinProbabilities,
    Effect,
    FlatPreference,
    MeanRatio,
    TotalVariation,
)
from statsgd.comparison.gap import gap_decomposition
from statsgd.comparison.grid_comparison import compare_grid
from statsgd.comparison.model_comparison import (
    compare_laws,
    fit_law,
    fitted_laws,
    parameter_verdicts,
)
from statsgd.comparison.multiplicity import holm
from statsgd.comparison.parts import Part
from statsgd.comparison.permutation import HypothesisTest
from statsgd.comparison.stein import kernel_stein_discrepancy
from statsgd.comparison.two_sample import (
    classifier,
    cramer_von_mises,
    energy,
    kolmogorov_smirnov,
    maximum_mean_discrepancy,
    sliced_wasserstein,
)
from statsgd.comparison.verdicts import Comparison

__all__ = [
    "CALIBRATED_TESTS",
    "TESTS",
    "Accuracy",
    "BasinProbabilities",
    "Claim",
    "Comparison",
    "Effect",
    "FlatPreference",
    "HypothesisTest",
    "Marginal",
    "MeanRatio",
    "Part",
    "Quantity",
    "Setting",
    "Thinned",
    "TotalVariation",
    "accuracy",
    "calibrate",
    "classifier",
    "compare",
    "compare_grid",
    "compare_laws",
    "cramer_von_mises",
    "energy",
    "fit_law",
    "fitted_laws",
    "gap_decomposition",
    "holm",
    "kernel_stein_discrepancy",
    "kolmogorov_smirnov",
    "maximum_mean_discrepancy",
    "normal_setting",
    "parameter_verdicts",
    "sliced_wasserstein",
    "standard_settings",
    "thin_by_effective_size",
    "wells_setting",
]


def __dir__() -> list[str]:
    return sorted(__all__)
