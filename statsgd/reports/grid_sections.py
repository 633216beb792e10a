"""What a report says of a law over a grid of settings: a phase diagram and small multiples."""

from typing import Any

import numpy as np
import xarray as xr

from statsgd.reports.charts import Map, map_panel
from statsgd.reports.panels import Figure, Panel, Theme
from statsgd.reports.sections import Section, register

_MULTIPLES = 7  # cells along one axis up to which each has its own picture


@register("comparison_grid")
def comparison_grid_section(name: str, node: xr.DataTree) -> Section:
    """Where over two settings endpoints follow the law."""
    cells, marginals = node["cells"].to_dataset(), node["marginals"].to_dataset()
    rows, columns = cells["effect"].dims
    verdicts = cells["verdict"].values
    counted = [f"{word}: {int((verdicts == word).sum())}" for word in np.unique(verdicts)]
    finding = (
        f"Over {verdicts.size} combinations of {_said(rows)} and {_said(columns)} – "
        f"{', '.join(counted)}. "
    )
    effect = cells["effect"]
    if effect.notnull().any():
        worst = np.unravel_index(np.nanargmax(np.abs(np.log(effect.values))), effect.shape)
        ratio, low, high = (float(cells[of].values[worst]) for of in ("effect", "low", "high"))
        row, column = (cells[dim].values[i] for dim, i in zip((rows, columns), worst, strict=True))
        finding += (
            f"The variance is farthest from the law at {_said(rows)} {row:.3g} and "
            f"{_said(columns)} {column:.3g}: {ratio:.3f} times the predicted one ({low:.3f} to "
            f"{high:.3f}). "
        )
    finding += f"Intervals of all cells hold together at {100 * node.attrs['confidence']:g} %."
    table = cells.to_dataframe().reset_index()
    figure = Figure(
        (_diagram(cells, float(node.attrs["margin"])), _multiples(marginals)),
        "First: in each cell, the ratio of measured to predicted variance that is farthest from 1. "
        "Second: endpoints (filled) and law (line) in each cell, four standard deviations of the "
        "law to either side.",
        f"Phase diagram over {_said(rows)} and {_said(columns)}, with marginals of every cell",
    )
    return Section(f"Over {_said(rows)} and {_said(columns)}", finding, (figure,), table)


def _diagram(cells: xr.Dataset, margin: float) -> Panel:
    effect = cells["effect"]
    rows, columns = effect.dims
    verdicts = cells["verdict"].values
    words = np.where(
        np.isfinite(effect.values), np.char.mod("%.3g", effect.values), verdicts.astype(str)
    )
    marks = np.where(np.char.startswith(verdicts.astype(str), "agrees"), " ✓", "")
    diagram = Map(
        f"Measured / predicted variance (✓: within {100 * margin:g} %)",
        _said(columns), _said(rows), cells[columns].values, cells[rows].values,
        np.log2(effect.values), "log₂ of the ratio", centre=0.0, words=np.char.add(words, marks),
    )  # fmt: skip
    return map_panel(diagram.to_datatree().to_dataset())


def _multiples(marginals: xr.Dataset) -> Panel:
    rows, columns, _ = marginals["law"].dims
    # A grid that is too fine is shown at evenly spaced cells.
    chosen = {
        dim: np.unique(np.linspace(0, marginals.sizes[dim] - 1, _MULTIPLES).round().astype(int))
        for dim in (rows, columns)
    }
    shown = marginals.isel(chosen)
    height, width = shown.sizes[rows], shown.sizes[columns]

    def draw(axis: Any, theme: Theme) -> None:
        axis.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5))
        axis.set_xticks(range(width), [f"{value:.3g}" for value in shown[columns].values])
        axis.set_yticks(range(height), [f"{value:.3g}" for value in shown[rows].values])
        axis.set(title="Endpoints and law", xlabel=_said(columns), ylabel=_said(rows))
        top = max(float(shown["law"].max()), float(shown["endpoints"].max()))
        place = np.linspace(-0.45, 0.45, shown.sizes["bin"])
        for i, j in np.ndindex(height, width):
            cell = shown.isel({rows: i, columns: j})
            points, law = (0.85 * cell[of].values / top for of in ("endpoints", "law"))
            if np.isfinite(law).all():
                foot = np.full(len(place), i - 0.45)
                axis.fill_between(j + place, foot, foot + points, color=theme.quiet, lw=0)
                axis.plot(j + place, foot + law, color=theme.series[1], lw=1)

    return Panel(draw, 3.5)


def _said(axis: Any) -> str:
    return str(axis).replace("_", " ")
