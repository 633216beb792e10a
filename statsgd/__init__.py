"""Stationary laws of SGD as programs, sampled and held against SGD itself."""

from statsgd import kernels, laws, measures, noise, problems, provenance
from statsgd.comparison import Comparison, compare
from statsgd.dynamics import SGD, Diffusion, OptaxDynamics, grid, noise_covariance, simulate
from statsgd.kernels import sample
from statsgd.laws import ImproperLawError
from statsgd.problems import Problem, hessian, minimise
from statsgd.reports import report

__all__ = [
    "SGD",
    "Comparison",
    "Diffusion",
    "ImproperLawError",
    "OptaxDynamics",
    "Problem",
    "compare",
    "grid",
    "hessian",
    "kernels",
    "laws",
    "measures",
    "minimise",
    "noise",
    "noise_covariance",
    "problems",
    "provenance",
    "report",
    "sample",
    "simulate",
]
