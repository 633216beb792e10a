"""Comparison statistics: known values and coverage of intervals."""

import numpy as np
import pytest
from scipy.stats import t as student

from statsgd.comparison.statistics import (
    cluster_mean,
    cluster_variance,
    critical_value,
    quantile_interval,
)
from statsgd.comparison.tails import tail_index


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


@pytest.mark.parametrize(("nu", "level"), [(1.5, 0.5), (1.5, 0.99), (30.0, 0.99)])
def test_intervals_of_quantiles_cover_without_moments(nu, level):
    # 1000 independent points, nominal 95 %: 4 standard errors in 1000 repeats are 2.8 %.
    rng = np.random.default_rng(4)
    samples = rng.standard_t(nu, size=(1000, 1, 1000))
    _, low, high = quantile_interval(samples, level, 0.025)
    true = student.ppf(level, nu)
    assert abs(np.mean((low < true) & (true < high)) - 0.95) < 0.028


def test_intervals_of_quantiles_see_correlation_within_clusters():
    rng = np.random.default_rng(5)
    same = np.repeat(rng.normal(size=(200, 1, 400)), 8, axis=1)
    _, low, high = quantile_interval(same, 0.5, 0.025)
    assert abs(np.mean((low < 0) & (high > 0)) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(
    ("draw", "low", "high"),
    [
        # Locally x²/(1 − …) at the 99 % point 2.58 of |x|: about 8; infinite in the end.
        (lambda rng, n: rng.normal(size=(n, 50)), 6.5, 10.5),
        (lambda rng, n: rng.standard_t(1.5, size=(n, 50)), 1.4, 1.8),
        (lambda rng, n: rng.standard_t(3, size=(n, 50)), 2.5, 3.4),
    ],
)
def test_tail_index_tells_heavy_tails(draw, low, high):
    index = tail_index(draw(np.random.default_rng(6), 20_000))
    assert low < np.median(index) < high
    assert np.all(np.isinf(tail_index(draw(np.random.default_rng(6), 100))))
