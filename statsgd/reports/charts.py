"""Charts as data: what a study shows, kept with its results and drawn by any report."""

import dataclasses
import json
from typing import Any

import numpy as np
import xarray as xr

from statsgd.arguments import one_of
from statsgd.reports.panels import (
    STYLES,
    Figure,
    Panel,
    Theme,
    add_legend,
    encodable,
    plain_log_ticks,
)

#: How a series is drawn: points with error bars, a line, a line with steps, or bars.
LOOKS = ("points", "line", "steps", "bars")


@dataclasses.dataclass(frozen=True)
class Series:
    """One series of a chart.

    >>> Series("measured", x=[1.0, 2.0], y=[0.9, 2.1], error=[0.1, 0.1]).look
    'points'
    """

    label: str
    """For the legend; empty for none."""
    x: Any
    """Shape `(n,)`."""
    y: Any
    """Shape `(n,)`."""
    error: Any = None
    """One standard error of `y`, shape `(n,)`, or None."""
    look: str = "points"
    """One of `LOOKS`: points for what is measured, a line for what is predicted."""
    group: str = ""
    """Series of one group share a colour, as a measurement does with its prediction."""

    def __post_init__(self) -> None:
        one_of("look", self.look, LOOKS)
        shapes = {np.shape(value) for value in (self.x, self.y)}
        shapes |= set() if self.error is None else {np.shape(self.error)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"x, y and error must be vectors of one length, got shapes {shapes}")


@dataclasses.dataclass(frozen=True)
class Chart:
    """Series against a common axis; raises `ValueError` for series of unequal lengths.

    >>> line = Series("predicted", x=[1.0, 2.0], y=[1.0, 2.0], look="line")
    >>> Chart("Width", "learning rate", "variance", (line,)).to_datatree().attrs["kind"]
    'chart'
    """

    title: str
    """What the chart shows."""
    x: str
    """Label of the horizontal axis, with its unit."""
    y: str
    """Label of the vertical axis, with its unit."""
    series: tuple[Series, ...]
    log: str = ""
    """Which axes are logarithmic: `""`, `"x"`, `"y"` or `"xy"`."""
    level: float | None = None
    """A value of y to draw a thin line at."""
    names: tuple[str, ...] = ()
    """What stands at x = 0, 1, 2, …, where the horizontal axis counts things."""

    def __post_init__(self) -> None:
        one_of("log", self.log, ("", "x", "y", "xy"))

    def to_datatree(self) -> xr.DataTree:
        """All points in one table, with the words in the attributes."""
        parts = [np.full(np.size(s.x), i) for i, s in enumerate(self.series)]
        columns = {
            "series": np.concatenate(parts),
            "x": np.concatenate([np.asarray(s.x, dtype=float) for s in self.series]),
            "y": np.concatenate([np.asarray(s.y, dtype=float) for s in self.series]),
            "error": np.concatenate([_errors(s) for s in self.series]),
        }
        data = xr.Dataset({name: ("point", values) for name, values in columns.items()})
        words = [{"label": s.label, "look": s.look, "group": s.group} for s in self.series]
        data.attrs = {
            "kind": "chart", "title": self.title, "x": self.x, "y": self.y, "log": self.log,
            "level": np.nan if self.level is None else float(self.level),
            "series": json.dumps(words), "names": json.dumps(list(self.names)),
        }  # fmt: skip
        return xr.DataTree(data)

    def panel(self) -> Panel:
        """The chart drawn."""
        return chart_panel(self.to_datatree().to_dataset())


@dataclasses.dataclass(frozen=True)
class Map:
    """A number over two axes, as a phase diagram; every cell is labelled where there are few.

    >>> error = Map("Error", "ηh", "β", columns=[0.1, 0.5], rows=[0.9], values=[[0.01, 0.2]])
    >>> error.to_datatree()["values"].shape
    (1, 2)
    """

    title: str
    x: str
    """Label of the horizontal axis."""
    y: str
    """Label of the vertical axis."""
    columns: Any
    """Values along the horizontal axis, shape `(n,)`."""
    rows: Any
    """Values along the vertical axis, shape `(m,)`."""
    values: Any
    """Shape `(m, n)`; NaN where there is none."""
    unit: str = ""
    """What the numbers are, for the colour bar."""
    contour: float | None = None
    """A value to draw a contour at."""
    centre: float | None = None
    """The value in the middle of a scale of two colours; None for a scale of one."""
    words: Any = None
    """Texts for the cells instead of their values, shape `(m, n)`."""

    def __post_init__(self) -> None:
        want, have = (np.size(self.rows), np.size(self.columns)), np.shape(self.values)
        if have != want:
            raise ValueError(f"values must have shape {want}, one a row and column, got {have}")

    def to_datatree(self) -> xr.DataTree:
        """The numbers, with the words in the attributes."""
        data = xr.Dataset(
            {"values": (("row", "column"), np.asarray(self.values, dtype=float))},
            coords={"row": np.asarray(self.rows), "column": np.asarray(self.columns)},
        )
        if self.words is not None:
            data["words"] = (("row", "column"), np.asarray(self.words, dtype=str))
        data.attrs = {
            "kind": "map", "title": self.title, "x": self.x, "y": self.y, "unit": self.unit,
            "contour": np.nan if self.contour is None else float(self.contour),
            "centre": np.nan if self.centre is None else float(self.centre),
        }  # fmt: skip
        return xr.DataTree(data)


def charts_of(node: xr.DataTree) -> Figure | None:
    """The charts and maps directly below `node` as one figure, if there are any."""
    drawn = {"chart": chart_panel, "map": map_panel}
    below = [child for child in node.children.values() if child.attrs.get("kind") in drawn]
    if not below:
        return None
    titles = ". ".join(str(child.attrs["title"]) for child in below)
    panels = tuple(drawn[child.attrs["kind"]](child.to_dataset()) for child in below)
    return Figure(panels, _reading(below), titles)


def chart_panel(data: xr.Dataset) -> Panel:
    """The panel of a `Chart` kept as data."""
    words = json.loads(data.attrs["series"])
    groups = list(dict.fromkeys(word["group"] or word["label"] for word in words))
    names = [encodable(name) for name in json.loads(data.attrs["names"])]

    def draw(axis: Any, theme: Theme) -> None:
        if np.isfinite(data.attrs["level"]):
            axis.axhline(data.attrs["level"], color=theme.ink, lw=0.8)
        for index, word in enumerate(words):
            of_series = data["series"].values == index
            x, y, error = (data[name].values[of_series] for name in ("x", "y", "error"))
            colour = groups.index(word["group"] or word["label"]) % len(theme.series)
            style = STYLES[index % len(STYLES)]
            _draw_series(axis, word, (x, y, error), theme.series[colour], style)
        for letter in data.attrs["log"]:
            getattr(axis, f"set_{letter}scale")("log")
            low, high = getattr(axis, f"get_{letter}lim")()
            if high < 50 * low:
                plain_log_ticks(getattr(axis, f"{letter}axis"))
        axis.set(title=data.attrs["title"], xlabel=data.attrs["x"], ylabel=data.attrs["y"])
        axis.title.set_wrap(True)
        if names:
            axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
        if any(word["label"] for word in words):
            add_legend(axis)

    return Panel(draw, 3.3)


def map_panel(data: xr.Dataset) -> Panel:
    """The panel of a `Map` kept as data."""
    values = data["values"].values
    rows, columns = data["row"].values, data["column"].values

    def draw(axis: Any, theme: Theme) -> None:
        centre = data.attrs["centre"]
        limits: dict[str, float] = {}
        if np.isfinite(centre):
            reach = np.nanmax(np.abs(values - centre), initial=1e-12)
            limits = {"vmin": centre - reach, "vmax": centre + reach}
        colours = "RdBu_r" if limits else "viridis"
        mesh = axis.imshow(values, origin="lower", aspect="auto", cmap=colours, **limits)
        axis.figure.colorbar(mesh, ax=axis, label=data.attrs["unit"], shrink=0.9)
        level = data.attrs["contour"]
        if np.isfinite(level) and min(values.shape) > 1:
            axis.contour(np.nan_to_num(values, nan=np.inf), levels=[level], colors=theme.ink)
        if values.shape[1] <= _LABELLED:
            for (i, j), value in np.ndenumerate(values):
                text = str(data["words"].values[i, j]) if "words" in data else f"{value:.3g}"
                bright = sum(mesh.cmap(mesh.norm(value))[:3]) > 1.5
                ink = "#111111" if bright else "#ffffff"
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
        axis.set_xticks(range(len(columns)), [_short(value) for value in columns])
        axis.set_yticks(range(len(rows)), [_short(value) for value in rows])
        axis.set(title=data.attrs["title"], xlabel=data.attrs["x"], ylabel=data.attrs["y"])
        axis.title.set_wrap(True)

    return Panel(draw, max(3.5, 0.25 * len(rows) + 1.2))


_LABELLED = 9  # columns of a map up to which its cells show their values


def _draw_series(axis: Any, word: dict, points: tuple, colour: str, style: Any) -> None:
    x, y, error = points
    # Matplotlib leaves labels that begin with "_" out of a legend.
    label = f" {word['label']}" if word["label"].startswith("_") else word["label"] or None
    known = np.where(np.isfinite(error), error, 0.0)
    if word["look"] == "points":
        bars = known if np.any(known > 0) else None
        axis.errorbar(x, y, bars, fmt="o", ms=4, lw=1.2, color=colour, label=label, zorder=4)
    elif word["look"] == "bars":
        width = 0.8 * np.min(np.diff(np.sort(x)), initial=1.0)
        bars = known if np.any(known > 0) else None
        axis.bar(x, y, width, yerr=bars, color=colour, alpha=0.55, label=label)
    else:
        step = {"drawstyle": "steps-mid"} if word["look"] == "steps" else {}
        axis.plot(x, y, color=colour, ls=style, lw=1.5, label=label, **step)
        if np.any(known > 0):
            axis.fill_between(x, y - known, y + known, color=colour, alpha=0.2, lw=0)


def _reading(below: list[xr.DataTree]) -> str:
    """How to read the charts, which have their titles on them."""
    series = [json.loads(child.attrs["series"]) for child in below if "series" in child.attrs]
    looks = {one["look"] for words in series for one in words}
    told = []
    if "points" in looks and looks & {"line", "steps"}:
        told.append(
            "Points are measured, lines are predicted: where they part, the prediction is off."
        )
    if any(np.isfinite(child.attrs.get("level", np.nan)) for child in below):
        told.append("The thin line marks what they are held against.")
    if any("error" in child and bool(child["error"].notnull().any()) for child in below):
        told.append("Bars and shades are one standard error.")
    if any(child.attrs["kind"] == "map" for child in below):
        told.append("Colours are the values that the bar shows.")
    return " ".join(told)


def _errors(series: Series) -> np.ndarray:
    if series.error is None:
        return np.full(np.size(series.x), np.nan)
    return np.asarray(series.error, dtype=float)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else encodable(str(value))
