"""Panels of comparisons: effect sizes beyond moments, and the parts of a gap."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.panels import Panel, Theme, add_legend


def effect_sizes(table: pd.DataFrame, margin: float) -> tuple[Panel, ...]:
    """Effects with intervals, one panel a statistic, and the band that counts as agreement."""
    return tuple(
        _effects(str(statistic), rows, margin)
        for statistic, rows in table.groupby("statistic", sort=False)
    )


def _effects(statistic: str, rows: pd.DataFrame, margin: float) -> Panel:
    centre = 1.0 if statistic.endswith("ratio") else 0.0
    effect = rows["effect"].to_numpy()
    bars = np.abs(rows[["low", "high"]].to_numpy().T - effect)
    place = np.arange(len(rows))

    def draw(axis: Any, theme: Theme) -> None:
        axis.axvspan(centre - margin, centre + margin, color=theme.agreement, alpha=0.2, lw=0)
        axis.axvline(centre, color=theme.ink, lw=0.8)
        axis.errorbar(effect, place, xerr=bars, fmt="o", ms=4, lw=1.2, color=theme.series[0])
        axis.set_yticks(place, [str(index) for index in rows["index"]])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(effect_name(statistic), loc="left", wrap=True)

    return Panel(draw, 1.0 + 0.3 * len(rows))


def effect_name(statistic: str) -> str:
    """What an axis of effects shows."""
    return {
        "total variation": "total variation between endpoints and law,\nby coordinate",
        "basin probability": "probability of a basin,\nendpoints minus law",
        "flat preference": "preference for flat minima,\nendpoints minus law",
        "flat preference against none": "preference for flat minima\n(0: none)",
    }.get(statistic, f"{statistic}, endpoints over law")


def gap(data: xr.Dataset) -> tuple[Panel, ...]:
    """A bar for each part of the gap, with its error and what chance alone would give."""
    parts = [str(part) for part in data["part"].values]
    place, chance = np.arange(len(parts)), data["by_chance_95"].values
    counted = chance > 0

    def draw(axis: Any, theme: Theme) -> None:
        colours = [theme.series[5 if part == "all together" else 0] for part in parts]
        axis.barh(
            place, data["distance"], xerr=data["error"], color=colours, height=0.6,
            ecolor=theme.ink,
        )  # fmt: skip
        axis.plot(
            chance[counted], place[counted], "|", ms=18, mew=2, color=theme.series[1],
            label="95 % of what chance alone gives",
        )  # fmt: skip
        labels = [f"{part}\n{data['between'].values[i]}" for i, part in enumerate(parts)]
        axis.set_yticks(place, labels, fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel("total variation")
        add_legend(axis)

    return (Panel(draw, 0.5 * len(parts) + 1.1),)
