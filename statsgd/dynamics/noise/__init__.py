"""Gradient noise: how a stochastic gradient differs from the gradient."""

from statsgd.dynamics.noise.covariance import noise_covariance
from statsgd.dynamics.noise.gradient_noise import NOISES, GradientNoise, NoNoise
from statsgd.dynamics.noise.injected import Anisotropic, HessianScaled, Isotropic, LossScaled
from statsgd.dynamics.noise.minibatch import Minibatch

__all__ = [
    "NOISES",
    "Anisotropic",
    "GradientNoise",
    "HessianScaled",
    "Isotropic",
    "LossScaled",
    "Minibatch",
    "NoNoise",
    "noise_covariance",
]
