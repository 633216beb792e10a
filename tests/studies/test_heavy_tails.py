"""The study of heavy tails: its parts against what is known, its verdicts."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from statsgd.estimate import Estimate
from studies import heavy_tails
from studies.tails import exits, gradients, iterates


def test_a_power_has_its_slope():
    x = np.array([1.0, 2.0, 4.0])
    rows = [Estimate(3 * value**1.5, 0.01 * 3 * value**1.5) for value in x]
    # Relative errors of 1 %: that of the slope is 0.01/√(2 ln²2).
    found = exits.log_slope(x, rows)
    np.testing.assert_allclose(found.value, 1.5, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, 0.01 / (2**0.5 * np.log(2)), rtol=1e-12)


def test_fresh_regression_has_its_gradient():
    problem = iterates.fresh_regression(2)
    at = np.array([1.0, -2.0])
    np.testing.assert_allclose(problem.gradient(at), at)
    draws = jax.vmap(problem.draw_example)(jax.random.split(jax.random.key(0), 4000))
    assert draws[0].shape == (4000, 2)
    assert abs(float(np.var(draws[1])) - 1) < 4 * (2 / 4000) ** 0.5


@pytest.mark.slow
def test_noise_is_recorded_on_the_way():
    settings = gradients.GradientSettings(100, 3, 0.5, 4, (1, 20), 200, (2, 8), 0.1, 0)
    first, last = gradients.record(settings)
    assert (first.step, last.step) == (1, 20)
    assert first.examples.shape == (100, 16 * 3 + 3 + 30 + 10)
    np.testing.assert_allclose(first.examples.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(first.directions, axis=0), 1, rtol=1e-6)
    variance = (first.examples @ first.directions).var(axis=0)
    for size, rows in first.batches.items():
        # 200 draws of 16 directions, correlated: within a quarter of Σ₁/S on average.
        assert np.mean(rows.var(axis=0) / variance) == pytest.approx(1 / size, rel=0.25)


def test_settings_out_of_range_are_refused(unchecked):
    quick = heavy_tails.Config.quick()
    for field, value in (("margin", 0.0), ("training", (5, 2)), ("replicas", 10), ("draws", 3)):
        with pytest.raises(ValueError, match=field):
            heavy_tails.run(dataclasses.replace(quick, **{field: value}))


@pytest.mark.slow
def test_quick_study_finds_what_theory_says():
    tree = heavy_tails.run(dataclasses.replace(heavy_tails.Config.quick(), progress=False))
    summary = json.loads(tree.attrs["summary"])
    verdicts = {name: part["verdict"] for name, part in summary.items()}
    for part in ("published estimate", "normal noise"):
        found = next(iter(summary[f"gradients, {part}"]["quantities"].values()))
        assert found["measured"] < 2 - 4 * found["standard_error"]
    assert verdicts["gradients, block size"] == "does not hold"
    assert verdicts["gradients, batches"] == "does not hold"
    assert verdicts["iterates, step and batch"] == "does not hold"
    assert verdicts["iterates, trend"] == "holds"
    assert verdicts["iterates, stable estimator"] == "does not hold"
    assert verdicts["exits, recorded noise"] == "does not hold"
    for row in summary["gradients, central limit"]["quantities"].values():
        assert abs(row["measured"]) < 4 * row["standard_error"] + 0.02
    slope = summary["exits, width"]["quantities"]["slope of ln steps on ln width"]
    assert abs(slope["measured"] - 1.5) < 4 * slope["standard_error"] + 0.1
