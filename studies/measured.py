"""What studies read off ensembles of runs, and how claims judge it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from statsgd.comparison import Quantity
from statsgd.estimate import Estimate
from statsgd.measures import jackknife, mean_over_clusters
from statsgd.reports.charts import Series


def claimed(
    name: str, measured: Estimate, relation: str, predicted: Any, margin: float = 0.0
) -> Quantity:
    """A measured number that is claimed to be `"="`, `"<"` or `">"` a predicted or measured one."""
    if not isinstance(predicted, Estimate):
        predicted = Estimate(predicted, 0.0)
    return Quantity(
        name, float(measured.value), float(measured.standard_error),
        float(predicted.value), relation, margin, float(predicted.standard_error),
        fewest(measured, predicted),
    )  # fmt: skip


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one` less an independent `other`."""
    error = np.hypot(one.standard_error, other.standard_error)
    return Estimate(one.value - other.value, error, fewest(one, other))


def ratio(one: Estimate, other: Estimate) -> Estimate:
    """`one` over an independent `other`, with its error to first order."""
    value = one.value / other.value
    relative = np.hypot(one.standard_error / one.value, other.standard_error / other.value)
    return Estimate(value, np.abs(value) * relative, fewest(one, other))


def over_data_sets(each: Sequence[Estimate]) -> Estimate:
    """Mean over data sets, with the spread between them as its error.

    Of a single one the error is that of runs on it; it says nothing of other data.
    """
    if len(each) == 1:
        return each[0]
    return mean_over_clusters(np.stack([np.asarray(one.value, dtype=np.float64) for one in each]))


def unit(data_sets: int) -> str:
    """What the errors of `over_data_sets` are over."""
    return "data sets" if data_sets > 1 else "runs"


def fewest(*estimates: Estimate) -> int | None:
    """The smallest number of units behind any of them: their joint error is no better known."""
    known = [one.clusters for one in estimates if one.clusters is not None]
    return min(known, default=None)


def points(label: str, x: Any, rows: Sequence[Estimate], group: str = "") -> Series:
    """Measured numbers over x, with their errors, for a chart."""
    values, errors = ([row[i] for row in rows] for i in (0, 1))
    return Series(label, x, values, errors, group=group)


def observed(run: xr.DataTree, name: str) -> Float[Any, "..."]:
    """An observable of an ensemble, in double precision."""
    return np.asarray(run["observables"].to_dataset()[name].values, dtype=np.float64)


def endpoints(run: xr.DataTree) -> Float[Any, "..."]:
    """The endpoints of an ensemble whose params are one array, in double precision."""
    (leaf,) = run["endpoints"].to_dataset().data_vars.values()
    return np.asarray(leaf.values, dtype=np.float64)


def share_of_runs(condition: Bool[Any, "n ..."]) -> Estimate:
    """Share of runs, and of times, that meet a condition; times of one run may depend."""
    return mean_over_clusters(condition.reshape(len(condition), -1).mean(axis=1))


def variance_over_runs(values: Float[Any, "n t"]) -> Estimate:
    """Variance over runs and times; times of one run may depend."""
    # About a fixed centre, for digits: the variance does not change.
    centred = values - np.mean(values)
    moments = np.stack([centred.mean(axis=1), np.mean(centred**2, axis=1)], axis=1)
    return jackknife(lambda mean: mean[1] - mean[0] ** 2, moments)


def zero_crossing(
    settings: Float[Any, " c"], rates: Float[Any, "c n"], groups: int = 16
) -> Estimate:
    """The setting at which the mean over runs of `rates` changes sign, by a parabola through them.

    Runs at different settings may share their random numbers: the error is that of leaving out
    groups of runs.
    """
    parts = [part.mean(axis=1) for part in np.array_split(rates, groups, axis=1)]
    return jackknife(lambda means: _root(settings, means), np.stack(parts))


def _root(settings: Float[Any, " c"], rates: Float[Any, " c"]) -> float:
    middle = settings.mean()
    roots = np.roots(np.polyfit(settings / middle, rates, 2))
    real = roots[np.isreal(roots)].real
    return float(real[np.argmin(np.abs(real - 1))] * middle)
