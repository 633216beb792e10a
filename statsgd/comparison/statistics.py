"""Means and variances over clusters with their errors, and what intervals are made of."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student

from statsgd.estimate import Estimate
from statsgd.measures import mean_over_clusters


def cluster_mean(samples: Float[Any, "n t k"]) -> Estimate:
    """Mean of each column; clusters are independent, values within one need not be.

    The error from a single cluster is infinite.
    """
    per_cluster = samples.mean(axis=1)
    if len(per_cluster) == 1:
        return Estimate(per_cluster[0], np.full(samples.shape[2], np.inf), 1)
    return mean_over_clusters(per_cluster)


def cluster_variance(samples: Float[Any, "n t k"]) -> Estimate:
    """Variance of each column about the mean over everything, with its standard error.

    The error is that of the mean of squared deviations over clusters: it holds for any law with a
    fourth moment, and sees the correlation within a cluster.
    """
    deviations = samples - samples.mean(axis=(0, 1))
    squared = cluster_mean(deviations**2)
    # The mean is fitted too: with n independent clusters this takes about 1/n off.
    correction = len(samples) / max(len(samples) - 1, 1)
    return Estimate(squared.value * correction, squared.standard_error, squared.clusters)


def critical_value(confidence: float, clusters: int, comparisons: int) -> float:
    """Half-width in standard errors of intervals that hold simultaneously (Bonferroni, Student)."""
    return student_quantile((1 - confidence) / (2 * comparisons), clusters)


def student_quantile(tail: float, clusters: int) -> float:
    """Quantile that a mean over `clusters` in its standard errors exceeds with probability `tail`.

    Of Student's law with one degree of freedom less.
    """
    return float(student.isf(tail, max(clusters - 1, 1)))


def normal_quantile(tail: float) -> float:
    """The standard normal quantile that is exceeded with probability `tail`."""
    return float(norm.isf(tail))


def quantile_interval(
    samples: Float[Any, "n t k"], level: float, tail: float
) -> tuple[Float[Any, " k"], Float[Any, " k"], Float[Any, " k"]]:
    """Quantile of each column at `level`, and the ends of its interval, for any law.

    The share of points below the quantile has a standard error from its scatter between clusters;
    the ends are the quantiles that many shares up and down, infinite where there are none. No
    moment need exist. Source: Woodruff (1952).
    """
    number = len(samples)
    ordered = np.sort(samples.reshape(-1, samples.shape[2]), axis=0)
    value = _at_level(ordered, np.full(samples.shape[2], level))
    reach = np.full(len(value), np.sqrt(level * (1 - level) / number))
    if samples.shape[1] > 1:
        reach = cluster_mean((samples <= value).astype(np.float64)).standard_error
    reach = student_quantile(tail, number) * reach
    low = np.where(level > reach, _at_level(ordered, level - reach), -np.inf)
    high = np.where(level + reach < 1, _at_level(ordered, level + reach), np.inf)
    return value, low, high


def _at_level(ordered: Float[Any, "n k"], level: Float[Any, " k"]) -> Float[Any, " k"]:
    """Quantiles of sorted columns, at a level of its own for each, linear between points."""
    place = np.clip(level, 0.0, 1.0) * (len(ordered) - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    column = np.arange(ordered.shape[1])
    part = place - below
    return (1 - part) * ordered[below, column] + part * ordered[above, column]
