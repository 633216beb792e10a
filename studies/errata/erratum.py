"""What an erratum is: a printed formula, the corrected one, and the truth that tells them apart.

To add one, write a function from an `Effort` to `Curves` and `register` it: its claim, its chart,
its section of the page and its entry in the table for machines follow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Series
from studies.atlas_families.family import Effort

type Formula = Callable[[float], Any]

_LINE = 41  # points of a line
_SIGMAS = 4.0


class Curves(NamedTuple):
    """The truth at a few places, and two formulas for it."""

    at: Any
    """Where the truth was computed, shape `(n,)`."""
    truth: Any
    """Its values there, shape `(n,)`."""
    printed: Formula
    """The formula as printed."""
    corrected: Formula
    """The correct law, from the library."""
    error: Any = None
    """One standard error of the truth, shape `(n,)`, where it is sampled."""
    remark: str = ""
    """What else the run shows."""


class Demonstration(NamedTuple):
    """An erratum after its run."""

    claim: Claim
    """What is printed, judged by the truth."""
    chart: Chart
    """Printed formula, corrected formula and truth, in this order."""
    disagreement: float
    """Largest distance of corrected formula and truth in units of what is allowed (four standard
    errors, and the tolerance): they agree up to 1."""


@dataclasses.dataclass(frozen=True)
class Erratum:
    """A place where a published formula and the truth disagree."""

    name: str
    source: str
    """Paper and arXiv identifier."""
    printed: str
    """What is printed, in one sentence."""
    correction: str
    """What is right, in one sentence."""
    evidence: str
    """Where the truth comes from, in one sentence."""
    title: str
    """Of the chart."""
    x: str
    """Label of what is varied."""
    y: str
    """Label of what is compared."""
    curves: Callable[[Effort], Curves]
    tolerance: float = 0.01
    """Relative error allowed to the corrected formula, beyond that of sampling."""
    margin: float = 0.02
    """Relative difference up to which the printed formula counts as right."""
    relation: str = "="
    """What the printed formula says of the truth: `"="`, or the bound `"<"` or `">"`."""
    log: str = ""
    """Which axes of the chart are logarithmic."""
    dense: bool = True
    """Whether the corrected formula is cheap enough to draw it between the places of the truth."""

    def show(self, effort: Effort) -> Demonstration:
        """The claim that the printed formula makes, and the chart that decides it."""
        curves = self.curves(effort)
        at, truth = (np.asarray(v, dtype=float) for v in (curves.at, curves.truth))
        error = np.zeros(len(at)) if curves.error is None else np.asarray(curves.error)
        printed, corrected = (_values(f, at) for f in (curves.printed, curves.corrected))
        scale = np.abs(truth) if "y" in self.log else np.full(len(at), np.max(np.abs(truth)))
        off = np.abs(corrected - truth)
        disagreement = float(np.max(off / (_SIGMAS * error + self.tolerance * scale)))
        why = (
            f"{self.evidence} {self.correction} Corrected formula and truth differ by at most "
            f"{max(100 * np.max(off / scale), 1e-4):.2g} %, printed formula and truth by up to "
            f"{100 * np.max(np.abs(printed - truth) / scale):.3g} %."
        )
        if np.any(error > 0):
            why += f" The standard error of the truth is up to {100 * np.max(error / scale):.2g} %."
        quantities = [
            Quantity(
                f"{self.y} at {self.x} = {place:.4g}",
                float(value),
                float(spread),
                float(claimed),
                self.relation,
                self.margin if self.relation == "=" else 0.0,
            )
            for place, value, spread, claimed in zip(at, truth, error, printed, strict=True)
        ]
        claim = Claim(
            self.printed,
            self.source,
            quantities,
            f"{why} {curves.remark}".strip(),
            origin="source",
            place="the formula as it is printed",
            data_sets=0,
            unit="runs" if np.any(error > 0) else "computed",
        )
        points = Series("truth", at, truth, error if np.any(error > 0) else None)
        return Demonstration(claim, self._chart(curves, points, corrected), disagreement)

    def _chart(self, curves: Curves, truth: Series, corrected: Any) -> Chart:
        between = np.geomspace if "x" in self.log else np.linspace
        line = between(np.min(truth.x), np.max(truth.x), _LINE)
        right = Series("corrected", truth.x, corrected, look="line")
        if self.dense:
            right = Series("corrected", line, _values(curves.corrected, line), look="line")
        printed = Series("printed", line, _values(curves.printed, line), look="line")
        return Chart(self.title, self.x, self.y, (printed, right, truth), self.log)


#: Every erratum by its name; `register` fills it.
ERRATA: dict[str, Erratum] = {}


def register(**description: Any) -> Callable:
    """Make the decorated function the `curves` of an erratum described by the other fields."""

    def add(curves: Callable[[Effort], Curves]) -> Callable[[Effort], Curves]:
        erratum = Erratum(name=curves.__name__, curves=curves, **description)
        ERRATA[erratum.name] = erratum
        return curves

    return add


def _values(formula: Formula, at: Any) -> np.ndarray:
    return np.array([float(formula(float(place))) for place in at])
