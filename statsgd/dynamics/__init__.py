"""How SGD moves."""

from statsgd.dynamics.diffusion import Diffusion, UnderdampedDiffusion
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.ensemble import simulate
from statsgd.dynamics.grid import SettingsGrid, batch, grid
from statsgd.dynamics.noise import GradientNoise, noise_covariance
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.perturbed import SharpnessAware, WeightNoise
from statsgd.dynamics.sgd import SGD, SGDState

__all__ = [
    "SGD",
    "Diffusion",
    "Dynamics",
    "GradientNoise",
    "OptaxDynamics",
    "SGDState",
    "SettingsGrid",
    "SharpnessAware",
    "UnderdampedDiffusion",
    "WeightNoise",
    "batch",
    "grid",
    "noise_covariance",
    "simulate",
]


def __dir__() -> list[str]:
    return sorted(__all__)
