"""How far SGD wanders: mean squared displacement, its exponent, and speed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import count, finite_array, one_of
from statsgd.laws.minimum import displacement_exponent
from statsgd.measures.measured import (
    Measured,
    cut,
    jackknife,
    mean_over_clusters,
    mean_over_runs,
    stretch_count,
)
from statsgd.measures.trajectories import label, trajectories

AVERAGES = ("ensemble", "time")


def squared_displacement(
    params: Float[Any, "replica record d"], lags: Sequence[int], average: str = "ensemble"
) -> Measured:
    """E|θ_{k+lag} − θ_k|² at each of `lags` (params²), lags counted in records.

    - `average="ensemble"`: from the first record of each replica on, for any start.
    - `"time"`: over all pairs of records of a stationary run that far apart. A few replicas, or
      one, are then cut into stretches that forget each other.

    Errors are over replicas or stretches; those at different lags are correlated. The prediction
    near a minimum is `laws.minimum.mean_squared_displacement`.

    Raises `ValueError` for lags that are not positive or reach over the run or its stretches, and
    for runs too short for an error.

    Source: Kunin et al. (2021), arXiv:2107.09133.
    """
    return mean_over_clusters(_curves(params, lags, average))


def anomalous_exponent(
    params: Float[Any, "replica record d"], lags: Sequence[int], average: str = "ensemble"
) -> Measured:
    """Slope ν of ln E|θ_{k+lag} − θ_k|² on ln lag, by ordinary least squares over `lags`.

    1 is diffusion, 2 ballistic motion, below 1 slowed or saturating. The window is part of the
    statement: state it, and take log-spaced lags, or late ones weigh most. The error is the
    jackknife's over replicas or stretches, so it knows that displacements at different lags share
    their noise; that of the regression would be far too small.

    Raises as `squared_displacement`, and for fewer than two lags.

    Source: Kunin et al. (2021), arXiv:2107.09133.
    """
    window = np.asarray(lags, dtype=np.float64)
    curves = _curves(params, lags, average)
    return jackknife(lambda mean: displacement_exponent(window, mean), curves)


def mean_square_step(params: Float[Any, "replica record d"]) -> Measured:
    """E|θ_{k+1} − θ_k|² of consecutive records (params²); see `laws.minimum.local_displacement`.

    Raises `ValueError` for fewer than two records and runs too short for an error.
    """
    values = _records(params)
    if values.shape[1] < 2:
        raise ValueError(f"params must have at least two records, got shape {values.shape}")
    return mean_over_runs(np.sum(np.diff(values, axis=1) ** 2, axis=2))


def mean_square_speed(momentum_buffer: Float[Any, "replica record d"]) -> Measured:
    """E|v|² with the velocity v = −m, from momentum buffers of stationary runs (params²/time²).

    One step moves |θ_{k+1} − θ_k| = η|v|. Raises `ValueError` for runs too short for an error.
    """
    return mean_over_runs(np.sum(_records(momentum_buffer) ** 2, axis=2))


def displacement_dataset(
    tree: xr.DataTree, lags: Sequence[int], average: str = "ensemble"
) -> xr.Dataset:
    """`squared_displacement` of evenly spaced snapshots, along the coordinate `lag` in steps.

    `lags` are in steps, multiples of the spacing of `simulate(…, keep=every)`. The exponent over
    this window and its error are attributes, and so are mean square step and speed where they can
    be had. Raises as `squared_displacement` and `trajectories`.
    """
    run = trajectories(tree)
    spacing = run.spacing()
    steps = [count("lags", lag) for lag in lags]
    if any(lag % spacing for lag in steps):
        raise ValueError(f"lags must be multiples of the spacing {spacing}, got {steps}")
    records = [lag // spacing for lag in steps]
    moved = squared_displacement(run.params, records, average)
    found = label({"squared_displacement": moved}, ("lag",), {"lag": steps})
    single: dict[str, Measured] = {}
    if len(records) > 1:
        single["anomalous_exponent"] = anomalous_exponent(run.params, records, average)
    if spacing == 1:
        single["mean_square_step"] = mean_square_step(run.params)
    if run.momentum_buffer is not None:
        single["mean_square_speed"] = mean_square_speed(run.momentum_buffer)
    for name, one in single.items():
        found.attrs[name] = float(one.value)
        found.attrs[f"{name}_error"] = float(one.standard_error)
    found.attrs |= {"kind": "displacement", "average": average}
    return found


def _curves(params: Any, lags: Sequence[int], average: str) -> Float[Any, "cluster lags"]:
    values = _records(params)
    chosen = [count("lags", lag) for lag in lags]
    if not chosen:
        raise ValueError("lags must be at least one positive integer, got none")
    if one_of("average", average, AVERAGES) == "time":
        values = cut(values, stretch_count(values))
    if max(chosen) >= values.shape[1]:
        raise ValueError(
            f"lags must be below the {values.shape[1]} records of a "
            f"{'stretch' if average == 'time' else 'replica'}, got {max(chosen)}"
        )

    def moved(lag: int) -> Float[Any, " cluster"]:
        if average == "ensemble":
            return np.sum((values[:, lag] - values[:, 0]) ** 2, axis=1)
        return np.sum((values[:, lag:] - values[:, :-lag]) ** 2, axis=2).mean(axis=1)

    return np.stack([moved(lag) for lag in chosen], axis=1)


def _records(params: Any) -> Float[Any, "replica record d"]:
    return np.asarray(finite_array("params", params, ndim=3), dtype=np.float64)
