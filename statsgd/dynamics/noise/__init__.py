"""Gradient noise: how a stochastic gradient differs from the gradient."""

from statsgd.dynamics.noise.covariance import noise_covariance
from statsgd.dynamics.noise.empirical import Empirical
from statsgd.dynamics.noise.gradient_noise import NOISES, GradientNoise, NoNoise
from statsgd.dynamics.noise.heavy_tailed import Stable, StudentT
from statsgd.dynamics.noise.injected import Anisotropic, HessianScaled, Isotropic, LossScaled
from statsgd.dynamics.noise.label import LabelNoise
from statsgd.dynamics.noise.minibatch import Minibatch
from statsgd.dynamics.noise.subspace import (
    example_slopes,
    noise_and_curvature_along,
    noise_covariance_along,
    noise_covariance_along_estimate,
)
from statsgd.dynamics.noise.trace_matched import TraceMatched

__all__ = [
    "NOISES",
    "Anisotropic",
    "Empirical",
    "GradientNoise",
    "HessianScaled",
    "Isotropic",
    "LabelNoise",
    "LossScaled",
    "Minibatch",
    "NoNoise",
    "Stable",
    "StudentT",
    "TraceMatched",
    "example_slopes",
    "noise_and_curvature_along",
    "noise_covariance",
    "noise_covariance_along",
    "noise_covariance_along_estimate",
]


def __dir__() -> list[str]:
    return sorted(__all__)
