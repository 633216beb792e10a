"""What a report says and shows of a measure over an ensemble."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.charts import Chart, Series
from statsgd.reports.panels import Figure
from statsgd.reports.sections import Section, register

_CELLS = 40  # of a histogram
_ENTRIES = 64  # of an array at one replica: more are a trace or a matrix, and have no rows
_SHOWN = 4  # panels, or lines, that a section shows at most


@register("measure")
def measure_section(place: str, node: xr.DataTree) -> Section:
    """Any measure over an ensemble: its mean, and how it is spread over replicas."""
    data, title = node.to_dataset(), str(node.attrs["measure"]).replace("_", " ")
    panels, rows = [], []
    for variable, array in _single(data):
        finite = array.values[np.isfinite(array.values)].astype(float)
        if finite.size < 2:
            continue
        name = title if variable == "value" else variable
        label = name.replace("_", " ")
        error = finite.std(ddof=1) / np.sqrt(finite.size)
        rows.append((name, finite.mean(), error, finite.std(ddof=1), finite.size))
        density, edges = np.histogram(finite, _CELLS)
        bars = Series("", (edges[1:] + edges[:-1]) / 2, density.astype(float), look="steps")
        panels.append(Chart(f"{label} over replicas", label, "replicas", (bars,)).panel())
    columns = ["quantity", "mean", "standard_error", "standard_deviation", "replicas"]
    table = pd.DataFrame(rows, columns=columns)
    told = [f"{row[0]} is {row[1]:.4g} ± {row[2]:.2g}" for row in rows[:_SHOWN]]
    finding = f"On average over replicas, {'; '.join(told)}."
    figures: tuple[Figure, ...] = ()
    if panels:
        figures = (
            Figure(tuple(panels[:_SHOWN]), f"{title} at the endpoints.", f"Histograms of {title}"),
        )
    return Section(title[:1].upper() + title[1:], finding, figures, table)


def _single(data: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    """Every number that each replica has one of, with a name; entries of short arrays, each."""
    for variable in data.data_vars:
        array = data[variable]
        others = [dim for dim in array.dims if dim != "replica"]
        if variable in ("diverged", "standard_error", "clusters") or "replica" not in array.dims:
            continue
        if array.size > _ENTRIES * array.sizes["replica"]:
            continue
        if not others:
            yield str(variable), array
        for place in np.ndindex(*(array.sizes[dim] for dim in others)) if others else ():
            at = dict(zip(others, place, strict=True))
            told = ", ".join(f"{dim} {data[dim].values[i]}" for dim, i in at.items())
            yield f"{variable} at {told}", array.isel(at)
