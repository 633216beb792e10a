"""Figures of comparisons: effect sizes beyond moments, and the parts of a gap."""

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.figures import COLOURS, INK, new_figure, to_png


def effect_sizes(table: pd.DataFrame, margin: float) -> bytes:
    """Effects with intervals, one panel a statistic, and the band that counts as agreement."""
    statistics = list(table["statistic"].unique())
    heights = [int((table["statistic"] == name).sum()) for name in statistics]
    figure, axes = new_figure(
        1,
        0.7 * len(statistics) + 0.28 * sum(heights) + 0.3,
        len(statistics),
        gridspec_kw={"height_ratios": [number + 1 for number in heights]},
    )
    for axis, statistic in zip(axes[:, 0], statistics, strict=True):
        rows = table[table["statistic"] == statistic]
        centre = 1.0 if statistic.endswith("ratio") else 0.0
        effect = rows["effect"].to_numpy()
        bars = np.abs(rows[["low", "high"]].to_numpy().T - effect)
        place = np.arange(len(rows))
        axis.axvspan(centre - margin, centre + margin, color=COLOURS[2], alpha=0.2, lw=0)
        axis.axvline(centre, color=INK, lw=0.8)
        axis.errorbar(effect, place, xerr=bars, fmt="o", ms=4, lw=1.2, color=COLOURS[0])
        axis.set_yticks(place, [str(index) for index in rows["index"]])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(effect_name(statistic), fontsize=10, loc="left")
    return to_png(figure)


def effect_name(statistic: str) -> str:
    """What an axis of effects shows."""
    return {
        "total variation": "total variation between endpoints and law, by coordinate",
        "basin probability": "probability of a basin, endpoints minus law, by basin",
        "flat preference": "preference for flat minima, endpoints minus law",
        "flat preference against none": "preference for flat minima (0: none)",
    }.get(statistic, f"{statistic}, endpoints over law")


def gap(data: xr.Dataset) -> bytes:
    """A bar for each part of the gap, with its error and what chance alone would give."""
    parts = [str(part) for part in data["part"].values]
    figure, axes = new_figure(1, 0.42 * len(parts) + 1.1)
    axis, place = axes[0, 0], np.arange(len(parts))
    colours = [COLOURS[4] if part == "all together" else COLOURS[0] for part in parts]
    axis.barh(place, data["distance"], xerr=data["error"], color=colours, height=0.6, ecolor=INK)
    chance = data["by_chance_95"].values
    counted = chance > 0
    axis.plot(
        chance[counted], place[counted], "|", ms=18, mew=2, color=COLOURS[1],
        label="95 % of what chance alone gives",
    )  # fmt: skip
    labels = [f"{part}\n{data['between'].values[i]}" for i, part in enumerate(parts)]
    axis.set_yticks(place, labels, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("total variation")
    axis.legend(fontsize=8, frameon=False)
    return to_png(figure)
