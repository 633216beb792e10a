"""What a comparison says: parts with effects, intervals and a practical margin, and a sentence."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pandas as pd
import xarray as xr

from statsgd.comparison.parts import AGREES, DIFFERS, UNDECIDED, Part, judged_parts, worded
from statsgd.comparison.power import power
from statsgd.comparison.stationarity import NOT_STATIONARY
from statsgd.display import figure, html
from statsgd.provenance import provenance


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare`."""

    subject: str
    """What is compared with what."""
    margin: float
    """Relative difference that counts as agreement."""
    confidence: float
    """Level at which all intervals of `table` hold simultaneously."""
    table: pd.DataFrame
    """One row a quantity: part, variable, statistic, direction, index, measured, predicted, effect,
    standard_error, low, high, centre, verdict, reason. The effect is measured/predicted for a
    ratio, the difference in units of the law's deviation for a shift, and a distance else; what was
    asked for by `effects=` follows, each as its class says. Where `reason` says why an interval
    cannot be trusted there is no verdict."""
    measure_distances: Callable[[], pd.DataFrame]
    """What measures `distances`, which take most of the time and decide nothing."""
    settings: dict[str, Any]
    """The law, and how the comparison was made."""
    tests: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    """One row a variable and test asked for: statistic, p-value, Holm's adjusted p-value, what was
    compared with what."""
    endpoints: int = 0
    """Number of independent endpoints."""
    tail: float = 0.025
    """Probability of error on either side of an interval along a direction."""
    doubt: str = ""
    """Why nothing can be decided on these data, if so."""
    stationarity: Part | None = None
    """What endpoints have kept of their start, where that is known."""
    notes: tuple[str, ...] = ()
    """What must be said wherever the comparison is told, such as replicas that were left out."""

    @functools.cached_property
    def parts(self) -> Mapping[str, Part]:
        """The parts of the verdict that apply, by name.

        `"location"`, `"spread"` and `"shape"`; `"wells"` where the law has several;
        `"stationarity"` where time scales or observables are known; `"effects"` of one's own.
        """
        found = judged_parts(self.table, self.margin, self.endpoints, self.doubt)
        if self.stationarity is not None:
            found["stationarity"] = self.stationarity
        return MappingProxyType(found)

    @functools.cached_property
    def distances(self) -> pd.DataFrame:
        """One row a variable: energy distance, its coefficient and p-value, points used.

        Measured when they are first asked for.
        """
        return self.measure_distances()

    @property
    def verdict(self) -> str:
        """The verdict on all parts together: `"agrees within 10 %"`, `"differs by more …"` or
        `"undecided"`.

        Endpoints that are not stationary say nothing on a stationary law, whatever they differ in.
        """
        verdicts = {part.verdict for name, part in self.parts.items() if name != "stationarity"}
        if self.doubt or self._has_not_settled:
            return UNDECIDED
        if self._word(DIFFERS) in verdicts:
            return self._word(DIFFERS)
        settled = self.stationarity is None or self.stationarity.verdict == self._word(AGREES)
        agree = verdicts == {self._word(AGREES)} and settled
        return self._word(AGREES) if agree else UNDECIDED

    def verdict_on(self, *statistics: str) -> str:
        """The verdict on some of the quantities alone, in the words of `verdict`.

        Raises `ValueError` for statistics that the table does not have.
        """
        missing = set(statistics) - set(self.table["statistic"])
        if missing or not statistics:
            raise ValueError(f"statistics must be some of the table's, got {statistics!r}")
        words = set(self.table.loc[self.table["statistic"].isin(statistics), "verdict"])
        if self.doubt or self._has_not_settled:
            return UNDECIDED
        if self._word(DIFFERS) in words:
            return self._word(DIFFERS)
        return self._word(AGREES) if words == {self._word(AGREES)} else UNDECIDED

    @property
    def sentence(self) -> str:
        """The verdict in a sentence, which names what was looked at."""
        word = self.verdict
        if self.doubt:
            return f"{word}: {self.doubt}"
        if self._has_not_settled and self.stationarity is not None:
            return f"{word}, {self.stationarity.verdict}"
        names = [name for name, part in self.parts.items() if part.verdict == word]
        told = f"{word} in {_listed(names)}"
        others = [str(part) for part in self.parts.values() if part.verdict == UNDECIDED]
        if word == UNDECIDED and len(names) < len(self.parts):
            agreed = [name for name in self.parts if name not in names]
            told += f" ({_listed(agreed)} {'agrees' if len(agreed) == 1 else 'agree'})"
        elif others and word != UNDECIDED:
            told += f"; undecided in {_listed([one.split(':')[0] for one in others])}"
        return told

    @property
    def power(self) -> pd.DataFrame:
        """How likely this comparison sees errors of a stated size: error, statistic, power.

        The probability that an interval leaves out perfect agreement. Reckoned for normal laws
        with as many independent endpoints, along a direction in which the error lies.
        """
        return power(self.endpoints, self.tail)

    def effects(self, statistic: str, variable: str = "params") -> pd.DataFrame:
        """The rows of one statistic (`"variance ratio"`, `"mean shift"`, …) of one variable."""
        rows = (self.table["statistic"] == statistic) & (self.table["variable"] == variable)
        return self.table[rows].reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """One row per variable and statistic: range of the effects and how many agree."""
        rows = []
        for (variable, statistic, direction), group in self.table.groupby(
            ["variable", "statistic", "direction"], sort=False
        ):
            rows.append(
                {
                    "variable": variable,
                    "statistic": statistic,
                    "direction": direction,
                    "quantities": len(group),
                    "smallest": group["effect"].min(),
                    "largest": group["effect"].max(),
                    "median_standard_error": group["standard_error"].median(),
                    "agree": int((group["verdict"] == self._word(AGREES)).sum()),
                    "differ": int((group["verdict"] == self._word(DIFFERS)).sum()),
                    "undecided": int((group["verdict"] == UNDECIDED).sum()),
                }
            )
        return pd.DataFrame(rows)

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of `table`, one row a quantity."""
        return self.table.copy()

    def plot(self) -> Any:
        """The figures of this comparison's section of a report, as one Matplotlib `Figure`.

        `comparison.plot().savefig("comparison.png")` writes it.
        """
        return figure(self)

    def to_datatree(self) -> xr.DataTree:
        """Groups `parts`, `table`, `distances`, `power` and `tests`; verdict and settings as
        attributes."""
        parts = pd.DataFrame([dataclasses.asdict(part) for part in self.parts.values()])
        parts["more"] = parts["more"].astype(float)
        groups = {
            "parts": xr.Dataset.from_dataframe(parts.set_index("name").rename_axis("part")),
            "table": xr.Dataset.from_dataframe(self.table.rename_axis("quantity")),
            "distances": xr.Dataset.from_dataframe(self.distances.rename_axis("test")),
            "power": xr.Dataset.from_dataframe(self.power.rename_axis("against")),
        }
        if len(self.tests):
            groups["tests"] = xr.Dataset.from_dataframe(self.tests.rename_axis("test_of"))
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = provenance(
            "comparison",
            subject=self.subject,
            verdict=self.verdict,
            sentence=self.sentence,
            notes="; ".join(self.notes),
            margin=self.margin,
            confidence=self.confidence,
            **self.settings,
        )
        return tree

    @property
    def _has_not_settled(self) -> bool:
        known = self.stationarity
        return known is not None and known.verdict.startswith(NOT_STATIONARY)

    def _word(self, template: str) -> str:
        return worded(template, self.margin)

    def __repr__(self) -> str:
        said = [f"Comparison of {self.subject}: {self.sentence}", *self.notes]
        return "\n  ".join([*said, *map(str, self.parts.values())])

    def _repr_html_(self) -> str:
        return html(self)

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.sentence}", *self.notes]
        lines += [f"  {part}" for part in self.parts.values()]
        seen = ", ".join(f"{row.error} {row.power:.0%}" for row in self.power.itertuples())
        lines.append(f"  power against {seen}")
        lines.append(self.summary().to_string(index=False, float_format=lambda x: f"{x:.4g}"))
        lines.append(self.distances.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
        if len(self.tests):
            lines.append(self.tests.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
