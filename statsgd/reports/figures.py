"""Panels of comparisons and draws: variance ratios, convergence of chains."""

from typing import Any

import numpy as np
import pandas as pd

from statsgd.reports.charts import Chart, Series
from statsgd.reports.panels import Panel, Theme, plain_log_ticks


def spread_ratios(rows: pd.DataFrame, margin: float) -> tuple[Panel, ...]:
    """Measured over predicted variance, or deviation, per mode: one panel for each and variable."""
    modes = rows[rows["direction"] == "mode"].groupby(["variable", "statistic"], sort=False)
    return tuple(
        _ratios(variable, str(statistic), data, margin) for (variable, statistic), data in modes
    )


def _ratios(variable: Any, statistic: str, data: pd.DataFrame, margin: float) -> Panel:
    effect = data["effect"].to_numpy()
    bars = np.abs(data[["low", "high"]].to_numpy().T - effect)
    bars = np.where(np.isfinite(bars), bars, 0.0)
    spread = statistic.removesuffix(" ratio")

    def draw(axis: Any, theme: Theme) -> None:
        from matplotlib.ticker import MaxNLocator

        axis.axhspan(1 - margin, 1 + margin, color=theme.agreement, alpha=0.2, lw=0)
        axis.axhline(1, color=theme.ink, lw=0.8)
        axis.errorbar(data["index"], effect, bars, fmt="o", ms=3, lw=1, color=theme.series[0])
        axis.set_title(readable(variable))
        axis.set_xlim(-0.5, data["index"].max() + 0.5)  # one mode is no axis of its own
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set(xlabel="mode, flattest first", ylabel=f"measured / predicted {spread}")
        if effect.max() / effect.min() > 3:
            axis.set_yscale("log")
            plain_log_ticks(axis.yaxis)

    return Panel(draw)


def convergence(rhat: np.ndarray, bulk: np.ndarray, tail: np.ndarray) -> tuple[Panel, ...]:
    """R-hat and effective sample sizes of every coordinate."""
    place = np.arange(len(rhat))
    sizes = (Series("bulk", place, bulk), Series("tail", place, tail))
    agreement = (Series("", place, rhat),)
    return (
        Chart("Agreement of chains", "coordinate", "R-hat", agreement, level=1.01).panel(),
        Chart("Effective sample size", "coordinate", "draws", sizes, level=400).panel(),
    )


def readable(variable: Any) -> str:
    """A variable name for a title."""
    known = {"params": "parameters θ", "momentum_buffer": "momentum buffer m"}
    return known.get(variable, str(variable))
