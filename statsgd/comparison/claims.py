"""Claims of the literature as judgements on measured quantities."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import pandas as pd
import xarray as xr

from statsgd.arguments import fraction, one_of
from statsgd.comparison.statistics import normal_quantile
from statsgd.provenance import provenance

#: What a quantity may be claimed to be, relative to a prediction.
RELATIONS = ("=", "<", ">")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A measured number and what a claim says of it.

    Raises `ValueError` for numbers that are not finite, a negative error, or an equality without
    a margin: no measurement equals a prediction exactly.
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

    def verdict(self, width: float) -> str:
        """`"holds"`, `"does not hold"` or `"undecided"`, by an interval of `width` errors."""
        difference = self.measured - self.predicted
        reach = width * math.hypot(self.standard_error, self.predicted_error)
        low, high = difference - reach, difference + reach
        if self.relation != "=":
            if self.relation == "<":
                low, high = -high, -low
            return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
        allowed = self.margin * (abs(self.predicted) or 1.0)
        if low >= -allowed and high <= allowed:
            return "holds"
        return "does not hold" if low > allowed or high < -allowed else "undecided"


@runtime_checkable
class Shown(Protocol):
    """What can be kept beside a claim: a chart or a map of `statsgd.reports`."""

    def to_datatree(self) -> xr.DataTree:
        """The chart as data."""
        ...


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the literature, and the quantities that it stands or falls with.

    It holds if each of its quantities does, by intervals that hold simultaneously at `confidence`
    (Bonferroni); it does not if one of them does not, and is undecided otherwise: an interval that
    is too wide decides nothing.
    """

    statement: str
    """One sentence that could be wrong."""
    source: str
    """Paper and arXiv identifier, or "derived"."""
    quantities: Sequence[Quantity]
    why: str = ""
    """What the evidence is, and where it does not hold, why."""
    confidence: float = 0.95

    def __post_init__(self) -> None:
        fraction("confidence", self.confidence)
        if not self.quantities:
            raise ValueError(f"a claim must have quantities, got none for {self.statement!r}")

    @property
    def width(self) -> float:
        """Half-width of the intervals, in standard errors."""
        return normal_quantile((1 - self.confidence) / (2 * len(self.quantities)))

    @property
    def verdict(self) -> str:
        """`"holds"`, `"holds within 5 %"`, `"does not hold"` or `"undecided"`."""
        verdicts = {quantity.verdict(self.width) for quantity in self.quantities}
        for word in ("does not hold", "undecided"):
            if word in verdicts:
                return word
        relative = [q.margin for q in self.quantities if q.relation == "=" and q.predicted]
        return f"holds within {100 * max(relative):g} %" if relative else "holds"

    def table(self) -> pd.DataFrame:
        """One row a quantity, with its verdict."""
        rows = []
        for quantity in self.quantities:
            row = dataclasses.asdict(quantity)
            row["quantity"] = row.pop("name")
            rows.append(row | {"verdict": quantity.verdict(self.width)})
        order = ["quantity", "measured", "standard_error", "relation", "predicted"]
        return pd.DataFrame(rows)[[*order, "predicted_error", "margin", "verdict"]]

    def to_datatree(self, *shown: Shown) -> xr.DataTree:
        """Group `table`, with statement and verdict in the attributes, and charts that show it."""
        table = xr.Dataset.from_dataframe(self.table().rename_axis("row"))
        groups: dict[str, xr.Dataset | xr.DataTree] = {"table": table}
        groups |= {f"chart_{index}": chart.to_datatree() for index, chart in enumerate(shown)}
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = provenance(
            "claim",
            statement=self.statement,
            source=self.source,
            why=self.why,
            verdict=self.verdict,
            confidence=self.confidence,
        )
        return tree
