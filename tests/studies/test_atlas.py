"""The atlas: known cells to their closed forms, resuming, and what programs read of it."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

import statsgd
from statsgd.comparison import Marginal
from statsgd.laws import LAWS, ImproperLawError
from studies import atlas, refresh_pages
from studies.atlas_families import FAMILIES
from studies.atlas_families.family import AtlasCell, Effort
from studies.atlas_families.table import atlas_table

EFFORT = Effort(4000, 0)


class Setting(dict):
    """Settings of a cell, as a sweep hands them on."""

    seed = 0


def normal_distance(ratio):
    """Total variation between N(0, 1) and N(0, r): they cross at x² = r log r/(r − 1)."""
    x = np.sqrt(ratio * np.log(ratio) / (ratio - 1))
    return 2 * abs(norm.cdf(x) - norm.cdf(x / np.sqrt(ratio)))


def test_families_are_of_known_laws_and_say_what_they_are():
    assert set(FAMILIES) <= set(LAWS)
    for family in FAMILIES.values():
        assert 1 <= len(family.axes) <= 2
        assert not any("/" in name for name in family.axes)  # a sweep stores cells by them
        settings = [values[0] for values in family.axes.values()]
        assert isinstance(bool(family.valid(*settings)), bool)
        assert all(np.all(np.diff(values) > 0) for values in family.axes.values())


@pytest.mark.parametrize(
    ("law", "step", "momentum"), [("Gibbs", 0.1, 0.0), ("PhaseSpaceGaussian", 1.0, 0.9)]
)
def test_continuous_laws_miss_the_factor_of_the_chain(law, step, momentum):
    # The chain's variance is the law's over 1 − ηh/(2(1 + β)).
    cell = atlas.evaluate(law, 0, Setting({"ηh": step, "β": momentum}))
    ratio = 1 - step / (2 * (1 + momentum))
    np.testing.assert_allclose(cell["variance"], ratio - 1, rtol=1e-5)
    np.testing.assert_allclose(cell["total_variation"], normal_distance(ratio), rtol=2e-3)
    assert cell["status"] == "compared"


@pytest.mark.slow
def test_student_law_is_exact_for_the_sde_and_off_by_the_step():
    cell = atlas.evaluate("FlooredLossScaledLaw", 0, Setting({"ηh": 0.1, "ησ": 0.3}))
    # At h = c₀ = 1 the second moment of the chain obeys m = (1 − η)²m + ηε(m/2 + 1), that of the
    # SDE the same without η².
    chain, law = 0.3 / (2 - 0.1 - 0.15), 0.3 / (2 - 0.15)
    np.testing.assert_allclose(cell["variance"], law / chain - 1, rtol=0.02)
    assert cell["sde_to_law"] < 1e-3 < cell["chain_to_sde"]


def test_a_law_that_does_not_exist_leaves_a_cell_that_says_so(monkeypatch):
    def refuse(effort, *numbers):
        raise ImproperLawError("ε must be below 2")

    family = dataclasses.replace(FAMILIES["Gibbs"], cell=refuse)
    monkeypatch.setitem(FAMILIES, "Gibbs", family)
    cell = atlas.evaluate("Gibbs", 0, Setting({"ηh": 0.1, "β": 0.0}))
    assert cell["status"] == "improper"
    assert np.isnan(cell["total_variation"])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The atlas of one law whose truth is exact, with its folder and settings."""
    folder = tmp_path_factory.mktemp("atlas")
    config = atlas.Config(
        laws=("Gibbs",), values=2, errata=False, output=str(folder / "out"), progress=False
    )
    results = atlas.run(config)
    atlas.also(results, folder / "out")
    return config, results, folder / "out"


def test_cells_that_are_done_are_not_run_again(done, monkeypatch):
    config, results, folder = done

    def refuse(effort, *numbers):
        raise AssertionError("a cell was run again")

    monkeypatch.setitem(FAMILIES, "Gibbs", dataclasses.replace(FAMILIES["Gibbs"], cell=refuse))
    again = atlas.run(config)
    xr.testing.assert_identical(again["Gibbs"].to_dataset(), results["Gibbs"].to_dataset())
    stored = xr.open_datatree(folder / "atlas.zarr", engine="zarr", consolidated=False)
    assert list(stored.children) == ["Gibbs"]


def test_pages_maps_and_tables_are_written(done):
    _, results, folder = done
    assert "Where laws hold" in statsgd.report(results, folder / "report.html").read_text()
    page = (folder / "laws" / "Gibbs" / "report.html").read_text()
    assert "within 5 % of the truth where it claims to hold" in page
    assert "Total variation between law and truth" in page
    assert "laws/Gibbs/report.html" in (folder / "laws.html").read_text()
    listed = json.loads((folder / "atlas.json").read_text())
    assert len(listed["Gibbs"]["cells"]) == 4
    table = atlas_table(listed)["Gibbs"]
    assert table["axes"] == {"ηh": [0.003, 1.6], "β": [0.0, 0.9]}
    # ηh = 1.6, β = 0: the variance of the chain is five times that of the law.
    np.testing.assert_allclose(table["value"][1][0], normal_distance(5.0), rtol=2e-3)
    assert table["resolved"] == [[True, True], [True, True]]
    assert np.max(table["standard_error"]) < 1e-3
    # 0.036 % at ηh = 0.003: the distance of variances 1 and 1 − 0.0015.
    assert results["overview/chart_0/words"].values.tolist()[0][0] == "holds\n.036"


def test_laws_computed_anew_take_their_place_among_the_others(done, tmp_path, monkeypatch):
    _, _, folder = done
    listed = json.loads((folder / "atlas.json").read_text())
    other = atlas_table(listed)["Gibbs"]
    stored, drawn = tmp_path / "atlas.json", tmp_path / "atlas.png"
    stored.write_text(json.dumps({"Gibbs": {}, "OutlierPowerLaw": other}))
    monkeypatch.setattr(refresh_pages, "ATLAS", stored)
    monkeypatch.setattr(refresh_pages, "PICTURES", tmp_path)
    refresh_pages.write_atlas([listed])
    assert json.loads(stored.read_text()) == {"OutlierPowerLaw": other, "Gibbs": other}
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_a_cell_without_a_difference_is_a_bound(monkeypatch):
    def cell(effort, *numbers):
        points = np.random.default_rng(effort.seed).normal(size=effort.replicas)
        return AtlasCell(Marginal.of_points(points), Marginal.of_normal(0.0, 1.0))

    monkeypatch.setitem(FAMILIES, "Gibbs", dataclasses.replace(FAMILIES["Gibbs"], cell=cell))
    found = atlas.evaluate("Gibbs", 20_000, Setting({"ηh": 0.1, "β": 0.0}))
    assert not found["resolved"]
    assert 0.011 < found["total_variation_upper"] < 0.025


def test_the_error_of_a_truth_on_a_grid_counts(monkeypatch):
    def cell(effort, *numbers):
        normal = Marginal.of_normal(0.0, 1.0)
        return AtlasCell(normal, Marginal.of_normal(0.0, 1.05), truth_error=0.02)

    monkeypatch.setitem(FAMILIES, "Gibbs", dataclasses.replace(FAMILIES["Gibbs"], cell=cell))
    found = atlas.evaluate("Gibbs", 0, Setting({"ηh": 0.1, "β": 0.0}))
    np.testing.assert_allclose(found["total_variation"], normal_distance(1.05), rtol=2e-3)
    assert not found["resolved"]
    np.testing.assert_allclose(
        found["total_variation_upper"], normal_distance(1.05) + 0.02, rtol=2e-3
    )


def test_unknown_laws_are_named():
    with pytest.raises(ValueError, match=r"laws must be among .*, got \['Boltzmann'\]"):
        atlas.run(atlas.Config(laws=("Boltzmann",)))
