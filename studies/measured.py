"""What studies read off ensembles: means over runs with errors, and where a rate changes sign."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.comparison.statistics import cluster_mean


class Mean(NamedTuple):
    """A mean over runs and time, and its standard error over runs."""

    value: float
    error: float


def mean_over_runs(values: Any) -> Mean:
    """Mean of `values` `(replica,)` or `(replica, time)`; times of one run may depend."""
    array = np.asarray(values, dtype=np.float64)
    estimate = cluster_mean(array.reshape(len(array), -1, 1))
    return Mean(float(estimate.value[0]), float(estimate.standard_error[0]))


def ratio_over_runs(part: Any, whole: Any) -> Mean:
    """Mean of `part` over mean of `whole`, both summed over the times of each run."""
    a, b = (
        np.asarray(values, dtype=np.float64).reshape(len(values), -1).sum(1)
        for values in (part, whole)
    )
    ratio = a.mean() / b.mean()
    deviation = (a - ratio * b) / b.mean()
    return Mean(float(ratio), float(deviation.std(ddof=1) / np.sqrt(len(a))))


def observed(run: xr.DataTree, name: str) -> Float[Any, "..."]:
    """An observable of an ensemble, in double precision."""
    return np.asarray(run["observables"].to_dataset()[name].values, dtype=np.float64)


def endpoints(run: xr.DataTree) -> Float[Any, "..."]:
    """The endpoints of an ensemble whose params are one array, in double precision."""
    (leaf,) = run["endpoints"].to_dataset().data_vars.values()
    return np.asarray(leaf.values, dtype=np.float64)


def zero_crossing(settings: Float[Any, " c"], rates: Float[Any, "c n"], groups: int = 16) -> Mean:
    """The setting at which the mean over runs of `rates` changes sign, by a parabola through them.

    Runs at different settings may share their random numbers: the error comes from crossings of
    disjoint groups of runs.
    """
    parts = np.array_split(np.arange(rates.shape[1]), groups)
    return mean_over_runs([_root(settings, rates[:, part].mean(1)) for part in parts])


def _root(settings: Float[Any, " c"], rates: Float[Any, " c"]) -> float:
    middle = settings.mean()
    roots = np.roots(np.polyfit(settings / middle, rates, 2))
    real = roots[np.isreal(roots)].real
    return float(real[np.argmin(np.abs(real - 1))] * middle)
