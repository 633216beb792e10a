"""How often verdicts are wrong, law by law and size by size, and how often intervals cover."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

import statsgd
from statsgd.comparison.compare import REFERENCE_DRAWS
from statsgd.comparison.directions import along
from statsgd.comparison.location import location_rows
from statsgd.comparison.reference import references
from statsgd.comparison.rows import SHAPE, SPREAD
from statsgd.comparison.spread import TAIL_LEVEL, deviation_rows, variance_rows
from statsgd.comparison.tails import FOR_VARIANCE, tail_index
from statsgd.comparison.verdicts import Comparison
from statsgd.laws import Law
from studies.verdicts import laws
from studies.verdicts.laws import Case

#: Whose intervals are looked at one by one.
COVERED = ("location", "spread", "tails")
#: Repeats of an interval for one of a comparison, and the laws for which coverage is claimed.
_MORE = 10
DOMAIN = ("normal", "exponential", "Student, ν = 2.5", "Student, ν = 3", "rare well of 2 %",
          "ring", "half without noise", "correlated to 0.95")  # fmt: skip
#: Error on either side of an interval at 95 %.
_TAIL = 0.025
#: Dimension above which a tenth of the repeats is made.
_LARGE = 20


class Cell(NamedTuple):
    """A law, a number of endpoints and a dimension."""

    law: str
    case: Callable[[int], Case]
    endpoints: int
    dimension: int


def _cells(law: str, case: Callable[[int], Case], *sizes: tuple[int, int]) -> tuple[Cell, ...]:
    return tuple(Cell(law, case, n, d) for n, d in sizes)


#: Where verdicts are tried on laws that are right.
CELLS = (
    *_cells("normal", laws.normal, (20, 1), (20, 2), (200, 2), (2000, 2), (10_000, 2), (200, 20),
            (2000, 20), (200, 60), (200, 100), (2000, 100)),
    *_cells("exponential", laws.exponential, (20, 1), (20, 2), (200, 2), (2000, 2), (10_000, 2),
            (200, 20), (200, 60)),
    *_cells("Student, ν = 2.5", laws.student(2.5), (30, 2), (300, 2), (3000, 2), (10_000, 2)),
    *_cells("Student, ν = 3", laws.student(3.0), (30, 2), (300, 2), (3000, 2), (200, 20)),
    *_cells("Student, ν = 5", laws.student(5.0), (30, 2), (300, 2), (3000, 2)),
    *_cells("rare well of 2 %", laws.rare_well, (20, 2), (200, 2), (2000, 2), (10_000, 2)),
    *_cells("ring", laws.ring, (20, 2), (200, 2), (2000, 2)),
    *_cells("half without noise", laws.rank_deficient, (20, 4), (200, 4), (2000, 4)),
    *_cells("correlated to 0.95", laws.correlated, (20, 2), (200, 2), (2000, 2), (2000, 20)),
    *_cells("two deltas", laws.two_deltas, (20, 1), (200, 1), (2000, 1)),
    *_cells("chains, ρ = 0.9, 4 × 1000", laws.chains(0.9, 1000), (2000, 2)),
    *_cells("chains, ρ = 0.99, 4 × 1000", laws.chains(0.99, 1000), (2000, 2)),
    *_cells("chains, ρ = 0.99, 4 × 20 000", laws.chains(0.99, 20_000), (2000, 2)),
    *_cells("chains, ρ = 0.998, 4 × 1000", laws.chains(0.998, 1000), (2000, 2)),
    *_cells("chains, ρ = 0.998, 4 × 50 000", laws.chains(0.998, 50_000), (2000, 2)),
    *_cells("runs of ¼ relaxation time", laws.run(0.25), (400, 2)),
    *_cells("runs of 2 relaxation times", laws.run(2.0), (400, 2)),
    *_cells("runs of 8 relaxation times", laws.run(8.0), (400, 2)),
)  # fmt: skip

#: Where laws are wrong by exactly the margin of 10 %, which must not be said to agree.
WRONG = (
    *_cells("a variance, by 10 %", laws.wrong_variance, (20_000, 2)),
    *_cells("a mean, by 0.1 deviations", laws.wrong_mean, (20_000, 2)),
    *_cells("a correlation of 0.1", laws.wrong_correlation, (20_000, 2)),
    *_cells("a spread of Student, ν = 2.5, by 10 %", laws.wrong_student, (20_000, 2)),
    *_cells("wells, by 10 % of the weight", laws.wrong_wells, (20_000, 1)),
)


def tried(cells: Sequence[Cell], repeats: int, seed: int) -> pd.DataFrame:
    """One row a cell: how many comparisons differ, agree, are refused, and how intervals cover.

    `coverage` is the share of intervals at 95 %, each on its own, that hold the truth: of location,
    spread and tail ratio along every coordinate, as far as these have a verdict; with its standard
    error over repeats.
    """
    return pd.DataFrame([_row(cell, repeats, seed) for cell in cells])


def _row(cell: Cell, repeats: int, seed: int) -> dict[str, Any]:
    case = cell.case(cell.dimension)
    number = repeats if cell.dimension <= _LARGE else max(repeats // 10, 2)
    words = []
    for repeat in range(seed, seed + number):
        points, reference = case.draw(cell.endpoints, repeat), case.reference(repeat)
        words.append(outcome(statsgd.compare(points, reference, seed=repeat)))
    shares = pd.DataFrame(columns=COVERED, dtype=float)
    if isinstance(points, np.ndarray):
        # Intervals take little time, and their coverage many repeats.
        many = range(seed, seed + number * (_MORE if cell.law in DOMAIN else 1))
        pairs = ((case.draw(cell.endpoints, i), case.reference(i), i) for i in many)
        shares = pd.DataFrame([coverage(*pair) for pair in pairs])
    told = {"law": cell.law, "endpoints": cell.endpoints, "dimension": cell.dimension}
    counted = {word: words.count(word) for word in ("differs", "agrees", "refused")}
    errors = {f"{name}_error": shares[name].sem() for name in COVERED}
    return told | {"repeats": number} | counted | shares.mean().to_dict() | errors


def outcome(comparison: Comparison) -> str:
    """`"differs"`, `"agrees"`, `"undecided"`, or `"refused"` where a reason keeps it undecided."""
    word = comparison.verdict.split()[0].strip(",:")
    if word != "undecided":
        return word
    open_parts = [one for one in comparison.parts.values() if one.verdict == word]
    reasons = [comparison.doubt, *(one.reason for one in open_parts)]
    return "refused" if any(reasons) or "not stationary" in comparison.sentence else word


def coverage(points: Float[Any, "n d"], source: Any, seed: int) -> dict[str, float]:
    """Share of coordinates whose interval at 95 % holds the truth, NaN where none has a verdict."""
    stated = references(source, ("params",), seed, REFERENCE_DRAWS)["params"]
    law = source if isinstance(source, Law) else None
    seen = along("params", points[:, None], stated, "coordinate", np.eye(points.shape[1]), law)
    heavy = not stated.has_covariance or bool(
        np.min(tail_index(stated.independent.values), initial=np.inf) < FOR_VARIANCE
    )
    rows = [
        location_rows(seen, _TAIL, heavy),
        deviation_rows(seen, _TAIL, SPREAD, "", 0.5)
        if heavy
        else variance_rows(seen, _TAIL, heavy),
        deviation_rows(seen, _TAIL, SHAPE, "", TAIL_LEVEL),
    ]
    return dict(zip(COVERED, map(_share, rows), strict=True))


def _share(rows: pd.DataFrame) -> float:
    trusted = rows[rows["reason"] == ""]
    held = (trusted["low"] <= trusted["centre"]) & (trusted["high"] >= trusted["centre"])
    return float(held.mean()) if len(held) else np.nan
