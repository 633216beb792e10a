"""Optimisers at rest: settings, what is computed without runs, and the quick study."""

import dataclasses

import numpy as np
import pytest

from studies import optimisers_at_rest
from studies.rest import linear, network


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 10}, "replicas must be at least 100, got 10"),
        ({"length": 2}, "length must be at least 10, got 2"),
        ({"margin": 0.0}, "margin must be positive"),
        ({"examples": 6000}, "examples must be at most 5000, got 6000"),
        ({"network_runs": 1}, "network_runs must be at least 2, got 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        optimisers_at_rest.Config(**settings)


def test_momentum_is_no_rate_in_steep_modes():
    # Heavy ball .51351351 at ηh = .1, SGD at rate 1 has 1/(2 − 1) there.
    claim = linear.momentum_as_a_rate(400, 0.15, 0, False)
    steep, flat = claim.quantities
    assert steep.predicted == pytest.approx(1.0)
    assert abs(steep.measured - 0.51351351) < 4 * steep.standard_error
    # ηc/(h(1 − β))·(1+β)/(2(1+β) − ηh) = 10·1.9/3.79 at h = .1.
    assert flat.predicted == pytest.approx(1 / (0.1 * 1.9))
    assert abs(flat.measured - 5.01319261) < 4 * flat.standard_error
    assert claim.verdict == "does not hold"


def test_nesterov_at_finite_batch():
    # Largest stable η at h = (2, 1, .5), S = 4: .30884210; the mean's 1.9/2.8.
    claim = linear.nesterov_at_finite_batch()
    assert claim.quantities[0].measured == pytest.approx(0.30884210 / (1.9 / 2.8), rel=1e-5)
    shares = [quantity.measured for quantity in claim.quantities]
    assert np.all(np.diff(shares) > 0)
    assert claim.verdict == "does not hold"


def test_length_of_averages():
    # R = 10 at h = .1: iterates, and the window 1/(1−γ).
    claim = linear.length_of_averages()
    printed = [1885, 896.00, 1905, 909.64, 1918, 915.86]
    found = [quantity.measured for quantity in claim.quantities]
    np.testing.assert_allclose(found, printed, rtol=1e-3)
    assert claim.verdict.startswith("holds")


def test_slope_of_variance_over_modes():
    # Variances 4 h^(−1/2): the slope is −1/2, with an error of some √(2/n) over the range of ln h.
    h, rng = np.array([0.1, 1.0, 10.0]), np.random.default_rng(0)
    away = 3.0 + 2 * h**-0.25 * rng.standard_normal((4000, 3))
    slope = network.slope_of_variance(h, away)
    assert abs(slope.value + 0.5) < 4 * slope.standard_error < 0.05
    wide = network.variance_of_modes(away / (2 * h**-0.25))
    assert abs(wide.value - 1) < 4 * wide.standard_error < 0.06


@pytest.mark.slow
def test_quick_study():
    config = optimisers_at_rest.Config.quick()
    results = optimisers_at_rest.run(dataclasses.replace(config, progress=False))
    verdicts = {name: part.attrs["verdict"] for name, part in results.children.items()}
    assert len(verdicts) == 10
    assert verdicts["averages"].startswith("holds")
    assert verdicts["momentum as a rate"] == "does not hold"
