"""Comparison statistics on arrays: effect sizes with errors, distances with permutation nulls."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist
from scipy.stats import norm
from scipy.stats import t as student

from statsgd.estimate import Estimate
from statsgd.measures import mean_over_clusters


class DistanceTest(NamedTuple):
    """A two-sample distance with its permutation p-value."""

    distance: float
    """Energy distance 2E|X−Y| − E|X−X'| − E|Y−Y'|, unit of the samples."""
    coefficient: float
    """The same divided by 2E|X−Y|: 0 for equal laws, at most 1."""
    p_value: float


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


def energy_distance(
    x: Float[Any, "n d"],
    y: Float[Any, "m d"],
    seed: int,
    permutations: int = 999,
) -> DistanceTest:
    """Energy distance between two independent samples, with a permutation p-value.

    The p-value is exact: under equal laws it is at most α with probability at most α.
    Memory (n + m)². Source: Székely, Rizzo (2013).
    """
    pooled = np.concatenate([x, y])
    distances = cdist(pooled, pooled)
    n, total = len(x), len(pooled)
    rng = np.random.default_rng(seed)
    labels = np.zeros((total, permutations + 1))
    labels[:n, 0] = 1
    for column in range(1, permutations + 1):
        labels[rng.permutation(total)[:n], column] = 1
    within_x = np.einsum("ip,ip->p", labels, distances @ labels)
    row_sums = distances.sum(axis=1)
    touching_x = row_sums @ labels  # pairs with the first index in x
    between = touching_x - within_x
    within_y = row_sums.sum() - 2 * between - within_x
    m = total - n
    energies = 2 * between / (n * m) - within_x / n**2 - within_y / m**2
    p_value = (1 + np.sum(energies[1:] >= energies[0] * (1 - 1e-12))) / (permutations + 1)
    scale = 2 * between[0] / (n * m)
    return DistanceTest(float(energies[0]), float(energies[0] / scale), float(p_value))
