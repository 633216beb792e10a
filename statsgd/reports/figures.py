"""Figures of reports, drawn off screen; each returns a PNG.

Matplotlib is imported when a figure is drawn, so that importing statsgd stays light.
"""

import io
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

#: Distinguishable also without colour vision (Okabe, Ito); the first is for measurements.
INK = "#222222"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--", ":", "-.", (0, (3, 1, 1, 1)))
WIDTH = 8.0


def new_figure(columns: int, height: float, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of report width with `rows × columns` axes, free of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes


def to_png(figure: Any) -> bytes:
    """The figure as PNG at a resolution that stays sharp on dense screens."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def variance_ratios(table: pd.DataFrame, margin: float) -> bytes:
    """Measured over predicted variance per mode, one panel a variable."""
    rows = table[(table["statistic"] == "variance ratio") & (table["direction"] == "mode")]
    variables = list(rows["variable"].unique())
    figure, axes = new_figure(len(variables), 2.8, sharex=True)
    for axis, variable in zip(axes[0], variables, strict=True):
        data = rows[rows["variable"] == variable]
        effect = data["effect"].to_numpy()
        bars = np.abs(data[["low", "high"]].to_numpy().T - effect)
        axis.axhspan(1 - margin, 1 + margin, color=COLOURS[2], alpha=0.2, lw=0)
        axis.axhline(1, color=INK, lw=0.8)
        axis.errorbar(data["index"], effect, bars, fmt="o", ms=3, lw=1, color=COLOURS[0])
        axis.set_title(readable(variable), fontsize=10)
        axis.set_xlabel("mode, flattest first")
        if effect.max() / effect.min() > 3:
            axis.set_yscale("log")
            plain_log_ticks(axis.yaxis)
    axes[0, 0].set_ylabel("measured / predicted variance")
    return to_png(figure)


def mode_variances(moments: xr.Dataset) -> bytes:
    """Variance against curvature: measured points and a line per law."""
    figure, axes = new_figure(2, 3.4)
    curvature = moments["curvature"].values
    for axis, variable in zip(axes[0], ("params", "momentum_buffer"), strict=True):
        for i, law in enumerate(moments["law"].values):
            predicted = moments[f"{variable}_predicted"].sel(law=law).values
            axis.plot(curvature, predicted, color=COLOURS[i], ls=STYLES[i], lw=1.4, label=str(law))
        axis.errorbar(
            curvature,
            moments[f"{variable}_measured"],
            moments[f"{variable}_standard_error"],
            fmt=".",
            ms=5,
            color=INK,
            label="SGD",
            zorder=5,
        )
        axis.set(xscale="log", yscale="log", title=readable(variable))
        axis.set_xlabel("curvature (Hessian eigenvalue)")
    axes[0, 0].set_ylabel("stationary variance")
    axes[0, 1].legend(fontsize=8, frameon=False)
    return to_png(figure)


def marginals(moments: xr.Dataset, points: xr.Dataset) -> bytes:
    """Histogram of endpoints along each shown mode with each law's density."""
    shown = points["shown"].values
    figure, axes = new_figure(len(shown), 3.0, sharey=True)
    grid = np.linspace(-4, 4, 201)
    for axis, mode in zip(axes[0], shown, strict=True):
        variances = moments["params_predicted"].sel(mode=mode).values
        unit = np.sqrt(variances[0])
        values = points["params"].sel(shown=mode).values / unit
        axis.hist(values, bins=np.linspace(-4, 4, 49), density=True, color="#bbbbbb", label="SGD")
        for i, law in enumerate(moments["law"].values):
            sd = np.sqrt(variances[i]) / unit
            density = np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
            axis.plot(grid, density, color=COLOURS[i], ls=STYLES[i], lw=1.4, label=str(law))
        axis.set_title(mode_title(moments, mode), fontsize=10)
        axis.set_xlabel("position along the mode / predicted s.d.")
    axes[0, 0].set_ylabel("density")
    axes[0, 0].legend(fontsize=7, frameon=False, loc="upper left")
    return to_png(figure)


def ellipses(moments: xr.Dataset, points: xr.Dataset) -> bytes:
    """Endpoints in the plane of position and buffer, with two-sigma ellipses."""
    shown = points["shown"].values
    figure, axes = new_figure(len(shown), 3.6)
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = 2 * np.stack([np.cos(angle), np.sin(angle)])
    for axis, mode in zip(axes[0], shown, strict=True):
        at = points.sel(shown=mode)
        axis.plot(at["params"][:1500], at["momentum_buffer"][:1500], ".", ms=2, color="#aaaaaa")
        for i, law in enumerate(moments["law"].values):
            here = moments.sel(law=law, mode=mode)
            x, m = float(here["params_predicted"]), float(here["momentum_buffer_predicted"])
            cross = float(here["cross_predicted"])
            root = np.linalg.cholesky(np.array([[x, cross], [cross, m]]))
            axis.plot(*(root @ circle), color=COLOURS[i], ls=STYLES[i], lw=1.6, label=str(law))
        axis.set_title(mode_title(moments, mode), fontsize=10)
        axis.set_xlabel("position θ along the mode")
    axes[0, 0].set_ylabel("momentum buffer m")
    axes[0, -1].legend(fontsize=7, frameon=False, loc="upper right")
    return to_png(figure)


def factors(data: xr.Dataset) -> bytes:
    """Factor per mode for each assumption given up."""
    figure, axes = new_figure(1, 3.0)
    axis = axes[0, 0]
    axis.axhline(1, color=INK, lw=0.8)
    for i, step in enumerate(data["step"].values):
        values = data["factor"].sel(step=step)
        axis.plot(data["curvature"], values, "o-", ms=3, lw=1, color=COLOURS[i], label=str(step))
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="curvature (Hessian eigenvalue)",
        ylabel="factor on variance",
    )
    plain_log_ticks(axis.yaxis)
    axis.legend(fontsize=8, frameon=False)
    return to_png(figure)


def convergence(rhat: np.ndarray, bulk: np.ndarray, tail: np.ndarray) -> bytes:
    """R-hat and effective sample sizes of every coordinate."""
    figure, axes = new_figure(2, 2.6)
    axes[0, 0].plot(rhat, ".", color=COLOURS[0])
    axes[0, 0].axhline(1.01, color=INK, lw=0.8, ls="--")
    axes[0, 0].set(xlabel="coordinate", ylabel="R-hat", title="agreement of chains")
    axes[0, 1].plot(bulk, ".", color=COLOURS[0], label="bulk")
    axes[0, 1].plot(tail, ".", color=COLOURS[1], label="tail")
    axes[0, 1].axhline(400, color=INK, lw=0.8, ls="--")
    axes[0, 1].set(
        xlabel="coordinate", ylabel="draws", title="effective sample size", ylim=(0, None)
    )
    axes[0, 1].legend(fontsize=8, frameon=False)
    return to_png(figure)


def readable(variable: str) -> str:
    """A variable name for a title."""
    return {"params": "parameters θ", "momentum_buffer": "momentum buffer m"}.get(
        variable, variable
    )


def mode_title(moments: xr.Dataset, mode: Any) -> str:
    """Which mode, and how sharp it is."""
    return f"mode {int(mode)}, curvature {float(moments['curvature'].sel(mode=mode)):.3g}"


def plain_log_ticks(axis: Any) -> None:
    """Ticks like 0.5, 1, 2 on a logarithmic axis of less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
