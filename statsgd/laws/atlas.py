"""How far each law is from the truth at given dimensionless numbers, looked up in the atlas.

The table was computed by `python -m studies atlas` and is part of the package.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.noise.injected import LossScaled
from statsgd.dynamics.sgd import SGD
from statsgd.problems import Problem, hessian, minimise

_LEAST = 1e-4  # total variation below which nothing is told apart
_LARGEST = 500  # parameters up to which the curvature is computed here


class ExpectedError(NamedTuple):
    """What the atlas says of a law at a setting."""

    total_variation: float
    """Between the law and the truth, along one coordinate; NaN off the atlas."""
    at: Mapping[str, float]
    """The dimensionless numbers that it was looked up at."""
    problem: str
    """The problems that were computed; another problem with the same numbers may differ."""

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} = {value:.3g}" for name, value in self.at.items())
        if np.isnan(self.total_variation):
            return f"off the atlas at {numbers}"
        return f"about {100 * self.total_variation:.2g} % at {numbers}, on: {self.problem}"


def expected_error(law: str, numbers: Mapping[str, float]) -> ExpectedError | None:
    """The error that the atlas knows of for `law` at dimensionless `numbers`.

    Interpolates the logarithm of total variation over the logarithms of the numbers (their values
    where one of them is zero). **Returns** None for a law that is not on the atlas or whose numbers
    are not all given; NaN off the range that was computed and where the law does not exist.
    """
    entry = _table().get(law)
    if entry is None or not set(entry["axes"]) <= set(numbers):
        return None
    at = {axis: float(numbers[axis]) for axis in entry["axes"]}
    points, place = [], []
    for axis, values in entry["axes"].items():
        scale = np.log if min(values) > 0 else np.asarray
        points.append(np.atleast_1d(scale(np.asarray(values, dtype=float))))
        with np.errstate(divide="ignore"):
            place.append(float(scale(at[axis])))
    distances = np.array(entry["total_variation"], dtype=float)
    known = np.isfinite(distances)
    logs = np.log(np.maximum(np.where(known, distances, 1.0), _LEAST))
    # A corner that is not known spoils the cells around it, but not those it has no weight in.
    together = np.stack([logs, np.where(known, 0.0, 1.0)], axis=-1)
    look_up = RegularGridInterpolator(points, together, bounds_error=False, fill_value=np.nan)
    value, unknown = look_up(place)[0]
    found = float(np.exp(value)) if unknown == 0 else np.nan
    return ExpectedError(found, at, entry["problem"])


def dimensionless_numbers(problem: Problem, sgd: SGD) -> dict[str, float]:
    """The numbers by which the atlas is ordered, as far as the setting has them.

    - `ηh`: learning rate times the largest curvature at the minimum that `minimise` finds, with
      weight decay (for up to 500 parameters), and `ConvergenceWarning` where it finds none;
    - `β`: momentum; `S`: batch size of `Minibatch` noise, and `N/S`, steps an epoch;
    - `ησ`: learning rate times the strength of `LossScaled` noise.
    """
    eta, decay = float(sgd.learning_rate), float(sgd.weight_decay)
    numbers = {"β": float(sgd.momentum)}
    if problem.dimension <= _LARGEST:
        minimum = minimise(problem, weight_decay=decay)
        minimum.warn_unless_converged("ηh")
        curvature = np.linalg.eigvalsh(np.asarray(hessian(problem, minimum.params)))[-1] + decay
        if curvature > 0:
            numbers["ηh"] = eta * float(curvature)
    noise: Any = sgd.noise
    if isinstance(noise, Minibatch):
        numbers["S"] = float(noise.batch_size)
        examples = getattr(problem, "num_examples", None)
        if examples:
            numbers["N/S"] = examples / numbers["S"]
    if isinstance(noise, LossScaled):
        numbers["ησ"] = eta * float(noise.strength)
    return numbers


@functools.cache
def _table() -> Mapping[str, Any]:
    return json.loads(resources.files("statsgd.laws").joinpath("atlas.json").read_text("utf-8"))
