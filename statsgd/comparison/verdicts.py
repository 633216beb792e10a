"""What a comparison says: effect sizes with intervals, and a verdict with a practical margin."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.provenance import provenance

#: What a verdict can say, `{margin}` filled in.
AGREES, DIFFERS, UNDECIDED = "agrees within {margin}", "differs by more than {margin}", "undecided"

#: The statistic that holds endpoints against the absence of a preference, and not against the law.
AGAINST_NONE = "flat preference against none"


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
    """One row a quantity: variable, statistic, direction, index, measured, predicted, effect,
    standard_error, low, high, verdict. The effect is measured/predicted for a variance, and the
    difference in units of the predicted standard deviation for a mean. What was asked for by
    `effects=` follows, each as its class says."""
    distances: pd.DataFrame
    """One row a variable: energy distance, its coefficient and p-value, points used."""
    settings: dict[str, Any]
    """The law, and how the comparison was made."""
    tests: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    """One row a variable and test asked for: statistic, p-value, Holm's adjusted p-value, what was
    compared with what."""

    @property
    def verdict(self) -> str:
        """The verdict on all quantities that the law speaks about together."""
        verdicts = set(self.table.loc[self.table["statistic"] != AGAINST_NONE, "verdict"])
        if self._word(DIFFERS) in verdicts:
            return self._word(DIFFERS)
        return self._word(UNDECIDED if self._word(UNDECIDED) in verdicts else AGREES)

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

    def to_datatree(self) -> xr.DataTree:
        """Groups `table`, `distances` and `tests`, with verdict and settings in the attributes."""
        groups = {
            "table": xr.Dataset.from_dataframe(self.table.rename_axis("quantity")),
            "distances": xr.Dataset.from_dataframe(self.distances.rename_axis("test")),
        }
        if len(self.tests):
            groups["tests"] = xr.Dataset.from_dataframe(self.tests.rename_axis("test_of"))
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = provenance(
            "comparison",
            subject=self.subject,
            verdict=self.verdict,
            margin=self.margin,
            confidence=self.confidence,
            **self.settings,
        )
        return tree

    def _word(self, template: str) -> str:
        return template.format(margin=f"{100 * self.margin:g} %")

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.verdict}"]
        lines.append(self.summary().to_string(index=False, float_format=lambda x: f"{x:.4g}"))
        lines.append(self.distances.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
        if len(self.tests):
            lines.append(self.tests.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
        return "\n".join(lines)


def verdicts_on(rows: pd.DataFrame, centre: Any, margin: float) -> list[str]:
    """The verdict on each row from its interval [low, high] and the `centre` of agreement."""
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    inside = (low >= centre - margin) & (high <= centre + margin)
    outside = (low > centre + margin) | (high < centre - margin)
    text = f"{100 * margin:g} %"
    agrees, differs = AGREES.format(margin=text), DIFFERS.format(margin=text)
    return np.where(inside, agrees, np.where(outside, differs, UNDECIDED)).tolist()
