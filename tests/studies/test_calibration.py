"""The study of our own tests: it says what it measured, and would catch a test that lies."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from studies import calibration

CONFIG = calibration.Config(repeats=10_000)


def rates(*values):
    rows = [
        {
            "test": f"test_{i}",
            "rate": v,
            "standard_error": np.sqrt(v * (1 - v) / 1e4),
            "level": 0.05,
        }
        for i, v in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_test_that_rejects_too_often_fails_the_claim():
    # Standard error 0.0022 at 10 000 repeats; two intervals at 95 % have 2.24 of them.
    assert calibration.size(rates(0.05, 0.049), CONFIG).attrs["verdict"] == "holds within 20 %"
    assert calibration.size(rates(0.05, 0.07), CONFIG).attrs["verdict"] == "does not hold"
    assert calibration.size(rates(0.05, 0.058), CONFIG).attrs["verdict"] == "undecided"


@pytest.mark.slow
def test_quick_run_finds_tests_and_intervals_calibrated():
    config = dataclasses.replace(calibration.Config.quick(), progress=False)
    results = calibration.run(config)
    table = results["size/table"].to_dataset().to_dataframe()
    # 200 repeats at 5 %: standard error 1.54 points.
    assert (np.abs(table["measured"] - 0.05) < 4 * 0.0154).all()
    held = results["coverage/table"].to_dataset().to_dataframe()
    # 20 repeats at 95 %: standard error 4.9 points.
    assert (held["measured"] > 0.95 - 4 * 0.049).all()
    assert set(results["power"].children) == {"power", "chart_0", "chart_1"}
