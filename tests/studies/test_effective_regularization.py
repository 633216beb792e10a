"""The study of valleys and weight variance: its formulas, refused settings, and its verdicts."""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from studies import effective_regularization
from studies.valleys import reading, ring, variance


@pytest.fixture
def on_ring():
    return ring.Ring(ring.RingSettings(0.05, 0.02, replicas=2, margin=0.05, seed=0))


@pytest.mark.slow
def test_prediction_on_the_ring_counts_step_and_second_order(on_ring):
    # Second order .44579 and finite step .46409 against the adiabatic I₁(1)/I₀(1) = .44639.
    expected = 0.44579 + 0.46409 - 0.44639
    assert on_ring.predicted(4.0) == pytest.approx(expected, abs=3e-5)


def test_noise_on_the_ring_has_the_anisotropy_asked_for():
    # D_y = ηC_yy/2 and κ = C_yy/C_xx.
    noise = ring.constant_noise(0.2, 4.0, 0.05)
    np.testing.assert_allclose(noise.matrix, np.diag([2.0, 8.0]))
    following = reading.FollowingCurvature(np.float64(8.0), np.float64(4.0))
    at_sharp = following(jnp.zeros(2))
    np.testing.assert_allclose(at_sharp, np.diag([2.0, 8.0]) * np.exp(0.5), rtol=1e-6)
    # h = h₀e^(a cos x), the same factor.
    assert float(ring.curvature(0.0)) == pytest.approx(2 * np.exp(0.5), rel=1e-6)


def test_squared_deviations_are_unbiased():
    # Three runs 0, 1, 5 about their mean 2: (4 + 1 + 9)/2 = 7.
    squares = variance._squares(np.array([0.0, 1.0, 5.0]).reshape(3, 1, 1))
    assert squares.mean() == pytest.approx(7.0)


def test_settings_out_of_range_are_refused(unchecked):
    quick = effective_regularization.Config.quick()
    cases: tuple[tuple[str, Any], ...] = (
        ("margin", 0.0),
        ("ring_replicas", 1),
        ("pair_rates", (0.06, 0.02)),
        ("pair_rates", (0.06,)),
        ("batch_size", 30),
        ("batch_size", 200),
        ("weight_decay", 0.0),
    )
    for field, value in cases:
        with pytest.raises(ValueError, match=field):
            effective_regularization.run(dataclasses.replace(quick, **{field: value}))


@pytest.fixture(scope="module")
def summary():
    quick = dataclasses.replace(effective_regularization.Config.quick(), progress=False)
    return json.loads(effective_regularization.run(quick).attrs["summary"])


def quantities(summary, part):
    return summary[part]["quantities"]


@pytest.mark.slow
def test_verdicts_are_those_that_theory_demands(summary):
    false = {
        "ring, anti-Itô",
        "ring, sharpest stretch",
        "valleys, published density",
        "variance, i.i.d. batches",
        "variance, constant noise",
    }
    assert false < set(summary)
    for name, part in summary.items():
        assert part["verdict"].startswith("does not hold" if name in false else "holds"), name


@pytest.mark.slow
def test_quick_study_has_the_numbers_of_theory(summary):
    for part in ("ring, flatness", "ring, effective loss", "valleys, chain", "valleys, freezing"):
        for name, row in quantities(summary, part).items():
            if row["relation"] == "=" and "Itô" not in name:
                # Orders beyond the second, and noise in y of the drift, are below .01.
                room = 4 * row["standard_error"] + 0.01
                assert abs(row["measured"] - row["predicted"]) < room, name
    identity = quantities(summary, "ring, Itô")["E[hy²(1 − ηh/2)/D_y]"]
    assert abs(identity["measured"] - 1) < 4 * identity["standard_error"]
    # The time falls as 1/D_y: a quarter of the noise takes four times as long.
    slow, _, fast = (row["measured"] for row in quantities(summary, "ring, speed").values())
    assert slow / fast == pytest.approx(4, rel=0.05)
    psi = [row["measured"] for row in quantities(summary, "variance, inverse relation").values()]
    # Reshuffled: below 2p, by curvature noise; i.i.d. batches: 2(p − 1) with p near one.
    assert all(1.2 < one < 2.6 for one in psi)
    (white,) = quantities(summary, "variance, i.i.d. batches").values()
    assert abs(white["measured"]) < 0.6
    # What was claimed first, of all ways to draw batches, is kept with its verdict.
    first = summary["variance, inverse relation"]["first_form"]
    assert (first["verdict"], first["origin"]) == ("does not hold", "extension")
    ends = quantities(summary, "variance, constant noise")
    assert ends["variance over law, epoch ends, flattest quarter"]["measured"] > 10
