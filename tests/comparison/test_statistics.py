"""Comparison statistics: known values, coverage of intervals, level and power of tests."""

import numpy as np
import pytest

from statsgd.comparison import energy_distance
from statsgd.comparison.statistics import cluster_mean, cluster_variance, critical_value


def test_energy_distance_of_two_points():
    # E|X−Y| with X ∈ {0, 2}, Y = {1, 5}: (1+5+1+3)/4; E|X−X'| = 1, E|Y−Y'| = 2.
    result = energy_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]), seed=0)
    np.testing.assert_allclose(result.distance, 2 * 2.5 - 1 - 2)
    np.testing.assert_allclose(result.coefficient, 2 / 5)


def test_energy_test_keeps_its_level():
    # 600 null repeats: the rejection rate at 5 % has standard error 0.9 %.
    rng = np.random.default_rng(0)
    p = [
        energy_distance(rng.normal(size=(40, 2)), rng.normal(size=(60, 2)), seed=i, permutations=99)
        for i in range(600)
    ]
    rate = np.mean([result.p_value <= 0.05 for result in p])
    assert abs(rate - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 600)


def test_energy_test_sees_a_wrong_scale():
    rng = np.random.default_rng(1)
    result = energy_distance(rng.normal(size=(500, 2)), 1.3 * rng.normal(size=(500, 2)), seed=0)
    assert result.p_value < 0.01


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
