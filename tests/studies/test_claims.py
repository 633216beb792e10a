"""Every claim of the studies says whose it is and what it rests on, and the pages show it."""

import ast
import json
from pathlib import Path

import pytest

from statsgd.comparison import Claim, Quantity
from statsgd.comparison.claims import ORIGINS
from statsgd.estimate import Estimate
from studies import findings
from studies.claims_page import claims, study_part
from studies.measured import claimed, difference, over_data_sets, ratio, unit
from studies.refresh_pages import calibration_table, refreshed
from studies.verdicts.claims import CELLS_TITLE

STUDIES = Path(findings.__file__).parent
RESTS = {"origin": "source", "place": "abstract", "data_sets": 8, "unit": "data sets"}


def calls():
    for path in sorted(STUDIES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Claim":
                yield pytest.param(node, id=f"{path.relative_to(STUDIES)}:{node.lineno}")


@pytest.mark.parametrize("call", list(calls()))
def test_claims_of_studies_say_what_they_rest_on(call):
    given = {keyword.arg for keyword in call.keywords}
    if None not in given:  # what is passed on by ** is seen when the study runs
        assert {"origin", "data_sets", "unit"} <= given
        origin = next(one.value for one in call.keywords if one.arg == "origin")
        if isinstance(origin, ast.Constant):
            assert origin.value in ORIGINS
            assert origin.value == "derived" or "place" in given


def claim(**options):
    quantity = Quantity("E|x|", 1.02, 0.004, 1.0, "=", 0.1)
    return Claim("Of |x|.", "A paper (2020)", [quantity], **{**RESTS, **options})


@pytest.mark.parametrize("name", list(RESTS))
def test_a_study_refuses_a_claim_without_them(name):
    part = claim(**{name: None if name == "data_sets" else ""}).to_datatree()
    with pytest.raises(ValueError, match=f"claim 'first' must say its {name}"):
        findings.findings("A title", "A question?", {"first": part})


def test_what_we_derived_has_no_place():
    ours = claim(origin="derived", place="").to_datatree()
    assert findings.findings("A title", "A question?", {"first": ours}).attrs["finding"]


def report_of(*parts):
    named = {str(i): one.to_datatree() for i, one in enumerate(parts)}
    found = findings.findings("A title", "A question?", named)
    return {"title": "A title", "numbers": json.loads(found.attrs["summary"])}


def test_pages_tell_the_literature_from_what_is_ours():
    first = claim(origin="extension")
    changed = Claim(
        "Of x", "A paper (2020)", [Quantity("x", 0.5, 0.1, 0.0, "<")], first_form=first, **RESTS
    )
    report = report_of(claim(), changed, claim(origin="derived", place=""))
    table = claims(report)
    assert table["whose"].tolist() == [
        "the source's", "the source's", "ours: extension", "ours: derived",
    ]  # fmt: skip
    row = table.iloc[0]
    # 2 % off, ± 1.96·0.4 %.
    assert row["verdict"] == "holds to within 2.8 %"
    assert row["measured (predicted)"] == r"E\|x\|: 1.02 ± 0.004 (1), off by +2 % (+1.2 to +2.8)"
    assert row["source"] == "A paper (2020) (abstract)"
    assert row["rests on"] == "8 data sets; data sets"
    assert table["measured (predicted)"][1] == "x: 0.5 ± 0.1 (&lt; 0)"
    assert table["claim"][2] == r"As it was first put: Of \|x\|"
    theirs, ours = study_part(report).split("**What is ours**: 1 of 1 hold.")
    assert "**What the literature says**: 1 of 2 hold." in theirs
    assert "does not hold" in theirs
    assert "As it was first put" in ours


def test_a_study_without_a_run_at_hand_keeps_its_part_of_the_page():
    page = "Before.\n<!-- claims -->\n<!-- /claims -->\nAfter.\n"
    first = refreshed(page, reports={"one": report_of(claim()), "without": {"numbers": {"x": 1}}})
    both = refreshed(first, reports={"another": report_of(claim(origin="derived", place=""))})
    # The other study comes first by its name.
    assert first.split("## one")[1] == both.split("## one")[1]
    assert "| [another](#another) | – | 1 of 1 hold |\n| [one](#one) | 1 of 1 hold | – |" in both
    assert "without" not in both
    assert refreshed(both) == both
    anew = refreshed(both, reports={"one": report_of(claim(), claim())})
    assert "| [one](#one) | 2 of 2 hold | – |" in anew
    assert anew.count("## one") == 1
    assert (anew.startswith("Before.\n"), anew.endswith("\nAfter.\n")) == (True, True)


def test_errors_over_data_sets_are_those_between_them():
    each = [Estimate(1.0, 0.01, 50), Estimate(2.0, 0.01, 50), Estimate(3.0, 0.01, 50)]
    found = over_data_sets(each)
    # Standard deviation 1 over √3.
    assert found.value == pytest.approx(2.0)
    assert found.standard_error == pytest.approx(3**-0.5)
    assert found.clusters == 3
    assert over_data_sets(each[:1]) is each[0]
    assert [unit(1), unit(3)] == ["runs", "data sets"]
    assert claimed("x", found, ">", 0.0).clusters == 3


def test_differences_and_ratios_of_independent_numbers():
    one, other = Estimate(3.0, 0.3, 10), Estimate(2.0, 0.4)
    assert difference(one, other) == pytest.approx((1.0, 0.5, 10))
    # Relative errors 0.1 and 0.2.
    assert ratio(one, other) == pytest.approx((1.5, 1.5 * 0.05**0.5, 10))


def test_calibration_is_shown_as_the_table_of_its_cells():
    row = {"law": "normal", "endpoints": 200, "differs (%)": 1.6667, "coverage, tails (%)": None}
    section = {"title": CELLS_TITLE, "finding": "60 comparisons.", "table": [row]}
    page = calibration_table({"sections": [{"title": "Another", "table": []}, section]})
    assert "60 comparisons." in page
    assert page.splitlines()[-1] == "| normal | 200 | 1.67 |  |"
