"""How SGD moves."""

from statsgd.dynamics.diffusion import Diffusion, UnderdampedDiffusion
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.ensemble import simulate
from statsgd.dynamics.grid import Grid, batch, grid
from statsgd.dynamics.noise import GradientNoise, noise_covariance
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.random_stream import STREAM, stream_key
from statsgd.dynamics.sgd import SGD, SGDState

__all__ = [
    "SGD",
    "STREAM",
    "Diffusion",
    "Dynamics",
    "GradientNoise",
    "Grid",
    "OptaxDynamics",
    "SGDState",
    "UnderdampedDiffusion",
    "batch",
    "grid",
    "noise_covariance",
    "simulate",
    "stream_key",
]
