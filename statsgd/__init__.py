"""Stationary laws of SGD as programs, sampled and held against SGD itself."""

from statsgd import laws, noise, problems
from statsgd.dynamics import SGD, grid, noise_covariance, simulate
from statsgd.laws import ImproperLawError
from statsgd.problems import Problem, hessian, minimise

__all__ = [
    "SGD",
    "ImproperLawError",
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
