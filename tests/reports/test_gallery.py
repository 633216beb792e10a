"""The page over several reports: what it says, where it leads, what it refuses."""

import json
from pathlib import Path

import pytest
import xarray as xr

from statsgd import report
from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Series, gallery


@pytest.fixture
def folder(tmp_path):
    parts = {}
    for name, measured in (("one", 2.0), ("two", 3.0)):
        claim = Claim(
            f"<{name}> is two.", "derived", [Quantity("x", measured, 0.01, 2.0, "=", 0.1)]
        )
        chart = Chart("What is seen", "t", "x", (Series("x", [0.0, 1.0], [1.0, 2.0]),))
        parts[name] = claim.to_datatree(chart)
    tree = xr.DataTree.from_dict(parts)
    tree.attrs = {"title": "Two & two", "question": "Is it?"}
    report(tree, tmp_path / "study" / "report.html", files=True)
    return tmp_path / "study"


def test_every_claim_is_listed_with_its_verdict_and_a_link_that_leads_there(folder, tmp_path):
    page = gallery({"study": folder}, tmp_path / "gallery.html").read_text()
    assert "Two &amp; two" in page
    assert "&lt;one&gt; is two" in page
    assert "1 hold or agree, 0 are undecided, and 1 do not" in page
    target = (folder / "report.html").read_text()
    for section in json.loads((folder / "summary.json").read_text())["sections"]:
        assert f'href="study/report.html#{section["name"]}"' in page
        assert f'id="{section["name"]}"' in target
        for figure in section["figures"]:
            assert (folder / figure).is_file()
            assert (folder / figure.replace(".png", "-dark.png")).is_file()
            assert f"study/{figure}" in page


def test_a_study_without_verdicts_shows_a_figure_and_no_empty_box(folder, tmp_path):
    summary = json.loads((folder / "summary.json").read_text())
    for section in summary["sections"]:
        section["verdict"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    page = gallery({"study": folder}, tmp_path / "gallery.html").read_text()
    assert 'class="verdicts"' not in page
    assert page.count("<img") == 1


def test_failures_are_shown(folder, tmp_path):
    page = gallery({"study": folder}, tmp_path / "g.html", failed={"other": "Error: <x>"})
    text = page.read_text()
    assert "This study failed." in text
    assert "Error: &lt;x&gt;" in text


def test_what_each_took_is_shown_where_it_is_known(folder, tmp_path):
    where = tmp_path / "gallery.html"
    assert "How long" not in gallery({"study": folder}, where).read_text()
    page = gallery({"study": folder}, where, seconds={"study": 61.4, "<other>": 2.0}).read_text()
    assert "<tr><td>study</td><td>61</td></tr>" in page
    assert "<tr><td>&lt;other&gt;</td><td>2</td></tr>" in page
    assert "<tr><td>all</td><td>63</td></tr>" in page


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"which has no summary\.json"):
        gallery({"study": tmp_path}, tmp_path / "g.html")
    with pytest.raises(ValueError, match="folders must name at least one report"):
        gallery({}, Path(tmp_path, "g.html"))
