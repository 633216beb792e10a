"""How far each law is from the truth at given dimensionless numbers, looked up in the atlas.

The table was computed by `python -m studies atlas` and is part of the package.
"""

import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import kinds_checked
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.noise.injected import LossScaled
from statsgd.dynamics.sgd import SGD
from statsgd.estimate import Discrepancy
from statsgd.problems import Problem, hessian, minimise

_LARGEST = 500  # parameters up to which the curvature is computed here


class ExpectedError(NamedTuple):
    """What the atlas says of a law at a setting."""

    total_variation: Discrepancy
    """Between the law and the truth, along one coordinate; NaN off the atlas."""
    cells: tuple[Discrepancy, ...]
    """The cells around the setting, between which it is interpolated; one if it is a cell."""
    at: Mapping[str, float]
    """The dimensionless numbers that it was looked up at."""
    problem: str
    """The problems that were computed; another problem with the same numbers may differ."""

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} = {value:.3g}" for name, value in self.at.items())
        if not self.cells:
            return f"off the atlas at {numbers}"
        told = str(self.total_variation)
        if len(self.cells) > 1:
            ordered = sorted(self.cells, key=lambda cell: cell.at_most)
            told += f", interpolated between cells at {ordered[0]} and at {ordered[-1]}"
        return f"{told}, at {numbers}, on: {self.problem}"


def expected_error(law: str, numbers: Mapping[str, float]) -> ExpectedError | None:
    """The error that the atlas knows of for `law` at dimensionless `numbers`.

    Between cells logarithms are interpolated over the logarithms of the numbers (their values where
    one of them is zero): those of total variations where all cells around the setting tell theirs
    from zero, with the standard error that this gives the result, and those of upper bounds alone
    where one does not. In no error is what the atlas has not looked at between its cells, nor what
    is left of the start in ensembles that start at draws of the law and run for three relaxation
    times: up to a twentieth of the distance.

    **Returns** None for a law that is not on the atlas or whose numbers are not all given; NaN off
    the range that was computed, as nothing is extrapolated, and next to cells without the law.

    >>> found = expected_error("Gibbs", {"ηh": 0.1, "β": 0.5})
    >>> found.total_variation.value < 0.05, len(found.cells), found.problem
    (True, 1, 'quadratic loss, constant Gaussian noise')
    """
    entry = _table().get(law)
    if entry is None or not set(entry["axes"]) <= set(numbers):
        return None
    at = {axis: float(numbers[axis]) for axis in entry["axes"]}
    known = cells_of(entry)
    weights, cells = [], []
    for corner in itertools.product(*(_between(entry["axes"][axis], at[axis]) for axis in at)):
        place = tuple(index for index, _ in corner)
        weights.append(math.prod(weight for _, weight in corner))
        cells.append(Discrepancy._make(known[place].tolist()))
    if not cells or any(math.isnan(cell.value) for cell in cells):
        nothing = Discrepancy(math.nan, math.nan, math.nan, False)
        return ExpectedError(nothing, (), at, entry["problem"])
    found = cells[0] if len(cells) == 1 else _interpolated(np.array(weights), cells)
    return ExpectedError(found, tuple(cells), at, entry["problem"])


def cells_of(entry: Mapping[str, Any]) -> Float[Any, "*axes 4"]:
    """The cells of a law over its axes, each with the fields of `Discrepancy`; NaN if unknown.

    >>> cells_of(_table()["Gibbs"]).shape  # ηh by β
    (7, 3, 4)
    """
    columns = [np.array(entry[name], dtype=float) for name in Discrepancy._fields]
    return np.stack(columns, axis=-1)


def _between(values: Sequence[float], at: float) -> list[tuple[int, float]]:
    """The values next to a number by their place, with weights; none outside their range."""
    scale: Callable = np.log if min(values) > 0 else np.asarray
    with np.errstate(divide="ignore", invalid="ignore"):
        points, place = scale(np.asarray(values, dtype=float)), float(scale(at))
    if not points[0] <= place <= points[-1]:
        return []
    right = int(np.searchsorted(points, place))
    if points[right] == place:
        return [(right, 1.0)]
    share = (place - points[right - 1]) / (points[right] - points[right - 1])
    return [(right - 1, 1 - share), (right, share)]


def _interpolated(weights: Float[Any, " n"], cells: Sequence[Discrepancy]) -> Discrepancy:
    values, errors, uppers, resolved = (np.array(column) for column in zip(*cells, strict=True))
    upper = float(np.exp(weights @ np.log(uppers)))
    if resolved.all():
        value = float(np.exp(weights @ np.log(values)))
        error = value * float(np.linalg.norm(weights * errors / values))
    else:  # zero may be among the values
        value, error = float(weights @ values), float(np.linalg.norm(weights * errors))
    return Discrepancy(min(value, upper), error, upper, bool(resolved.all()))


@kinds_checked
def dimensionless_numbers(problem: Problem, sgd: SGD) -> dict[str, float]:
    """The numbers by which the atlas is ordered, as far as the setting has them.

    - `ηh`: learning rate times the largest curvature at the minimum that `minimise` finds, with
      weight decay (for up to 500 parameters), and `ConvergenceWarning` where it finds none;
    - `β`: momentum; `S`: batch size of `Minibatch` noise, and `N/S`, steps an epoch;
    - `ησ`: learning rate times the strength of `LossScaled` noise.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> bowl, sgd = problems.quadratic(np.eye(1)), SGD(0.1, noise.Isotropic(1.0))
    >>> {name: round(value, 4) for name, value in dimensionless_numbers(bowl, sgd).items()}
    {'β': 0.0, 'ηh': 0.1}
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
