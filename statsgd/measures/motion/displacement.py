"""How far SGD wanders: mean squared displacement, its exponent, and speed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array, one_of
from statsgd.estimate import Estimate
from statsgd.laws.minimum import displacement_exponent
from statsgd.measures.runs.averages import (
    cut,
    jackknife,
    mean_over_clusters,
    mean_over_runs,
    stretch_count,
)

AVERAGES = ("ensemble", "time")


def squared_displacement(
    params: Float[Any, "replica record d"], lags: Sequence[int], average: str = "ensemble"
) -> Estimate:
    """E|θ_{k+lag} − θ_k|² at each of `lags` (params²), lags counted in records.

    - `average="ensemble"`: from the first record of each replica on, for any start.
    - `"time"`: over all pairs of records of a stationary run that far apart. A few replicas, or
      one, are then cut into stretches that forget each other.

    Errors are over replicas or stretches; those at different lags are correlated. The prediction
    near a minimum is `laws.minimum.mean_squared_displacement`.

    Raises `ValueError` for lags that are not positive or reach over the run or its stretches, and
    for runs too short for an error.

    Source: Kunin et al. (2021), arXiv:2107.09133.

    Numbers are float64.

    >>> import numpy as np
    >>> runs = np.stack([np.arange(6.0), -np.arange(6.0)])[..., None]
    >>> squared_displacement(runs, lags=[1, 2]).value
    array([1., 4.])
    """
    return mean_over_clusters(_curves(params, lags, average))


def anomalous_exponent(
    params: Float[Any, "replica record d"], lags: Sequence[int], average: str = "ensemble"
) -> Estimate:
    """Slope ν of ln E|θ_{k+lag} − θ_k|² on ln lag, by ordinary least squares over `lags`.

    1 is diffusion, 2 ballistic motion, below 1 slowed or saturating. The window is part of the
    statement: state it, and take log-spaced lags, or late ones weigh most. The error is the
    jackknife's over replicas or stretches, so it knows that displacements at different lags share
    their noise; that of the regression would be far too small.

    Raises as `squared_displacement`, and for fewer than two lags.

    Source: Kunin et al. (2021), arXiv:2107.09133.

    Numbers are float64.

    >>> import numpy as np
    >>> steps = np.random.default_rng(0).normal(size=(400, 9, 2))
    >>> walks = np.cumsum(steps, axis=1)
    >>> round(float(anomalous_exponent(walks, lags=[1, 2, 4, 8]).value), 1)  # diffusion
    1.0
    """
    window = np.asarray(lags, dtype=np.float64)
    curves = _curves(params, lags, average)
    return jackknife(lambda mean: displacement_exponent(window, mean), curves)


def mean_square_step(params: Float[Any, "replica record d"]) -> Estimate:
    """E|θ_{k+1} − θ_k|² of consecutive records (params²); see `laws.minimum.local_displacement`.

    Raises `ValueError` for fewer than two records and runs too short for an error.

    Numbers are float64.

    >>> import numpy as np
    >>> runs = np.arange(10.0)[:, None, None] * np.arange(6.0)[:, None]
    >>> float(mean_square_step(runs).value)  # the mean of 0², …, 9²
    28.5
    """
    values = _records(params)
    if values.shape[1] < 2:
        raise ValueError(f"params must have at least two records, got shape {values.shape}")
    return mean_over_runs(np.sum(np.diff(values, axis=1) ** 2, axis=2))


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
