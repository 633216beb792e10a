"""Sections inside a notebook: the same words and figures, escaped."""

import pytest
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Series, show


@pytest.fixture
def results():
    def part(statement, measured):
        quantity = Quantity("x", measured, 0.01, 2.0, "=", 0.1)
        chart = Chart("What is seen", "t", "x", (Series("x", [0.0, 1.0], [1.0, 2.0]),))
        return Claim(statement, "derived", [quantity]).to_datatree(chart)

    return xr.DataTree.from_dict({"one": part("<One> is two.", 2.0), "two": part("Two.", 3.0)})


def test_sections_are_displayed(results):
    shown = show(results)
    html = shown._repr_html_()
    assert html.count("data:image/png;base64") == 2
    assert "&lt;One&gt; is two" in html
    assert "holds within 10 %" in html
    assert "<table>" not in html
    assert "Two: does not hold" in repr(shown)
    assert "<table>" in show(results, "two", tables=True)._repr_html_()
    assert "is two" not in show(results, "two")._repr_html_()


def test_unknown_parts_are_named(results):
    with pytest.raises(ValueError, match=r"names must be among \['one', 'two'\], got \['three'\]"):
        show(results, "three")
    with pytest.raises(ValueError, match="at least one node of a known kind"):
        show(xr.DataTree())
