"""Parts of a verdict: each one effect with an interval, a margin and a word."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

#: What a verdict can say, `{margin}` filled in.
AGREES, DIFFERS, UNDECIDED = "agrees within {margin}", "differs by more than {margin}", "undecided"

#: What is said of a quantity outside the domain in which its interval holds.
NO_VERDICT = "no verdict"

#: The statistic that holds endpoints against the absence of a preference, and not against the law.
AGAINST_NONE = "flat preference against none"

#: The least part of a margin by which a repeat is reckoned to fall short of it.
_SLACK = 0.25
#: What wider intervals are reckoned as: they follow no law of 1/√n yet.
_WIDEST = 2.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the result of `compare`, with the effect that decides it, the farthest off."""

    name: str
    verdict: str
    effect: float
    low: float
    high: float
    centre: float
    """The effect of perfect agreement."""
    margin: float
    """How far from `centre` counts as agreement."""
    statistic: str
    """What the effect is, and of what."""
    reason: str = ""
    """Why the part is as it is, where its interval does not say so."""
    more: int | None = None
    """About how many more endpoints would decide it, where that would."""

    @property
    def excess(self) -> float:
        """How far the interval reaches beyond the margin, in margins; negative within."""
        beyond = max(self.high - self.centre, self.centre - self.low) / self.margin - 1
        return float(np.nan_to_num(beyond, nan=np.inf, posinf=np.inf))

    def __str__(self) -> str:
        interval = f"{self.statistic} {self.effect:.4g} [{self.low:.4g}, {self.high:.4g}]"
        told = f"{self.name}: {self.verdict} ({interval})"
        if self.reason:
            told += f"; {self.reason}"
        if self.more is not None:
            told += f"; about {self.more} more endpoints would decide"
        return told


def worded(template: str, margin: float) -> str:
    """A verdict with its margin in per cent."""
    return template.format(margin=f"{100 * margin:g} %")


def verdicts_on(rows: pd.DataFrame, centre: Any, margin: float) -> list[str]:
    """The verdict on each row from its interval [low, high] and the `centre` of agreement."""
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    inside = (low >= centre - margin) & (high <= centre + margin)
    outside = (low > centre + margin) | (high < centre - margin)
    agrees, differs = worded(AGREES, margin), worded(DIFFERS, margin)
    return np.where(inside, agrees, np.where(outside, differs, UNDECIDED)).tolist()


def judged_parts(table: pd.DataFrame, margin: float, endpoints: int, doubt: str) -> dict[str, Part]:
    """The parts of a table by name; with a `doubt` about all of it nothing is decided."""
    counted = table[table["statistic"] != AGAINST_NONE]
    return {
        str(name): _part(str(name), rows, margin, endpoints, doubt)
        for name, rows in counted.groupby("part", sort=False)
    }


def _part(name: str, rows: pd.DataFrame, margin: float, endpoints: int, doubt: str) -> Part:
    judged = rows[rows["verdict"] != NO_VERDICT]
    shown = judged if len(judged) else rows
    differs, agrees = worded(DIFFERS, margin), worded(AGREES, margin)
    words = set(judged["verdict"])
    verdict, reason = UNDECIDED, ""
    # What differs by most is told where anything differs, else what is farthest from agreeing.
    beyond = np.maximum(shown["high"] - shown["centre"], shown["centre"] - shown["low"])
    if differs in words:
        verdict = differs
        beyond = np.maximum(shown["low"] - shown["centre"], shown["centre"] - shown["high"])
    elif words == {agrees} and len(judged) == len(rows):
        verdict = agrees
    elif len(judged) < len(rows):
        # Quantities without a verdict leave the part open, unless quantiles stand in for them.
        reasons = [text for text in rows["reason"].unique() if text and REPLACED not in text]
        reason = reasons[0] if reasons else ""
        if not reasons and words == {agrees}:
            verdict = agrees
    row = shown.loc[beyond.fillna(np.inf).idxmax()]
    more = None
    if verdict == UNDECIDED:
        more = _more(judged, margin, endpoints)
    if doubt:
        verdict, reason, more = UNDECIDED, doubt, None
    effect, low, high, centre = (float(row[key]) for key in ("effect", "low", "high", "centre"))
    return Part(name, verdict, effect, low, high, centre, margin, _named(row), reason, more)


#: In the reason of quantities in whose place others of the same part are judged.
REPLACED = "quantiles are compared in their place"


def _named(row: pd.Series) -> str:
    if row["variable"] == "joint":
        return str(row["statistic"])
    return f"{row['statistic']} of {row['variable']}, {row['direction']} {row['index']}"


def _more(rows: pd.DataFrame, margin: float, endpoints: int) -> int | None:
    """How many more endpoints would decide all rows, if effects stay and errors fall like 1/√n."""
    width = np.minimum((rows["high"] - rows["low"]).to_numpy() / 2, _WIDEST)
    off = np.abs(rows["effect"] - rows["centre"]).to_numpy()
    open_rows = (rows["verdict"] == UNDECIDED).to_numpy()
    if not open_rows.any():
        return None
    away = np.maximum(np.abs(margin - off), _SLACK * margin)
    factor = float(np.max((width / away)[open_rows]) ** 2)
    return round_up(endpoints * max(factor - 1, 0.1))


def round_up(number: float) -> int:
    """`number` rounded up to two digits."""
    scale = 10 ** max(int(np.floor(np.log10(max(number, 1)))) - 1, 0)
    return int(np.ceil(number / scale) * scale)
