"""Stationary laws of SGD as programs, sampled and held against SGD itself."""

# First of all: `import arviz` leaves NumPyro to be executed at first use. Were a submodule of it
# imported before that, it would be loaded twice, and `numpyro.factor` would not find the second.
from numpyro import __version__ as _numpyro_version  # noqa: F401

from statsgd import kernels, laws, measures, noise, problems, provenance, sweeps
from statsgd.comparison import Comparison, compare
from statsgd.diagnosis import diagnose
from statsgd.dynamics import SGD, Diffusion, OptaxDynamics, batch, grid, noise_covariance, simulate
from statsgd.kernels import sample
from statsgd.laws import ImproperLawError
from statsgd.problems import Problem, hessian, minimise
from statsgd.reports import report
from statsgd.running import Interrupted
from statsgd.sweeps import sweep

__all__ = [
    "SGD",
    "Comparison",
    "Diffusion",
    "ImproperLawError",
    "Interrupted",
    "OptaxDynamics",
    "Problem",
    "batch",
    "compare",
    "diagnose",
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
    "sweep",
    "sweeps",
]
