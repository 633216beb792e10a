"""What theory predicts: stationary laws of SGD, in one room a family with its formulas."""

from statsgd.laws import (
    atlas,
    balance,
    bases,
    gibbs,
    grids,
    loss_noise,
    mean_field,
    minimum,
    networks,
    valleys,
)
from statsgd.laws.balance import NoiseEquilibrium, RescalingGibbs
from statsgd.laws.bases import GaussianLaw
from statsgd.laws.gibbs import EffectivePotentialGibbs, Gibbs, KinkedWellsGibbs, TwoBasinGibbs
from statsgd.laws.grids import DiscreteChainLaw, FokkerPlanckLaw
from statsgd.laws.law import LAWS, ImproperLawError, Law, register
from statsgd.laws.loss_noise import (
    FlooredLossScaledLaw,
    FlooredPowerOfLossLaw,
    LogMultiplicativeWalk,
    LossScaledLaw,
    SaturatedPowerOfLossLaw,
    SaturatingLossScaledLaw,
    ScalarNoiseLaw,
    StrataLaw,
    TorusPowerOfLossLaw,
    ZeroLossCircleLaw,
)
from statsgd.laws.mean_field import MeanFieldLaw, MeanFieldLimit, QuadraticMeanField
from statsgd.laws.minimum import (
    AnisotropicQuadraticLaw,
    EpochNoiseGaussian,
    HeavyBallGaussian,
    LinearRegressionGaussian,
    OrnsteinUhlenbeckLaw,
    OutlierPowerLaw,
    PhaseSpaceGaussian,
)
from statsgd.laws.networks import DiagonalNetworkLaw, InfiniteDepthNetworkLaw, InterpolationLaw
from statsgd.laws.overview import applicable, catalogue
from statsgd.laws.valleys import TwoValleyLaw, ValleyEntropyLaw, ValleyLaw, ValleySharpnessLaw

__all__ = [
    "LAWS",
    "AnisotropicQuadraticLaw",
    "DiagonalNetworkLaw",
    "DiscreteChainLaw",
    "EffectivePotentialGibbs",
    "EpochNoiseGaussian",
    "FlooredLossScaledLaw",
    "FlooredPowerOfLossLaw",
    "FokkerPlanckLaw",
    "GaussianLaw",
    "Gibbs",
    "HeavyBallGaussian",
    "ImproperLawError",
    "InfiniteDepthNetworkLaw",
    "InterpolationLaw",
    "KinkedWellsGibbs",
    "Law",
    "LinearRegressionGaussian",
    "LogMultiplicativeWalk",
    "LossScaledLaw",
    "MeanFieldLaw",
    "MeanFieldLimit",
    "NoiseEquilibrium",
    "OrnsteinUhlenbeckLaw",
    "OutlierPowerLaw",
    "PhaseSpaceGaussian",
    "QuadraticMeanField",
    "RescalingGibbs",
    "SaturatedPowerOfLossLaw",
    "SaturatingLossScaledLaw",
    "ScalarNoiseLaw",
    "StrataLaw",
    "TorusPowerOfLossLaw",
    "TwoBasinGibbs",
    "TwoValleyLaw",
    "ValleyEntropyLaw",
    "ValleyLaw",
    "ValleySharpnessLaw",
    "ZeroLossCircleLaw",
    "applicable",
    "atlas",
    "balance",
    "bases",
    "catalogue",
    "gibbs",
    "grids",
    "loss_noise",
    "mean_field",
    "minimum",
    "networks",
    "register",
    "valleys",
]
