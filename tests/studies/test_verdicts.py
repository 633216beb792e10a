"""Verdicts where the truth is known: the table of the calibration study, and its main cells."""

import numpy as np
import pandas as pd
import pytest

import statsgd
from studies.verdicts import cells, claims, laws
from studies.verdicts.cells import CELLS, WRONG, Cell, coverage, outcome, tried


def table(**columns):
    row = {
        "law": "normal", "endpoints": 2000, "dimension": 2, "repeats": 1000, "differs": 0,
        "agrees": 0, "refused": 0, "location": 0.95, "spread": 0.95, "tails": 0.95,
        "location_error": 0.002, "spread_error": 0.002, "tails_error": 0.002,
    }  # fmt: skip
    return pd.DataFrame([row | columns])


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(20, "holds"), (55, "undecided"), (100, "does not")]
)
def test_more_than_one_wrong_verdict_in_twenty_fails_the_claims(wrong, verdict):
    # 1000 repeats at 5 %: a standard error of 0.7 points.
    assert claims.rarely_differs(table(differs=wrong)).verdict.startswith(verdict)
    assert claims.rarely_agrees(table(agrees=wrong)).verdict.startswith(verdict)


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.95, "holds"), (0.968, "undecided"), (0.92, "does not")]
)
def test_coverage_is_claimed_in_its_domain_alone(share, verdict):
    assert claims.covers(table(location=share), "location").verdict.startswith(verdict)
    few = table(endpoints=20, location=0.5)
    both = pd.concat([table(), few, table(law="two deltas", location=0.5)])
    assert claims.covers(both, "location").verdict.startswith("holds")


def test_a_reason_is_a_refusal():
    normal = laws.normal(2)
    assert outcome(statsgd.compare(normal.draw(10, 0), normal.reference(0), seed=0)) == "refused"
    assert outcome(statsgd.compare(normal.draw(500, 0), normal.reference(0), seed=0)) == "undecided"
    far = normal.draw(500, 0) + 3
    assert outcome(statsgd.compare(far, normal.reference(0), seed=0)) == "differs"


#: The smallest cell of every law that is drawn and not simulated.
SMALLEST = {one.law: one for one in reversed(CELLS) if not one.law.startswith(("runs", "chains"))}


@pytest.mark.parametrize("cell", SMALLEST.values(), ids=lambda cell: cell.law)
def test_cells_draw_what_they_say(cell):
    points = cell.case(cell.dimension).draw(cell.endpoints, 3)
    assert points.shape == (cell.endpoints, cell.dimension)
    assert not np.array_equal(points, cell.case(cell.dimension).draw(cell.endpoints, 4))


def test_laws_have_the_moments_they_are_named_for():
    number = 40_000
    # Four standard errors of a mean of so many: 2 % of a deviation.
    assert abs(np.mean(laws.rare_well(1).draw(number, 0)) - 0.12) < 0.02 * 1.31
    radius = np.hypot(*laws.ring(2).draw(number, 0).T)
    assert abs(radius.mean() - 1) < 0.002
    sides = laws.two_deltas(1).draw(number, 0)
    assert set(np.unique(sides)) == {-1.0, 1.0}
    line = laws.rank_deficient(4).draw(number, 0)
    assert np.linalg.matrix_rank(line) == 2
    wide = laws.student(2.5)(2).draw(number, 0)
    # Half of a Student law of 2.5 degrees lies within 0.7971 scales.
    middle = np.median(np.abs(wide), axis=0)
    np.testing.assert_allclose(middle[0] / middle[1], 1, atol=0.04)
    chain = laws.chains(0.9, 4000)(1).reference(0)["posterior"]["params"].values
    lagged = np.mean(chain[:, 1:] * chain[:, :-1])
    assert abs(lagged - 0.9) < 4 * np.sqrt(19 / 16_000)


@pytest.mark.slow
def test_intervals_of_the_study_cover():
    # 100 comparisons of two coordinates each: a standard error of 1.5 points.
    normal = laws.normal(2)
    found = pd.DataFrame(
        [coverage(normal.draw(200, i), normal.reference(i), i) for i in range(100)]
    )
    assert abs(found["location"].mean() - 0.95) < 4 * 0.0154
    assert abs(found["spread"].mean() - 0.95) < 4 * 0.0154


MAIN = [
    cell
    for cell in CELLS
    if cell.endpoints in (200, 300, 400, 2000) and cell.dimension <= 4 and "50 000" not in cell.law
]


@pytest.mark.slow
@pytest.mark.parametrize("cell", MAIN, ids=lambda cell: f"{cell.law}-{cell.endpoints}")
def test_right_laws_rarely_differ(cell, monkeypatch):
    monkeypatch.setattr(cells, "_MORE", 4)
    (row,) = tried([cell], 30, 500).to_dict("records")
    # At most 5 %: four standard errors above in 30 repeats are 20.9 %.
    assert row["differs"] <= 30 * 0.209
    if cell.law in cells.DOMAIN:
        assert abs(row["location"] - 0.95) < 0.02 + 4 * row["location_error"]
    if cell.law in ("chains, ρ = 0.998, 4 × 1000", "runs of ¼ relaxation time"):
        assert row["refused"] == 30


@pytest.mark.slow
@pytest.mark.parametrize("cell", WRONG, ids=lambda cell: cell.law)
def test_laws_off_by_the_margin_rarely_agree(cell: Cell):
    (row,) = tried([cell], 30, 500).to_dict("records")
    assert row["agrees"] <= 30 * 0.209
