"""Charts and maps kept as data, drawn in both themes."""

import io

import matplotlib.image
import numpy as np
import pytest
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.reports import DARK, LIGHT, Chart, Map, Panel, Series, sections
from statsgd.reports.charts import charts_of
from statsgd.reports.panels import together

X = np.arange(1.0, 6.0)


def tree():
    claim = Claim(
        "Variance grows.", "derived", [Quantity("slope", 1.0, 0.01, 1.0, "=", 0.1)], "It was seen."
    )
    chart = Chart(
        "Variance grows with the learning rate",
        "learning rate",
        "variance",
        (Series("SGD", X, X**2, 0.1 * X), Series("law", X, X**2, look="line", group="SGD")),
        "xy",
        level=1.0,
    )
    area = Map("Error of the law", "S", "η", [1, 2], [0.1, 0.2], [[0.0, 0.1], [0.2, np.nan]],
               unit="total variation", contour=0.15, centre=0.1)  # fmt: skip
    return xr.DataTree.from_dict({"growth": claim.to_datatree(chart, area)})


def pixels(panel: Panel, theme):
    return matplotlib.image.imread(io.BytesIO(panel.png(theme)), format="png")[..., :3]


def test_a_claim_brings_its_charts():
    ((where, section),) = sections(tree())
    assert where == "/growth"
    assert section.title == "Variance grows"
    assert section.verdict == "holds within 10 %"
    assert section.finding.startswith("slope: 1 ± 0.01 (predicted 1).")
    assert section.finding.endswith("It was seen.")
    (figure,) = section.figures
    assert len(figure.panels) == 2
    assert figure.alt == "Variance grows with the learning rate. Error of the law"
    assert "one standard error" in figure.caption


def test_both_themes_are_drawn_and_differ():
    figure = charts_of(tree()["growth"])
    for panel in figure.panels:
        light, dark = pixels(panel, LIGHT), pixels(panel, DARK)
        assert light.shape == dark.shape
        assert light.shape[1] == 690  # 4.6 inches of 150 dots
        np.testing.assert_allclose(light[0, 0], 1.0)
        assert dark[0, 0].max() < 0.15
        # Both have ink: text and lines of the opposite lightness.
        assert light.min() < 0.4
        assert dark.max() > 0.8


def test_charts_survive_a_round_trip_through_data():
    chart = tree()["growth/chart_0"].to_dataset()
    assert chart.sizes["point"] == 10
    np.testing.assert_array_equal(chart["y"].values[:5], X**2)
    assert chart["error"].notnull().sum() == 5
    panel = Map("Words", "x", "y", [1], [2], [[3.0]], words=[["holds"]]).to_datatree()
    assert panel["words"].values.tolist() == [["holds"]]


@pytest.mark.parametrize(("look", "x"), [("points", np.linspace(0, 1, 30)), ("line", [0.0, 1.0])])
@pytest.mark.parametrize("everywhere", [True, False])
def test_legends_cover_no_data(look, x, everywhere):
    # Ten heights leave no room inside; one at the bottom does.
    heights = np.linspace(0, 1, 10) if everywhere else np.array([0.0])
    series = [Series(f"a series {y:.1f}", x, np.full(len(x), y), look=look) for y in heights]
    beyond = Series("", [0.5], [1.0])
    drawn = together([Chart("Title", "x", "y", (*series, beyond)).panel()])
    drawn.draw_without_rendering()
    (axis,) = drawn.axes
    legend, inside = axis.get_legend().get_window_extent(), axis.get_window_extent()
    assert legend.overlaps(inside) is not everywhere
    # Nothing is cut off at the edge of the figure.
    assert drawn.bbox.y0 <= legend.y0
    assert legend.y1 <= drawn.bbox.y1


def test_bad_charts_are_named():
    with pytest.raises(ValueError, match="vectors of one length"):
        Series("SGD", X, X[:-1])
    with pytest.raises(ValueError, match="look must be one of"):
        Series("SGD", X, X, look="dots")
    with pytest.raises(ValueError, match="log must be one of"):
        Chart("t", "x", "y", (), "z")
    with pytest.raises(ValueError, match=r"values must have shape \(2, 1\)"):
        Map("t", "x", "y", [1], [1, 2], np.zeros((1, 2)))
