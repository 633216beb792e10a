"""Stationary laws of SGD as programs, sampled and held against SGD itself."""

from statsgd import laws, noise, problems
from statsgd.dynamics import SGD, Diffusion, OptaxDynamics, grid, noise_covariance, simulate
from statsgd.laws import ImproperLawError
from statsgd.problems import Problem, hessian, minimise

__all__ = [
    "SGD",
    "Diffusion",
    "ImproperLawError",
    "OptaxDynamics",
    "Problem",
    "grid",
    "hessian",
    "laws",
    "minimise",
    "noise",
    "noise_covariance",
    "problems",
    "simulate",
]
