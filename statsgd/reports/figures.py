"""Panels of Gaussian laws and of draws: variances by mode, marginals, ellipses, convergence."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.charts import Chart, Series
from statsgd.reports.panels import STYLES, Panel, Theme, plain_log_ticks

_POINTS = 1500  # of a cloud: more only make a blot


def variance_ratios(table: pd.DataFrame, margin: float) -> tuple[Panel, ...]:
    """Measured over predicted variance per mode, one panel a variable."""
    rows = table[(table["statistic"] == "variance ratio") & (table["direction"] == "mode")]
    return tuple(
        _ratios(variable, data, margin) for variable, data in rows.groupby("variable", sort=False)
    )


def _ratios(variable: Any, data: pd.DataFrame, margin: float) -> Panel:
    effect = data["effect"].to_numpy()
    bars = np.abs(data[["low", "high"]].to_numpy().T - effect)

    def draw(axis: Any, theme: Theme) -> None:
        axis.axhspan(1 - margin, 1 + margin, color=theme.agreement, alpha=0.2, lw=0)
        axis.axhline(1, color=theme.ink, lw=0.8)
        axis.errorbar(data["index"], effect, bars, fmt="o", ms=3, lw=1, color=theme.series[0])
        axis.set_title(readable(variable))
        axis.set(xlabel="mode, flattest first", ylabel="measured / predicted variance")
        if effect.max() / effect.min() > 3:
            axis.set_yscale("log")
            plain_log_ticks(axis.yaxis)

    return Panel(draw)


def mode_variances(moments: xr.Dataset) -> tuple[Panel, ...]:
    """Variance against curvature: measured points and a line per law."""
    curvature = moments["curvature"].values
    panels = []
    for variable in ("params", "momentum_buffer"):
        measured = moments[f"{variable}_measured"].values
        error = moments[f"{variable}_standard_error"].values
        lines = [
            Series(str(law), curvature, moments[f"{variable}_predicted"].sel(law=law), look="line")
            for law in moments["law"].values
        ]
        series = (*lines, Series("SGD", curvature, measured, error))
        title = f"Variance of the {readable(variable)}"
        axes = ("curvature (Hessian eigenvalue)", "stationary variance")
        panels.append(Chart(title, *axes, series, "xy").panel())
    return tuple(panels)


def marginals(moments: xr.Dataset, points: xr.Dataset) -> tuple[Panel, ...]:
    """Histogram of endpoints along each shown mode with each law's density."""
    return tuple(_marginal(moments, points, mode) for mode in points["shown"].values)


def _marginal(moments: xr.Dataset, points: xr.Dataset, mode: Any) -> Panel:
    variances = moments["params_predicted"].sel(mode=mode).values
    unit = np.sqrt(variances[0])
    values = points["params"].sel(shown=mode).values / unit
    grid = np.linspace(-4, 4, 201)

    def draw(axis: Any, theme: Theme) -> None:
        axis.hist(values, bins=np.linspace(-4, 4, 49), density=True, color=theme.quiet, label="SGD")
        for i, law in enumerate(moments["law"].values):
            sd = np.sqrt(variances[i]) / unit
            density = np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
            axis.plot(grid, density, color=theme.series[i], ls=STYLES[i], lw=1.4, label=str(law))
        axis.set_title(mode_title(moments, mode))
        axis.set(xlabel="position along the mode / predicted s.d.", ylabel="density")
        axis.legend(fontsize=7, loc="upper left")

    return Panel(draw)


def ellipses(moments: xr.Dataset, points: xr.Dataset) -> tuple[Panel, ...]:
    """Endpoints in the plane of position and buffer, with two-sigma ellipses."""
    return tuple(_ellipse(moments, points, mode) for mode in points["shown"].values)


def _ellipse(moments: xr.Dataset, points: xr.Dataset, mode: Any) -> Panel:
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = 2 * np.stack([np.cos(angle), np.sin(angle)])
    cloud = points.sel(shown=mode).isel(point=slice(_POINTS))

    def draw(axis: Any, theme: Theme) -> None:
        axis.plot(cloud["params"], cloud["momentum_buffer"], ".", ms=2, color=theme.quiet)
        for i, law in enumerate(moments["law"].values):
            here = moments.sel(law=law, mode=mode)
            x, m = float(here["params_predicted"]), float(here["momentum_buffer_predicted"])
            cross = float(here["cross_predicted"])
            root = np.linalg.cholesky(np.array([[x, cross], [cross, m]]))
            style = {"color": theme.series[i], "ls": STYLES[i]}
            axis.plot(*(root @ circle), lw=1.6, label=str(law), **style)
        axis.set_title(mode_title(moments, mode))
        axis.set(xlabel="position θ along the mode", ylabel="momentum buffer m")
        axis.legend(fontsize=7, loc="upper right")

    return Panel(draw, 3.6)


def factors(data: xr.Dataset) -> tuple[Panel, ...]:
    """Factor per mode for each assumption given up."""
    series = tuple(
        Series(str(step), data["curvature"].values, data["factor"].sel(step=step).values)
        for step in data["step"].values
    )
    axes = ("curvature (Hessian eigenvalue)", "factor on variance")
    return (Chart("What each assumption costs", *axes, series, "xy", level=1.0).panel(),)


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


def mode_title(moments: xr.Dataset, mode: Any) -> str:
    """Which mode, and how sharp it is."""
    return f"mode {int(mode)}, curvature {float(moments['curvature'].sel(mode=mode)):.3g}"
