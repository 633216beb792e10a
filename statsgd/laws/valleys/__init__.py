"""Valleys of minima: where noise across them drives SGD along them."""

from statsgd.laws.valleys.basis_pursuit import weighted_basis_pursuit
from statsgd.laws.valleys.curve_laws import CosineCurvature, ValleyEntropyLaw, ValleySharpnessLaw
from statsgd.laws.valleys.diffusion import (
    integrate_valley_flow,
    label_noise_strength,
    return_to_valley,
    sharpness_flow,
    valley_motion,
)
from statsgd.laws.valleys.freezing import (
    Freezing,
    FreezingPoint,
    freezing_chain,
    freezing_point_scaling,
    freezing_prediction,
)
from statsgd.laws.valleys.random_shift import (
    random_shift_noise,
    random_shift_path,
    shift_noise_covariance,
)
from statsgd.laws.valleys.sharpness_aware import sharpness_aware_drift
from statsgd.laws.valleys.stability import LearningRateBounds, max_stable_learning_rate
from statsgd.laws.valleys.two_valley import TwoValleyLaw, two_valley_noise
from statsgd.laws.valleys.two_valley_hopping import ChainLaw, TwoValleyHopping, two_valley_chain_law
from statsgd.laws.valleys.valley import AdiabaticWarning, ValleyLaw

__all__ = [
    "AdiabaticWarning",
    "ChainLaw",
    "CosineCurvature",
    "Freezing",
    "FreezingPoint",
    "LearningRateBounds",
    "TwoValleyHopping",
    "TwoValleyLaw",
    "ValleyEntropyLaw",
    "ValleyLaw",
    "ValleySharpnessLaw",
    "freezing_chain",
    "freezing_point_scaling",
    "freezing_prediction",
    "integrate_valley_flow",
    "label_noise_strength",
    "max_stable_learning_rate",
    "random_shift_noise",
    "random_shift_path",
    "return_to_valley",
    "sharpness_aware_drift",
    "sharpness_flow",
    "shift_noise_covariance",
    "two_valley_chain_law",
    "two_valley_noise",
    "valley_motion",
    "weighted_basis_pursuit",
]


def __dir__() -> list[str]:
    return sorted(__all__)
