"""Whether endpoints have had the time to forget where they started."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from statsgd.comparison.parts import DIFFERS, Part, verdicts_on, worded
from statsgd.comparison.statistics import critical_value
from statsgd.ensembles import surviving
from statsgd.laws import Law

#: What the verdict on runs that were too short begins with.
NOT_STATIONARY = "not stationary"
#: Records of an observable below which its two halves say nothing.
_FEWEST_RECORDS = 8


def stationarity(
    endpoints: Any,
    law: Law | None,
    *,
    margin: float,
    confidence: float,
    include_snapshots: bool,
) -> Part | None:
    """What endpoints have kept of their start; None where nothing is known of it.

    From the law's time scales at the learning rate and momentum of the run, which say what share of
    a displacement each direction has kept after the steps that were taken (up to the first snapshot
    where these are compared). And from observables: the means of their third and fourth quarter, in
    standard deviations over replicas. Either has to stay within `margin`.
    """
    if not isinstance(endpoints, xr.DataTree):
        return None
    parts = [_forgetting(endpoints, law, margin, include_snapshots)]
    parts.append(_drift(endpoints, margin, confidence))
    known = [part for part in parts if part is not None]
    return max(known, key=lambda part: part.excess, default=None)


def _forgetting(
    endpoints: xr.DataTree, law: Law | None, margin: float, include_snapshots: bool
) -> Part | None:
    steps = endpoints.attrs.get("steps")
    if law is None or steps is None:
        return None
    if include_snapshots:
        steps = endpoints["snapshots"].to_dataset()["step"].values.min()
    kept = law.kept(int(steps), *rate_and_momentum(endpoints))
    if kept is None:
        return None
    worst, slowest = float(np.max(kept)), int(np.argmax(kept))
    told = f"the slowest compared direction (mode {slowest}) has kept {worst:.2g} of its start"
    effect = (worst, worst, worst)
    return _part("share kept of the start", effect, margin, f"{told} after {steps} steps")


def rate_and_momentum(endpoints: xr.DataTree) -> tuple[float | None, float | None]:
    """Learning rate and momentum of a run of SGD where its tree tells them."""
    try:
        said = json.loads(endpoints.attrs.get("dynamics", "{}"))
    except json.JSONDecodeError:
        said = {}
    settings = dict(said) if isinstance(said, dict) else {}
    # A cell of a grid has its own.
    if "endpoints" in endpoints.children:
        coords = endpoints["endpoints"].to_dataset().coords
        settings |= {str(name): value.values[()] for name, value in coords.items()}
    found = []
    for name in ("learning_rate", "momentum"):
        value = settings.get(name)
        found.append(float(value) if isinstance(value, int | float | np.number) else None)
    return found[0], found[1]


def _drift(endpoints: xr.DataTree, margin: float, confidence: float) -> Part | None:
    if "observables" not in endpoints.children:
        return None
    alive = surviving(endpoints)
    shifts, errors, names, replicas = [], [], [], 0
    for name, array in endpoints["observables"].to_dataset().data_vars.items():
        if not {"replica", "step"} <= set(array.dims) or array.sizes["step"] < _FEWEST_RECORDS:
            continue
        values = np.asarray(array.transpose("replica", "step", ...).values, dtype=np.float64)
        values = values.reshape(*values.shape[:2], -1)
        if alive is not None and len(alive) == len(values):
            values = values[alive]
        shift, error = _quarters(values)
        shifts.append(shift)
        errors.append(error)
        names += [str(name)] * len(shift)
        replicas = len(values)
    if not names or replicas < 2:
        return None
    shift, error = np.concatenate(shifts), np.concatenate(errors)
    reach = critical_value(confidence, replicas, len(shift)) * error
    low, high = shift - reach, shift + reach
    worst = int(np.argmax(np.maximum(high, -low)))
    told = f"between its third and fourth quarter {names[worst]} moved by {shift[worst]:.2g} "
    effect = (float(shift[worst]), float(low[worst]), float(high[worst]))
    return _part("drift of an observable", effect, margin, f"{told}of its standard deviation")


def _part(statistic: str, effect: tuple[float, float, float], margin: float, told: str) -> Part:
    value, low, high = effect
    (verdict,) = verdicts_on(pd.DataFrame({"low": [low], "high": [high]}), 0.0, margin)
    if verdict == worded(DIFFERS, margin):
        verdict, told = f"{NOT_STATIONARY}: {told}", ""
    return Part("stationarity", verdict, value, low, high, 0.0, margin, statistic, told)


def _quarters(
    values: Float[Any, "replica step k"],
) -> tuple[Float[Any, " k"], Float[Any, " k"]]:
    """Change of the mean from third to fourth quarter, and its error, in standard deviations."""
    late = values[:, values.shape[1] // 2 :]
    middle = late.shape[1] // 2
    change = late[:, middle:].mean(axis=1) - late[:, :middle].mean(axis=1)
    sd = late.std(axis=(0, 1))
    unit = np.where(sd > 0, sd, 1.0)
    return change.mean(axis=0) / unit, change.std(axis=0, ddof=1) / np.sqrt(len(change)) / unit
