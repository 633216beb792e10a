"""Optimisers at rest: settings, what is computed without runs, and the quick study."""

import dataclasses

import numpy as np
import pytest

from studies import optimisers_at_rest
from studies.rest import linear


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 10}, "replicas must be at least 100, got 10"),
        ({"length": 2}, "length must be at least 10, got 2"),
        ({"margin": 0.0}, "margin must be positive"),
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


@pytest.mark.slow
def test_quick_study():
    config = optimisers_at_rest.Config.quick()
    results = optimisers_at_rest.run(dataclasses.replace(config, progress=False))
    verdicts = {name: part.attrs["verdict"] for name, part in results.children.items()}
    assert len(verdicts) == 5
    assert verdicts["averages"].startswith("holds")
    assert verdicts["momentum as a rate"] == "does not hold"
