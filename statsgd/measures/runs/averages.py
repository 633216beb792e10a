"""Measured values with errors: means over independent replicas, and over correlated steps.

A cluster is a replica, or a stretch of one that is long against the time over which it remembers.
Clusters are as good as independent, so errors are those of means over clusters.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array
from statsgd.estimate import Estimate

#: Stretches that one run, or a few, are cut into at most, and clusters that errors need at least.
MOST_STRETCHES, LEAST_CLUSTERS = 64, 8
#: Length of a stretch in correlation times: its mean then varies as that of an endless run to 3 %.
TIMES_PER_STRETCH = 20


def mean_over_clusters(clusters: Float[Any, "n ..."]) -> Estimate:
    """Mean over the first axis, whose entries are independent; the error is that of the mean.

    Raises `ValueError` for fewer than two clusters.

    Numbers are float64.

    >>> import numpy as np
    >>> mean_over_clusters(np.array([1.0, 2.0, 3.0]))
    Estimate(2 ± 0.57735)
    """
    values = _at_least_two("clusters", clusters)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return Estimate(values.mean(axis=0), error, len(values))


def jackknife(
    statistic: Callable[[Float[Any, "n ..."]], Any], clusters: Float[Any, "n ..."]
) -> Estimate:
    """`statistic` of the mean over independent clusters, with the delete-one error.

    For smooth functions of means: ratios, logarithms, slopes. The bias of order 1/n is removed.

    Source: Efron, Stein (1981).

    Numbers are float64.

    >>> import numpy as np
    >>> jackknife(lambda mean: mean**2, np.array([1.0, 2.0, 3.0]))
    Estimate(3.66667 ± 2.31541)
    """
    values = _at_least_two("clusters", clusters)
    n = len(values)
    total = values.sum(axis=0)
    whole = np.asarray(statistic(total / n), dtype=np.float64)
    rest = np.array([statistic((total - one) / (n - 1)) for one in values])
    error = np.sqrt((n - 1) / n * np.sum((rest - rest.mean(axis=0)) ** 2, axis=0))
    return Estimate(n * whole - (n - 1) * rest.mean(axis=0), error, n)


def correlation_time(series: Float[Any, "replica step"]) -> float:
    """Steps over which runs remember: 1 + 2Σ|ρ_k| up to where |ρ| stays below its noise.

    ρ is the autocorrelation pooled over replicas, about the mean of all. Absolute values, because
    a run that oscillates is no shorter for it; so this is at least the integrated time. One for
    independent steps, and for a constant series. Source: derived.

    Numbers are float64.

    >>> import numpy as np
    >>> correlation_time(np.random.default_rng(0).normal(size=(100, 50))) < 2
    True
    """
    values = np.asarray(finite_array("series", series, ndim=2), dtype=np.float64)
    steps = values.shape[1]
    centred = values - values.mean()
    size = 2 ** int(np.ceil(np.log2(2 * steps)))
    power = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    covariance = np.fft.irfft(power.sum(axis=0), size)[:steps]
    if steps < 4 or covariance[0] <= 1e-24 * values.size * max(np.max(values**2), 1e-300):
        return 1.0
    # Bartlett's tapered estimate; long lags are noise, and would all count with absolute values.
    rho = np.abs(covariance / covariance[0])
    noise = 3 / np.sqrt(values.size)
    for _ in range(3):
        # Two times in a row below the noise, since an oscillation passes through zero.
        quiet = np.maximum(rho[1:-1], rho[2:]) < noise
        end = 1 + int(np.argmax(quiet)) if quiet.any() else steps
        time = float(1 + 2 * rho[1:end].sum())
        noise = 3 * np.sqrt(min(time, steps) / values.size)
    return time


def stretch_count(series: Float[Any, "replica step ..."]) -> int:
    """Into how many stretches each stationary run may be cut, as good as independent.

    One of each, if there are 64 replicas. Of few, or one, stretches are at least 20 correlation
    times long (the longest over the trailing entries), and up to 64 in all.

    Raises `ValueError` where fewer than 8 clusters come out: the run is too short for an error.
    """
    values = np.asarray(finite_array("series", series), dtype=np.float64)
    if values.ndim < 2:
        raise ValueError(f"series must have axes (replica, step, …), got shape {values.shape}")
    replicas, steps = values.shape[:2]
    wanted, cuts = -(-MOST_STRETCHES // replicas), 1
    if wanted > 1 and steps > 1:
        flat = values.reshape(replicas, steps, -1)
        time = max(correlation_time(flat[:, :, i]) for i in range(flat.shape[2]))
        cuts = int(np.clip(steps / (TIMES_PER_STRETCH * time), 1, wanted))
    if replicas * cuts < LEAST_CLUSTERS:
        raise ValueError(
            f"series must be worth at least {LEAST_CLUSTERS} independent stretches, got {replicas} "
            f"replica(s) of {steps} steps, worth {replicas * cuts}: run longer, or more replicas"
        )
    return cuts


def cut(series: Float[Any, "replica step ..."], cuts: int) -> Float[Any, "cluster within ..."]:
    """Each run cut into `cuts` stretches of equal length; what is over is left out at the start."""
    values = np.asarray(series, dtype=np.float64)
    replicas, steps = values.shape[:2]
    length = steps // count("cuts", cuts)
    kept = values[:, steps - cuts * length :]
    return kept.reshape(replicas * cuts, length, *values.shape[2:])


def mean_over_runs(series: Float[Any, "replica step ..."]) -> Estimate:
    """Mean over replicas and steps of stationary runs, one or many, with an error over clusters.

    Clusters are replicas, or stretches of them: see `stretch_count`.

    Raises `ValueError` for runs that are too short.

    Numbers are float64.

    >>> import numpy as np
    >>> mean_over_runs(np.arange(20.0).reshape(10, 2))
    Estimate(9.5 ± 1.91485)
    """
    return mean_over_clusters(cut(series, stretch_count(series)).mean(axis=1))


def bootstrap(
    statistic: Callable[[Float[Any, "n ..."]], Any],
    clusters: Float[Any, "n ..."],
    *,
    seed: int,
    resamples: int = 400,
) -> Estimate:
    """`statistic` of independent clusters, with the error of resampling them.

    Source: Efron (1979).

    Numbers are float64.

    >>> import numpy as np
    >>> found = bootstrap(np.mean, np.arange(10.0), seed=0)
    >>> float(found.value)
    4.5
    """
    values = _at_least_two("clusters", clusters)
    rng = np.random.default_rng(seed)
    n = len(values)
    drawn = np.array(
        [
            statistic(values[rng.integers(n, size=n)])
            for _ in range(count("resamples", resamples, at_least=50))
        ]
    )
    return Estimate(np.asarray(statistic(values)), drawn.std(axis=0, ddof=1), n)


def _at_least_two(name: str, clusters: Any) -> np.ndarray:
    values = np.asarray(finite_array(name, clusters), dtype=np.float64)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"{name} must be at least 2 for an error, got shape {values.shape}")
    return values
