"""Networks whose stationary law is known: diagonal, deep and linear ones."""

from statsgd.laws.networks.collapse import collapse_exponent
from statsgd.laws.networks.data_moments import DataMoments, noise_scale
from statsgd.laws.networks.diagonal_network import DiagonalNetworkLaw
from statsgd.laws.networks.infinite_depth import InfiniteDepthNetworkLaw
from statsgd.laws.networks.interpolation import InterpolationLaw, absorption_probability
from statsgd.laws.networks.large_steps import DiagonalNetLargeStep
from statsgd.laws.networks.learning_regime import bimodal_end, learning_regime, stationary_points
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.laws.networks.weight_variance import (
    TwoLayerCovariance,
    log_loss_flatness,
    two_layer_linear_covariance,
    variance_flatness_exponent,
    window_variance,
)

__all__ = [
    "DataMoments",
    "DiagonalNetLargeStep",
    "DiagonalNetworkLaw",
    "InfiniteDepthNetworkLaw",
    "InterpolationLaw",
    "ModeLaw",
    "TwoLayerCovariance",
    "absorption_probability",
    "bimodal_end",
    "collapse_exponent",
    "learning_regime",
    "log_loss_flatness",
    "noise_scale",
    "stationary_points",
    "two_layer_linear_covariance",
    "variance_flatness_exponent",
    "window_variance",
]


def __dir__() -> list[str]:
    return sorted(__all__)
