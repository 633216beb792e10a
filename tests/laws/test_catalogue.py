"""The catalogue lists every law, and says which speak about a setting and why others do not."""

import inspect

import numpy as np
import optax
import pandas as pd
import pytest

from statsgd import SGD, OptaxDynamics, noise, problems
from statsgd.laws import LAWS, applicable, catalogue
from statsgd.laws.atlas import _table, cells_of, dimensionless_numbers, expected_error


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


BOWL = problems.landscape(lambda x: x @ x, np.zeros(2))


@pytest.mark.parametrize(
    ("transformation", "speaks"),
    [
        (optax.adam(0.01), {"AdaptiveGaussian"}),
        (optax.sgd(0.1, 0.9, nesterov=True), {"LinearOptimiserGaussian"}),
        (optax.lion(0.01), set()),
    ],
)
def test_applicable_says_which_laws_speak_about_an_optimiser(transformation, speaks):
    dynamics = OptaxDynamics(transformation, noise.Isotropic(1.0))
    table = applicable(BOWL, dynamics).set_index("law")
    assert set(table.index[table["applies"]]) == speaks
    assert (table["reason"] != "").all()
    if not table.loc["HeavyBallGaussian", "applies"]:
        reason = table.loc["HeavyBallGaussian", "reason"]
        assert "speaks about SGD, whose steps" in reason or "nesterov=False" in reason


@pytest.mark.slow
def test_an_optimiser_of_optax_that_is_sgd_is_taken_for_it():
    kicks = noise.Isotropic(1.0)
    tables = [
        applicable(BOWL, dynamics).set_index("law").drop("AdaptiveGaussian")
        for dynamics in (OptaxDynamics(optax.sgd(0.01, 0.5), kicks), SGD(0.01, kicks, 0.5))
    ]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", sorted(LAWS))
def test_every_from_sgd_refuses_an_optimiser_in_words(name):
    law = LAWS[name]
    if not hasattr(law, "from_sgd") or hasattr(law, "from_dynamics"):
        pytest.skip("the law has no from_sgd, or speaks about optimisers")
    needed = [
        parameter
        for parameter, kind in inspect.signature(law.from_sgd).parameters.items()
        if kind.default is kind.empty and kind.kind is not kind.VAR_KEYWORD
    ]
    others = dict.fromkeys(needed[2:], (-1.0, 1.0))
    dynamics = OptaxDynamics(optax.adam(0.1), noise.LossScaled(1.0))
    with pytest.raises(ValueError, match=r"sgd must be a statsgd\.SGD, of which this law speaks"):
        law.from_sgd(BOWL, dynamics, **others)


def listed(total_variation, **axes):
    """A law on the atlas, every distance with an error of a tenth; unresolved where a bound."""
    values = np.array(total_variation, dtype=float)
    resolved = values > 0
    # What is not resolved is given by its upper bound, with a minus.
    entry = {
        "value": np.where(resolved, values, np.where(np.isnan(values), np.nan, 0.0)),
        "standard_error": 0.1 * np.abs(values),
        "upper": np.where(resolved, 1.2 * values, -values),
    }
    stored = {name: table.tolist() for name, table in entry.items()}
    return {"problem": "quadratic loss", "axes": axes, "resolved": resolved.tolist()} | stored


@pytest.fixture
def known(monkeypatch):
    table = {
        "Gibbs": listed(
            [[0.001, -0.01], [0.01, 0.004], [0.1, np.nan]], ηh=[0.01, 0.1, 1.0], β=[0.0, 0.9]
        )
    }
    monkeypatch.setattr("statsgd.laws.atlas._table", lambda: table)


def test_expected_error_interpolates_the_atlas(known):
    at = {"ηh": 0.1 * np.sqrt(10), "β": 0.0, "S": 4.0}
    found = expected_error("Gibbs", at)
    # Halfway between 0.01 and 0.1 on logarithmic axes; two relative errors of 0.1 in quadrature.
    value = 0.1 / np.sqrt(10)
    np.testing.assert_allclose(
        found.total_variation, (value, 0.1 / np.sqrt(2) * value, 1.2 * value, True), rtol=1e-9
    )
    assert str(found) == (
        "3.2 ± 0.2 %, interpolated between cells at 1.0 ± 0.1 % and at 10 ± 1 %, "
        "at ηh = 0.316, β = 0, on: quadratic loss"
    )
    assert expected_error("Gibbs", {"β": 0.0}) is None
    assert expected_error("HeavyBallGaussian", at) is None


def test_expected_error_is_a_bound_where_a_cell_is_one(known):
    cell = expected_error("Gibbs", {"ηh": 0.01, "β": 0.9})
    assert str(cell) == "below 1 %, at ηh = 0.01, β = 0.9, on: quadratic loss"
    # Halfway in β between at most 0.0012 and at most 0.01.
    between = expected_error("Gibbs", {"ηh": 0.01, "β": 0.45}).total_variation
    assert not between.resolved
    np.testing.assert_allclose(between.upper, np.sqrt(0.0012 * 0.01), rtol=1e-9)
    assert between.value <= between.upper


@pytest.mark.parametrize("at", [(3.0, 0.0), (0.001, 0.0), (0.1, 0.95), (1.0, 0.9), (0.3, 0.5)])
def test_expected_error_extrapolates_nothing(known, at):
    found = expected_error("Gibbs", dict(zip(("ηh", "β"), at, strict=True)))
    assert np.isnan(found.total_variation.value)
    assert str(found).startswith("off the atlas at")


def test_every_cell_that_is_stored_has_its_error():
    for name, entry in _table().items():
        value, error, upper, resolved = np.moveaxis(cells_of(entry), -1, 0)
        known, resolved = np.isfinite(value), resolved == 1
        assert np.array_equal(known, np.isfinite(error)), name
        assert np.array_equal(known, np.isfinite(upper)), name
        assert np.all(error[known] >= 0), name
        assert np.all(upper[known] >= value[known]), name
        assert np.all(value[resolved] > 0), name


def test_a_known_distance_is_what_the_atlas_says():
    # 1.2 million runs of the regression give 0.0053 ± 0.0004.
    found = expected_error("LinearRegressionGaussian", {"ηh": 0.1, "S": 64.0}).total_variation
    if found.resolved:
        assert abs(found.value - 0.0053) < 4 * np.hypot(found.standard_error, 0.0004)
    assert 0.0053 < found.upper < 0.015


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
            "PhaseSpaceGaussian": listed(np.full((2, 2), 0.02), ηh=[0.001, 1.0], β=[0.0, 0.9])
        },
    )
    table = applicable(problem, sgd).set_index("law")
    assert table.loc["PhaseSpaceGaussian", "expected_error"].startswith("2.0 ± 0.1 %, inter")
    assert (table["expected_error"] != "").sum() == 1
