"""Stationary laws of SGD as programs, sampled and held against SGD itself.

Names are loaded when they are first used, so that importing the package costs little.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# First of all: `import arviz` leaves NumPyro to be executed at first use. Were a submodule of it
# imported before that, it would be loaded twice, and `numpyro.factor` would not find the second.
from numpyro import __version__ as _numpyro_version  # noqa: F401

if TYPE_CHECKING:  # what `__getattr__` does, said to those who only read
    from statsgd import kernels, laws, measures, noise, problems, provenance, reports, sweeps
    from statsgd.checkpoints import ensemble
    from statsgd.comparison import Comparison, compare
    from statsgd.diagnosis import diagnose
    from statsgd.dynamics import (
        SGD,
        Diffusion,
        OptaxDynamics,
        batch,
        grid,
        noise_covariance,
        simulate,
    )
    from statsgd.kernels import sample
    from statsgd.laws import ImproperLawError
    from statsgd.posterior import as_posterior
    from statsgd.problems import Problem, hessian, minimise
    from statsgd.reports import report
    from statsgd.running import Interrupted
    from statsgd.sweeps import sweep

#: Where every name lives.
_HOMES = {
    "checkpoints": ("ensemble",),
    "comparison": ("Comparison", "compare"),
    "diagnosis": ("diagnose",),
    "dynamics": (
        "SGD", "Diffusion", "OptaxDynamics", "batch", "grid", "noise_covariance", "simulate",
    ),
    "kernels": ("sample",),
    "laws": ("ImproperLawError",),
    "posterior": ("as_posterior",),
    "problems": ("Problem", "hessian", "minimise"),
    "reports": ("report",),
    "running": ("Interrupted",),
    "sweeps": ("sweep",),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SGD",
    "Comparison",
    "Diffusion",
    "ImproperLawError",
    "Interrupted",
    "OptaxDynamics",
    "Problem",
    "as_posterior",
    "batch",
    "compare",
    "diagnose",
    "ensemble",
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
    "reports",
    "sample",
    "simulate",
    "sweep",
    "sweeps",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("statsgd")
    if name in _HOME:
        found = getattr(importlib.import_module(f"statsgd.{_HOME[name]}"), name)
    elif name in (*__all__, *_HOMES):
        found = importlib.import_module(f"statsgd.{name}")
    else:
        raise AttributeError(f"module 'statsgd' has no attribute {name!r}")
    globals()[name] = found
    return found
