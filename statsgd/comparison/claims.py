"""Claims of the literature as judgements on measured quantities."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import pandas as pd
import xarray as xr
from scipy.stats import norm

from statsgd.arguments import count, fraction, one_of
from statsgd.comparison.statistics import normal_quantile, student_quantile
from statsgd.provenance import provenance

#: What a quantity may be claimed to be, relative to a prediction.
RELATIONS = ("=", "<", ">")
#: Whose a claim is: what the source says; our reading of it; what we say beyond its setting; and
#: what we derived ourselves.
ORIGINS = ("source", "reading", "extension", "derived")
#: Columns of the difference in per cent, and of the ends of its interval.
_PERCENT = ("difference_percent", "low_percent", "high_percent")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A measured number and what a claim says of it.

    Raises `ValueError` for numbers that are not finite, a negative error, or an equality without
    a margin: no measurement equals a prediction exactly.

    >>> slope = Quantity("slope", measured=1.02, standard_error=0.01, predicted=1.0, margin=0.1)
    >>> slope.verdict(width=2.0)  # in standard errors
    'holds'
    >>> slope.verdict(width=20.0)
    'undecided'
    """

    name: str
    measured: float
    standard_error: float
    """Of `measured`; 0 for what is computed and not sampled."""
    predicted: float
    relation: str = "="
    """`"="`: equal within `margin`; `"<"`, `">"`: below or above the prediction."""
    margin: float = 0.0
    """Relative difference that counts as equality; absolute where the prediction is 0."""
    predicted_error: float = 0.0
    """Standard error of `predicted`."""
    clusters: int | None = None
    """Independent units behind the errors, as in `Estimate`: few widen the interval."""

    def __post_init__(self) -> None:
        one_of("relation", self.relation, RELATIONS)
        numbers = dataclasses.asdict(self)
        for field in ("measured", "standard_error", "predicted", "margin", "predicted_error"):
            if not math.isfinite(numbers[field]):
                raise ValueError(f"{field} of {self.name!r} must be finite, got {numbers[field]}")
        for field in ("standard_error", "margin", "predicted_error"):
            if numbers[field] < 0:
                raise ValueError(f"{field} of {self.name!r} must be >= 0, got {numbers[field]}")
        if self.relation == "=" and self.margin == 0:
            raise ValueError(f"margin of {self.name!r} must be positive for an equality, got 0")
        if self.clusters is not None:
            count(f"clusters of {self.name!r}", self.clusters, at_least=2)

    def interval(self, width: float) -> tuple[float, float]:
        """Interval of measured less predicted, of `width` standard errors if units are many.

        Of few it is Student's of the same confidence.
        """
        error = math.hypot(self.standard_error, self.predicted_error)
        if self.clusters is not None:
            width = student_quantile(float(norm.sf(width)), self.clusters)
        difference = self.measured - self.predicted
        return difference - width * error, difference + width * error

    def verdict(self, width: float) -> str:
        """`"holds"`, `"does not hold"` or `"undecided"`, by an interval of `width` errors."""
        low, high = self.interval(width)
        if self.relation != "=":
            if self.relation == "<":
                low, high = -high, -low
            return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
        allowed = self.margin * (abs(self.predicted) or 1.0)
        if low >= -allowed and high <= allowed:
            return "holds"
        return "does not hold" if low > allowed or high < -allowed else "undecided"

    def percent(self, width: float) -> tuple[float, float, float]:
        """Difference in per cent of the prediction, and the ends of its interval.

        NaN where zero is predicted.
        """
        if self.predicted == 0:
            return math.nan, math.nan, math.nan
        unit = abs(self.predicted) / 100
        low, high = self.interval(width)
        return (self.measured - self.predicted) / unit, low / unit, high / unit

    def is_resolved(self, width: float) -> bool:
        """Whether an interval leaves out the prediction; what is computed has none."""
        low, high = self.interval(width)
        return bool(low < high and (low > 0 or high < 0))


@runtime_checkable
class Shown(Protocol):
    """What can be kept beside a claim: a chart or a map of `statsgd.reports`."""

    def to_datatree(self) -> xr.DataTree:
        """The chart as data."""
        ...


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement, and the quantities that it stands or falls with.

    It holds if each of its quantities does, by intervals that hold simultaneously at `confidence`
    (Bonferroni); it does not if one of them does not, and is undecided otherwise: an interval that
    is too wide decides nothing.

    Whose claim it is, and what it rests on, is said with it: studies refuse claims that do not
    (`missing`).

    Raises `ValueError` without quantities, and for an unknown `origin`.

    >>> slope = Quantity("slope", measured=1.02, standard_error=0.01, predicted=1.0, margin=0.1)
    >>> claim = Claim("The slope is one.", "derived", [slope], origin="derived", unit="runs")
    >>> claim.verdict
    'holds to within 4 %'
    >>> claim.missing
    ('data_sets',)
    """

    statement: str
    """One sentence that could be wrong."""
    source: str
    """Paper and arXiv identifier, or "derived"."""
    quantities: Sequence[Quantity]
    why: str = ""
    """What the evidence is, and where it does not hold, why."""
    confidence: float = 0.95
    _: dataclasses.KW_ONLY
    origin: str = ""
    """One of `ORIGINS`: the source's own claim, or one of ours about it."""
    place: str = ""
    """Where in the source it is said, or what of the source is read or extended."""
    data_sets: int | None = None
    """Number of data sets that it rests on; 0 where a loss and its noise are given."""
    unit: str = ""
    """What the errors are over: `"runs"`, `"data sets"`, …, or `"computed"` without any."""
    first_form: "Claim | None" = None
    """The claim before it was changed after a run, with its own quantities and verdict."""

    def __post_init__(self) -> None:
        fraction("confidence", self.confidence)
        if not self.quantities:
            raise ValueError(f"a claim must have quantities, got none for {self.statement!r}")
        if self.origin:
            one_of("origin", self.origin, ORIGINS)
        if self.data_sets is not None:
            count("data_sets", self.data_sets, at_least=0)

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not said of it: of `origin`, `data_sets`, `unit`, and `place` in a source."""
        said = {"origin": self.origin, "unit": self.unit}
        if self.origin != "derived":
            said["place"] = self.place
        untold = [name for name, value in said.items() if not value]
        return (*untold, *(["data_sets"] if self.data_sets is None else []))

    @property
    def width(self) -> float:
        """Half-width of the intervals, in standard errors over many units."""
        return normal_quantile((1 - self.confidence) / (2 * len(self.quantities)))

    @property
    def verdict(self) -> str:
        """`"holds"`, `"holds within 5 %"`, `"holds to within 3.1 %"`, `"does not hold"` or
        `"undecided"`.

        *Within* the margin no difference is resolved; *to within* the stated bound there is one,
        smaller than the margin.
        """
        verdicts = {quantity.verdict(self.width) for quantity in self.quantities}
        for word in ("does not hold", "undecided"):
            if word in verdicts:
                return word
        relative = [q for q in self.quantities if q.relation == "=" and q.predicted]
        if not relative:
            return "holds"
        if any(q.is_resolved(self.width) for q in relative):
            ends = [abs(end) for q in relative for end in q.percent(self.width)[1:]]
            return f"holds to within {_rounded_up(max(ends)):g} %"
        return f"holds within {100 * max(q.margin for q in relative):.3g} %"

    def table(self) -> pd.DataFrame:
        """One row a quantity: its verdict, and the difference in per cent with its interval."""
        rows = []
        for quantity in self.quantities:
            row = dataclasses.asdict(quantity)
            row["quantity"] = row.pop("name")
            row["clusters"] = row["clusters"] or math.nan
            row |= dict(zip(_PERCENT, quantity.percent(self.width), strict=True))
            rows.append(row | {"verdict": quantity.verdict(self.width)})
        order = ["quantity", "measured", "standard_error", "relation", "predicted"]
        order += ["predicted_error", "clusters", "margin", *_PERCENT]
        return pd.DataFrame(rows)[[*order, "verdict"]]

    def to_datatree(self, *shown: Shown) -> xr.DataTree:
        """Group `table`, with statement and verdict in the attributes, and charts that show it.

        Group `first_form` where there is one.
        """
        table = xr.Dataset.from_dataframe(self.table().rename_axis("row"))
        groups: dict[str, xr.Dataset | xr.DataTree] = {"table": table}
        groups |= {f"chart_{index}": chart.to_datatree() for index, chart in enumerate(shown)}
        if self.first_form is not None:
            groups["first_form"] = self.first_form.to_datatree()
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = provenance(
            "claim",
            statement=self.statement,
            source=self.source,
            origin=self.origin,
            place=self.place,
            data_sets=-1 if self.data_sets is None else self.data_sets,
            unit=self.unit,
            missing=", ".join(self.missing),
            why=self.why,
            verdict=self.verdict,
            confidence=self.confidence,
        )
        return tree


def _rounded_up(number: float) -> float:
    """`number` rounded up to two digits: it is a bound."""
    scale = 10.0 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(round(number / scale, 9)) * scale
