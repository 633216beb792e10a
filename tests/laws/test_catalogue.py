"""The catalogue lists every law, and says which speak about a setting and why others do not."""

import numpy as np
import pytest

from statsgd import SGD, noise, problems
from statsgd.laws import LAWS, applicable, catalogue
from statsgd.laws.atlas import dimensionless_numbers, expected_error


def test_every_law_is_listed_with_its_source():
    table = catalogue()
    assert list(table["law"]) == sorted(LAWS)
    assert (table[["setting", "exactness", "source"]] != "").all(axis=None)


@pytest.mark.slow
def test_applicable_tells_laws_that_speak_from_laws_that_refuse():
    inputs = np.random.default_rng(0).normal(size=(30, 2))
    problem = problems.linear_regression(inputs, inputs @ [1.0, 2.0] + 0.3)
    table = applicable(problem, SGD(0.1, noise.Minibatch(4))).set_index("law")
    assert table.loc["LinearRegressionGaussian", "applies"]
    assert table.loc["HeavyBallGaussian", "applies"]
    wild = applicable(problem, SGD(0.9, noise.Minibatch(1))).set_index("law")
    assert not wild.loc["LinearRegressionGaussian", "applies"]
    assert "batch_size must be above" in wild.loc["LinearRegressionGaussian", "reason"]
    bowl = problems.landscape(lambda x: x @ x, np.zeros(2))
    other = applicable(bowl, SGD(0.1, noise.Isotropic(1.0))).set_index("law")
    assert other.loc["HeavyBallGaussian", "applies"]
    assert "linear_regression problems" in other.loc["LinearRegressionGaussian", "reason"]


def test_expected_error_interpolates_the_atlas(monkeypatch):
    table = {
        "Gibbs": {
            "problem": "quadratic loss",
            "axes": {"ηh": [0.01, 0.1, 1.0], "β": [0.0, 0.9]},
            "total_variation": [[0.001, 0.001], [0.01, 0.004], [0.1, None]],
        }
    }
    monkeypatch.setattr("statsgd.laws.atlas._table", lambda: table)
    at = {"ηh": 0.1 * np.sqrt(10), "β": 0.0, "S": 4.0}
    found = expected_error("Gibbs", at)
    # Halfway between 0.01 and 0.1 on logarithmic axes.
    np.testing.assert_allclose(found.total_variation, 0.1 / np.sqrt(10), rtol=1e-9)
    assert str(found) == "about 3.2 % at ηh = 0.316, β = 0, on: quadratic loss"
    assert np.isnan(expected_error("Gibbs", {"ηh": 1.0, "β": 0.9}).total_variation)
    assert str(expected_error("Gibbs", {"ηh": 3.0, "β": 0.0})).startswith("off the atlas at")
    assert expected_error("Gibbs", {"β": 0.0}) is None
    assert expected_error("HeavyBallGaussian", at) is None


@pytest.mark.slow
def test_applicable_quotes_the_atlas_at_the_numbers_of_the_setting(monkeypatch):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 2)) * [2.0, 1.0]
    problem = problems.linear_regression(inputs, rng.normal(size=40))
    sgd = SGD(0.01, noise.Minibatch(8), 0.5, weight_decay=0.1)
    numbers = dimensionless_numbers(problem, sgd)
    top = np.linalg.eigvalsh(inputs.T @ inputs / 40)[-1] + 0.1
    assert numbers == {
        "β": 0.5, "ηh": pytest.approx(0.01 * top), "S": 8.0, "N/S": 5.0
    }  # fmt: skip
    monkeypatch.setattr(
        "statsgd.laws.atlas._table",
        lambda: {
            "PhaseSpaceGaussian": {
                "problem": "quadratic loss",
                "axes": {"ηh": [0.001, 1.0], "β": [0.0, 0.9]},
                "total_variation": [[0.02, 0.02], [0.02, 0.02]],
            }
        },
    )
    table = applicable(problem, sgd).set_index("law")
    assert table.loc["PhaseSpaceGaussian", "expected_error"].startswith("about 2 % at ηh = 0.0")
    assert (table["expected_error"] != "").sum() == 1
