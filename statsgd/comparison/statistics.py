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
    tail = (1 - confidence) / (2 * comparisons)
    return float(student.isf(tail, max(clusters - 1, 1)))


def normal_quantile(tail: float) -> float:
    """The standard normal quantile that is exceeded with probability `tail`."""
    return float(norm.isf(tail))
