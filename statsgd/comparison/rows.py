"""Rows of a comparison's table: an effect, its interval, and the part of the verdict it is of."""

from typing import Any

import numpy as np
import pandas as pd

from statsgd.comparison.directions import Along

#: Parts of a verdict on a law, in the order in which they are told.
LOCATION, SPREAD, SHAPE, WELLS = "location", "spread", "shape", "wells"


def along_rows(part: str, statistic: str, along: Along, **columns: Any) -> pd.DataFrame:
    """One row a direction; `columns` are those of `Comparison.table`, `centre` and `reason`."""
    where = {"variable": along.variable, "direction": along.direction, "index": along.index}
    return pd.DataFrame({"part": part, "statistic": statistic, **where, "reason": "", **columns})


def whole_row(part: str, statistic: str, **columns: Any) -> pd.DataFrame:
    """The row of an effect of all variables together."""
    where = {"variable": "joint", "direction": "joint", "index": [0]}
    return pd.DataFrame({"part": part, "statistic": statistic, **where, "reason": "", **columns})


def ratio_of(
    measured: tuple[Any, Any, Any], predicted: tuple[Any, Any, Any]
) -> tuple[Any, Any, Any]:
    """Ratio of two positive quantities with its interval, from both of theirs, on logarithms."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [
            [np.log(np.maximum(value, 0.0)) for value in interval]
            for interval in (measured, predicted)
        ]
        (value, low, high), (stated, lower, higher) = logs
        down = np.hypot(value - low, higher - stated)
        up = np.hypot(high - value, stated - lower)
        ratio = np.exp(value - stated)
        return ratio, ratio * np.exp(-down), ratio * np.exp(up)
