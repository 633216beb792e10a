"""Errata as figures: printed formulas are rejected, corrected ones agree with the truth."""

import json

import numpy as np
import pytest
import xarray as xr

import statsgd
from studies import atlas
from studies.atlas_families.family import Effort
from studies.atlas_families.table import atlas_table
from studies.errata import ERRATA, Curves, Erratum, page

#: Those whose truth is a closed form or a small enumeration.
CHEAP = (
    "uncentred_noise",
    "least_noise",
    "weight_decay_rate",
    "diverging_exponent",
    "end_of_positive_modes",
    "trace_bound",
    "hopping_rate",
    "isotropic_share",
)


def erratum(truth, error=None, **fields):
    """Printed 2x, corrected x."""
    words = dict.fromkeys(("source", "printed", "correction", "evidence", "title", "x", "y"), "w")

    def curves(effort):
        return Curves([1.0, 2.0, 4.0], truth, lambda x: 2 * x, lambda x: x, error)

    return Erratum(name="fake", curves=curves, **words | fields)


def test_every_erratum_says_what_is_printed_and_what_is_right():
    assert len(ERRATA) >= 25
    for name, entry in ERRATA.items():
        assert name == entry.name == entry.curves.__name__
        assert all(text.endswith(".") for text in (entry.printed, entry.correction, entry.evidence))
        assert "arXiv:" in entry.source


def test_agreement_is_counted_in_standard_errors_and_tolerance():
    shown = erratum([1.0, 2.0, 4.0]).show(Effort(1, 0))
    assert (shown.disagreement, shown.claim.verdict) == (0.0, "does not hold")
    # Off by 0.2 where 4 · 0.1 + 0.01 · 4 are allowed; on a logarithmic scale 4 · 0.1 + 0.01 · 1.2.
    sampled = erratum([1.2, 2.0, 4.0], [0.1, 0.1, 0.1]).show(Effort(1, 0))
    np.testing.assert_allclose(sampled.disagreement, 0.2 / 0.44)
    logarithmic = erratum([1.2, 2.0, 4.0], [0.1, 0.1, 0.1], log="y").show(Effort(1, 0))
    np.testing.assert_allclose(logarithmic.disagreement, 0.2 / 0.412)
    assert "standard error of the truth is up to 8.3 %" in logarithmic.claim.why


def test_a_printed_bound_and_a_printed_truth_may_hold():
    assert erratum([1.0, 2.0, 4.0], relation="<").show(Effort(1, 0)).claim.verdict == "holds"
    right = erratum([2.0, 4.0, 8.0]).show(Effort(1, 0))
    assert right.claim.verdict == "holds within 2 %"
    assert right.disagreement > 1


@pytest.fixture(scope="module")
def cheap():
    return {name: ERRATA[name].show(Effort(100, 0)) for name in CHEAP}


@pytest.mark.parametrize("name", CHEAP)
def test_cheap_errata_reject_what_is_printed(cheap, name):
    shown = cheap[name]
    assert shown.claim.verdict == "does not hold"
    assert shown.disagreement <= 1


def test_cheap_errata_have_the_known_numbers(cheap):
    def at(name, place, series):
        drawn = cheap[name].chart.series[series]
        return drawn.y[np.argmin(np.abs(drawn.x - place))]

    # κ = 0.1, σ = 1: T* = 0.08223 and T_c = 0.0980392, but the modes end at T_c/3.
    np.testing.assert_allclose(at("end_of_positive_modes", 10, 0), 0.08223 / 0.0980392, rtol=1e-4)
    np.testing.assert_allclose(at("end_of_positive_modes", 10, 2), 1 / 3, rtol=1e-3)
    # Orthogonal features of squared norms 1, 2, 3, 4: η* = min 1/(q(b + (1 − b)/4)/2).
    for size in (1, 3, 4, 6):
        known = 2 / (4 * (1 / size + (1 - 1 / size) / 4))
        np.testing.assert_allclose(at("trace_bound", size, 2), known, rtol=1e-5)
    # λ₁ at y = 5, Δ_S = 0.001; published passage times 86.082 and 8.153.
    np.testing.assert_allclose(at("hopping_rate", 0.001, 2), 0.07647, rtol=1e-3)
    rows = cheap["hopping_rate"].claim.quantities
    np.testing.assert_allclose(rows[2].predicted, 1 / 86.082 + 1 / 8.153, rtol=1e-4)
    # The exponent falls by b2 ln 10/(2 a3 T) = ln 10/0.6 for each decade of the lower limit.
    fall = at("diverging_exponent", 1e-7, 2) - at("diverging_exponent", 1e-8, 2)
    np.testing.assert_allclose(fall, np.log(10) / 0.6, rtol=1e-5)


@pytest.fixture
def single(monkeypatch):
    """A world with one erratum."""
    for name in set(ERRATA) - {"weight_decay_rate"}:
        monkeypatch.delitem(ERRATA, name)


def test_the_atlas_lists_errata_beside_its_laws(single, tmp_path):
    results = xr.DataTree.from_dict({"errata": page.run(Effort(100, 0), progress=False)})
    atlas.also(results, tmp_path)
    listed = json.loads((tmp_path / "atlas.json").read_text())
    found = listed["errata"]["weight_decay_rate"]
    assert found["verdict"] == "does not hold"
    assert len(found["numbers"]) == 5
    assert atlas_table(listed) == {}
    assert "errata/report.html" in (tmp_path / "laws.html").read_text()
    text = (tmp_path / "errata" / "report.html").read_text()
    assert "TC₀ + γ" in text
    assert "does not hold" in text


@pytest.mark.slow
def test_the_atlas_runs_them(single, tmp_path):
    config = atlas.Config(("Gibbs",), values=2, output=str(tmp_path / "out"), progress=False)
    results = atlas.run(config)
    assert list(results.children) == ["overview", "Gibbs", "errata"]
    assert "1 of 1 printed formulas that the theory corrects do not" in results.attrs["finding"]
    assert "Where laws hold" in statsgd.report(results, tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def everything():
    return page.run(Effort(1000, 0), progress=False)


@pytest.mark.slow
def test_every_printed_formula_is_rejected_and_every_corrected_one_is_right(everything):
    for name, part in everything.children.items():
        assert part.attrs["verdict"] == "does not hold", name
        assert part.attrs["disagreement"] <= 1, name


@pytest.mark.slow
def test_errata_have_the_known_numbers(everything):
    def numbers(name, column):
        return everything[f"{name}/table"].to_dataset()[column].values

    # The published, the rate and the Itô share of the flat valley at y = 5, Δ_S = 0.001.
    np.testing.assert_allclose(numbers("anti_ito_flux", "predicted")[0], 0.90211, rtol=1e-5)
    np.testing.assert_allclose(numbers("share_from_rates", "predicted")[0], 0.91349, rtol=1e-5)
    np.testing.assert_allclose(numbers("anti_ito_flux", "measured")[0], 0.93315, rtol=1e-3)
    # S = 4, ηa = ½: index 9.978384 against 12.
    np.testing.assert_allclose(numbers("tail_index", "measured")[1], 9.978384, rtol=1e-5)
    np.testing.assert_allclose(numbers("tail_index", "predicted")[1], 12.0)
    # Curvature noise at 0.3: 217.085 published, twice 54.1531 in truth.
    np.testing.assert_allclose(numbers("escape_prefactor", "predicted")[2], 217.085, rtol=1e-5)
    np.testing.assert_allclose(numbers("escape_prefactor", "measured")[2], 2 * 54.1531, rtol=3e-3)
    # Power law 6.2131 and 35.635 against 11.579 and 111.97, at c = 1.25 and 1.5.
    np.testing.assert_allclose(numbers("escape_power_law", "predicted")[1:], [6.2131, 35.635], 1e-4)
    error = numbers("escape_power_law", "standard_error")[1:]
    off = numbers("escape_power_law", "measured")[1:] - [11.579, 111.97]
    assert np.all(np.abs(off) < 4 * error)


@pytest.mark.slow
def test_the_page_of_errata_makes_claims_of_them(everything):
    told = page.page(everything)
    assert told.attrs["finding"].startswith(f"{len(ERRATA)} of {len(ERRATA)} printed formulas")
    assert all(part.attrs["kind"] == "claim" for part in told.children.values())
    # Those that the study holds are no claims of its own, which pages would list.
    assert not any("kind" in part.attrs for part in everything.children.values())
