"""What reports say of comparisons beyond moments: effects, tests, and where a gap comes from."""

import numpy as np
import pandas as pd
import xarray as xr

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
    exact = not table["predicted_error"].any()
    shown = table.drop(columns="predicted_error") if exact else table
    finding = " ".join(filter(None, [_numbers(table, node.attrs["confidence"]), node.attrs["why"]]))
    verdict, source = node.attrs["verdict"], node.attrs["source"]
    return Section(node.attrs["statement"].rstrip("."), finding, (), shown, verdict, source)


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
    return f"{text}. Intervals hold together at {100 * confidence:g} %."


_TOLD = 6
