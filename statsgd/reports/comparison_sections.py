"""What reports say of comparisons beyond moments: effects, tests, and where a gap comes from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.display import percent
from statsgd.reports import comparison_figures
from statsgd.reports.panels import Figure
from statsgd.reports.sections import Section, register


@register("gap")
def gap_section(name: str, node: xr.DataTree) -> Section:
    """The parts of the difference between endpoints and a law."""
    data = node.to_dataset()
    rows = data.to_dataframe().reset_index()
    rows["p_value"] = [
        "" if np.isnan(value) else f"{value:.3g}" for value in rows["p_value"].to_numpy()
    ]
    picture = Figure(
        comparison_figures.gap(data),
        "Total variation between neighbours on the way from endpoints to the law; lines are one "
        "standard error, or the numerical error of exact solutions.",
        f"Parts of the gap between endpoints and {node.attrs['law']}",
    )
    return Section(node.attrs["title"], node.attrs["finding"], (picture,), pd.DataFrame(rows))


@register("claim")
def claim_section(name: str, node: xr.DataTree) -> Section:
    """A claim, its verdict, the quantities it stands or falls with, and the charts below it."""
    table = node["table"].to_dataset().to_dataframe().reset_index(drop=True)
    blank = ("predicted_error", "clusters", "difference_percent", "low_percent", "high_percent")
    shown = table.drop(columns=[name for name in blank if not table[name].fillna(0).any()])
    finding = " ".join(filter(None, [_numbers(table, node.attrs["confidence"]), node.attrs["why"]]))
    title, verdict = node.attrs["statement"].rstrip("."), node.attrs["verdict"]
    if name == "first_form":
        # Told with its verdict, but not counted a second time.
        title, verdict = f"As it was first put: {title} – {verdict}", None
    return Section(title, finding, (), shown, verdict, _rests_on(node.attrs))


def _rests_on(said: Mapping[Any, Any]) -> str:
    """Whose claim it is, where it is made, and on how much the verdict rests."""
    place = f" ({said['place']})" if said["place"] else ""
    told = _OURS.get(said["origin"], "")
    if said["data_sets"] < 0:
        return f"{said['source']}{place}{told}"
    sets = ("a loss that is given", "one data set")
    rests = sets[said["data_sets"]] if said["data_sets"] < 2 else f"{said['data_sets']} data sets"
    return f"{said['source']}{place}{told}. It rests on {rests}; errors are over {said['unit']}"


_OURS = {
    "reading": "; our reading",
    "extension": "; our extension",
    "derived": "; our prediction",
}


@register("charts")
def charts_section(name: str, node: xr.DataTree) -> Section:
    """Charts and a `table` that belong together and judge nothing."""
    table = None
    if "table" in node.children:
        table = node["table"].to_dataset().to_dataframe().reset_index(drop=True)
    return Section(node.attrs["title"], node.attrs["finding"], table=table)


def _numbers(table: pd.DataFrame, confidence: float) -> str:
    """The quantities in words, as long as they are few."""
    told = []
    for _, row in table.head(_TOLD).iterrows():
        error, other = row["standard_error"], row["predicted_error"]
        measured = f"{row['measured']:.4g}" + (f" ± {error:.2g}" if error > 0 else "")
        claimed = f"{row['predicted']:.4g}" + (f" ± {other:.2g}" if other > 0 else "")
        word = {"=": "predicted", "<": "claimed to be below", ">": "claimed to be above"}
        told.append(f"{row['quantity']}: {measured} ({word[row['relation']]} {claimed})")
    rest = len(table) - len(told)
    text = "; ".join(told) + (f"; and {rest} more" if rest else "")
    off = [
        f"{row['quantity']} {percent(row['difference_percent'])} % "
        f"[{percent(row['low_percent'])}, {percent(row['high_percent'])}]"
        for _, row in table.head(_TOLD).iterrows()
        if row["relation"] == "=" and np.isfinite(row["difference_percent"])
    ]
    differences = f" Off the prediction by: {'; '.join(off)}." if off else ""
    return f"{text}. Intervals hold together at {100 * confidence:g} %.{differences}"


_TOLD = 6
