"""Comparison statistics: known values and coverage of intervals."""

import numpy as np
import pytest

from statsgd.comparison.statistics import cluster_mean, cluster_variance, critical_value


def correlated(rng, clusters, within, heavy):
    """Clusters of AR(1) values with unit variance; heavy-tailed if asked."""
    normal = (
        rng.standard_t(8, size=(clusters, within)) if heavy else rng.normal(size=(clusters, within))
    )
    normal /= np.sqrt(8 / 6) if heavy else 1.0
    values = np.empty_like(normal)
    values[:, 0] = normal[:, 0]
    for i in range(1, within):
        values[:, i] = 0.9 * values[:, i - 1] + np.sqrt(1 - 0.81) * normal[:, i]
    return values[..., None]


@pytest.mark.parametrize("heavy", [False, True])
def test_intervals_cover_although_values_within_clusters_are_correlated(heavy):
    rng = np.random.default_rng(2)
    repeats, hits = 1500, np.zeros(2)
    z = critical_value(0.95, 200, 1)
    for _ in range(repeats):
        sample = correlated(rng, 200, 8, heavy)
        mean, variance = cluster_mean(sample), cluster_variance(sample)
        hits += [
            abs(mean.value[0]) < z * mean.standard_error[0],
            abs(np.log(variance.value[0])) < z * variance.standard_error[0] / variance.value[0],
        ]
    # Nominal 95 %; the variance of 200 clusters undercovers by about a per cent.
    error = np.sqrt(0.95 * 0.05 / repeats)
    assert abs(hits[0] / repeats - 0.95) < 4 * error
    assert 0.92 < hits[1] / repeats < 0.97


def test_treating_correlated_values_as_independent_would_not_cover():
    rng = np.random.default_rng(3)
    sample = correlated(rng, 200, 8, False)
    honest = cluster_mean(sample).standard_error[0]
    naive = cluster_mean(sample.reshape(-1, 1, 1)).standard_error[0]
    assert naive < 0.6 * honest


def test_simultaneous_intervals_are_wider():
    # Normal quantiles: 1.96 for one interval, 3.48 for a hundred (0.025 % in each tail).
    assert abs(critical_value(0.95, 10**6, 1) - 1.95996) < 1e-3
    assert abs(critical_value(0.95, 10**6, 100) - 3.48076) < 1e-3
    assert critical_value(0.95, 5, 1) > 2.7
