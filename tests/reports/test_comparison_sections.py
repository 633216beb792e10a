"""What a report says and shows of effects, tests and gaps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from statsgd import compare, report
from statsgd.comparison import (
    BasinProbabilities,
    Claim,
    FlatPreference,
    Quantity,
    TotalVariation,
)
from statsgd.display import percent
from statsgd.laws import Gibbs
from statsgd.problems.landscapes import smooth_wells
from statsgd.reports import SECTIONS
from statsgd.reports.sections import sections


@pytest.fixture(scope="module")
def results():
    law = Gibbs(smooth_wells(), 0.02)
    points = law.draw(jax.random.key(1), (2000,))
    endpoints = xr.Dataset({"params": (("replica", "parameter"), np.asarray(points))})

    def label(x):
        return jnp.where(x[0] < 0.6585913, 0, 1)

    comparison = compare(
        xr.DataTree.from_dict({"endpoints": endpoints}),
        law,
        seed=0,
        effects=[
            TotalVariation(),
            BasinProbabilities(label, 2),
            FlatPreference(label, [0.0, np.log(9.0)]),
        ],
        tests=["energy", "kernel_stein_discrepancy"],
    )
    parts = ["Monte Carlo", "finite learning rate", "theory", "all together"]
    gap = xr.Dataset(
        {
            "distance": ("part", [0.03, 0.05, 0.01, 0.08]),
            "error": ("part", [0.005, 1e-4, 1e-4, 0.006]),
            "by_chance": ("part", [0.03, 0.0, 0.0, 0.03]),
            "by_chance_95": ("part", [0.04, 0.0, 0.0, 0.04]),
            "p_value": ("part", [0.4, np.nan, np.nan, np.nan]),
        },
        coords={"part": parts, "between": ("part", ["a → b", "b → c", "c → d", "a → d"])},
        attrs={"kind": "gap", "title": "The gap", "finding": "Steps matter.", "law": "Gibbs"},
    )
    return xr.DataTree.from_dict({"comparison": comparison.to_datatree(), "gap": gap})


def test_effects_and_tests_are_said_and_drawn(results):
    section = SECTIONS["comparison"]("comparison", results["comparison"])
    assert len(section.figures) == 2
    assert "Flat minima are preferred by" in section.finding
    assert "(law: 0.46" in section.finding  # log(0.733882/0.266118)/log 9 = 0.4617
    assert "Basin 0:" in section.finding
    assert "(law: 0.73" in section.finding
    assert "after Holm's adjustment" in section.finding
    assert [len(figure.panels) for figure in section.figures] == [1, 4]
    panels = [panel for figure in section.figures for panel in figure.panels]
    assert all(panel.png().startswith(b"\x89PNG") for panel in panels)
    assert all(figure.alt for figure in section.figures)


def test_gap_is_said_and_drawn(results, tmp_path):
    section = SECTIONS["gap"]("gap", results["gap"])
    assert section.finding == "Steps matter."
    assert section.table["part"][0] == "Monte Carlo"
    assert section.table["p_value"][1] == ""
    page = report(results, tmp_path / "report.html").read_text()
    assert "The gap" in page
    assert page.count("data:image/png") == 2 * 6  # six panels in two themes


def test_a_claim_says_whose_it_is_and_keeps_its_first_form():
    quantity = Quantity("slope", 1.02, 0.004, 1.0, "=", 0.1)
    first = Claim("Slopes are one however drawn.", "A paper", [Quantity("x", 2.0, 0.1, 1.0, "<")])
    claim = Claim(
        "Slopes are one.", "A paper", [quantity], origin="reading", place="abstract", data_sets=8,
        unit="data sets", first_form=first,
    )  # fmt: skip
    (_, now), (_, before) = sections(claim.to_datatree())
    assert (
        now.source == "A paper (abstract); our reading. It rests on 8 data sets; errors are "
        "over data sets"
    )
    # 1.96·0.4 % on either side of 2 %.
    assert "Off the prediction by: slope +2 % [+1.2, +2.8]." in now.finding
    assert [percent(value) for value in (1.234, -99.6, 1234.0)] == ["+1.2", "-100", "+1234"]
    assert now.verdict == "holds to within 2.8 %"
    assert before.title == ("As it was first put: Slopes are one however drawn – does not hold")
    assert before.verdict is None
