"""What a report says and shows of measures: each labelled measure knows its sentence and figure."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.charts import Chart, Map, Series, map_panel
from statsgd.reports.panels import Figure
from statsgd.reports.sections import Section, register

_CELLS = 40  # of a histogram
_SHOWN = 4  # panels, or lines, that a section shows at most


@register("measure")
def measure_section(name: str, node: xr.DataTree) -> Section:
    """Any measure over an ensemble: its mean, and how it is spread over replicas."""
    data, title = node.to_dataset(), str(node.attrs["measure"]).replace("_", " ")
    panels, rows = [], []
    for variable, array in _single(data):
        finite = array.values[np.isfinite(array.values)].astype(float)
        if finite.size < 2:
            continue
        error = finite.std(ddof=1) / np.sqrt(finite.size)
        rows.append((variable, finite.mean(), error, finite.std(ddof=1), finite.size))
        density, edges = np.histogram(finite, _CELLS)
        said = variable.replace("_", " ")
        bars = Series("", (edges[1:] + edges[:-1]) / 2, density.astype(float), look="steps")
        panels.append(Chart(f"{said} over replicas", said, "replicas", (bars,)).panel())
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


@register("survival")
def survival_section(name: str, node: xr.DataTree) -> Section:
    """Survival in a basin, with censoring, and the rate of escape."""
    data, said = node.to_dataset(), node.attrs
    time = data["time"].values
    curve = Series("measured", time, data["survival"].values, data["survival_error"].values, "line")
    decay = Series("at the measured rate", time, np.exp(-said["escape_rate"] * time), look="line")
    finding = (
        f"Runs leave at a rate of {said['escape_rate']:.4g} a step ({said['escape_rate_low']:.4g} "
        f"to {said['escape_rate_high']:.4g} at {100 * said['confidence']:g} %), if the rate is "
        f"constant; {said['censored']} were still inside at the end and count as censored."
    )
    title = "Share of runs that have not left (Kaplan–Meier)"
    chart = Chart(title, "step", "share still inside", (curve, decay), "y")
    return _section("Escape", finding, chart)


@register("loss_climb")
def loss_climb_section(name: str, node: xr.DataTree) -> Section:
    """How fast the mean loss rises from where the runs began."""
    data = node.to_dataset()
    steps, climb = data["step"].values, data["climb"].values
    error = data["climb_error"].values
    series = [Series("measured", steps, climb, error, "line")]
    finding = (
        f"After {int(steps[-1])} steps the mean loss lies {climb[-1]:.4g} ± {error[-1]:.2g} above "
        "that at the start."
    )
    if "prediction" in data:
        series.append(Series("predicted", steps, data["prediction"].values, look="line"))
        finding += f" Predicted: {float(data['prediction'][-1]):.4g}."
    chart = Chart("How the mean loss climbs", "step", "loss above the start", tuple(series))
    return _section("Escaping efficiency", finding, chart)


@register("displacement")
def displacement_section(name: str, node: xr.DataTree) -> Section:
    """Mean squared displacement and its exponent."""
    data, said = node.to_dataset(), node.attrs
    lag, moved = data["lag"].values.astype(float), data["squared_displacement"].values
    series = [Series("measured", lag, moved, data["squared_displacement_error"].values)]
    finding = f"Mean squared displacement over lags of {lag[0]:g} to {lag[-1]:g} steps."
    if "anomalous_exponent" in said:
        exponent, error = said["anomalous_exponent"], said["anomalous_exponent_error"]
        middle = np.exp(np.mean(np.log(moved))), np.exp(np.mean(np.log(lag)))
        line = middle[0] * (lag / middle[1]) ** exponent
        series.append(Series(f"lag^{exponent:.2f}", lag, line, look="line"))
        finding += f" It grows like lag^({exponent:.3f} ± {error:.2g}) there (1: diffusion)."
    chart = Chart("Mean squared displacement", "lag (steps)", "params²", tuple(series), "xy")
    return _section("Displacement", finding, chart)


@register("variance_flatness")
def variance_flatness_section(name: str, node: xr.DataTree) -> Section:
    """Variance of the weights against curvature, by direction."""
    data, said = node.to_dataset(), node.attrs
    curvature, variance = data["curvature"].values, data["variance"].values
    positive = (curvature > 0) & (variance > 0)
    points = Series(
        "", curvature[positive], variance[positive], data["variance_error"].values[positive]
    )
    low, high = said["psi_interval"]
    word = "larger in sharp" if low > 0 else "larger in flat" if high < 0 else "not clearly larger"
    finding = (
        f"Variance goes with flatness to the power −ψ, ψ = {said['psi']:.3f} ± "
        f"{said['psi_error']:.2g} ({low:.3f} to {high:.3f}): it is {word}"
        f"{' directions' if low > 0 or high < 0 else ' in either'}."
    )
    axes = ("curvature (Hessian eigenvalue)", "variance of the weights")
    return _section(
        "Variance and flatness",
        finding,
        Chart("Weight variance by direction", *axes, (points,), "xy"),
    )


@register("fluctuation_dissipation")
def fluctuation_dissipation_section(name: str, node: xr.DataTree) -> Section:
    """Whether the runs are stationary, by relations that hold for any stationary law."""
    table = node.to_dataset().to_dataframe().reset_index()
    told = [
        f"{row['relation']}: {row['left']:.4g} against {row['right']:.4g}, t = {row['t']:.2f}, "
        f"p = {row['p_value']:.2g}"
        for _, row in table.iterrows()
    ]
    broken = bool((table["p_value"] < 0.05 / len(table)).any())
    word = "They are not stationary" if broken else "Nothing says that they are not stationary"
    place = np.arange(len(table), dtype=float)
    series = tuple(
        Series(side, place, table[side].to_numpy(), table[f"{side}_error"].to_numpy())
        for side in ("left", "right")
    )
    names = tuple(map(str, table["relation"]))
    chart = Chart("Both sides of the relations", "", "loss", series, names=names)
    finding = f"Both sides agree in stationary runs. {'; '.join(told)}. {word}."
    return _section("Fluctuation and dissipation", finding, chart, table)


@register("currents")
def currents_section(name: str, node: xr.DataTree) -> Section:
    """Areas that runs sweep, and the entropy that they produce."""
    data, said = node.to_dataset(), node.attrs
    rates, errors = data["area_rate"].values, data["area_rate_error"].values
    scale = np.where(errors > 0, errors, np.inf)
    i, j = np.unravel_index(np.argmax(np.abs(rates) / scale), rates.shape)
    finding = (
        f"Entropy is produced at {said['entropy_production']:.4g} ± "
        f"{said['entropy_production_error']:.2g} a step (0 in equilibrium). The clearest current "
        f"turns in the plane of coordinates {i} and {j}: {rates[i, j]:.4g} ± {errors[i, j]:.2g} of "
        "area a step."
    )
    names = data["i"].values
    diagram = Map(
        "Area swept per step",
        "coordinate",
        "coordinate",
        names,
        names,
        rates,
        "params²",
        centre=0.0,
    )
    panel = map_panel(diagram.to_datatree().to_dataset())
    return Section("Currents", finding, (Figure((panel,), f"{diagram.title}.", diagram.title),))


@register("charges")
def charges_section(name: str, node: xr.DataTree) -> Section:
    """Charges of symmetries: how balanced the parameters are, over time where it was kept."""
    data = node.to_dataset()
    ratio: xr.DataArray = abs(data["charge"]) / data["size"]
    mean = ratio.mean("replica")
    error = ratio.std("replica", ddof=1) / np.sqrt(ratio.sizes["replica"])
    steps = data["step"].values if "step" in data.coords else np.arange(data.sizes["step"])
    series, told = [], []
    for symmetry in data["symmetry"].values:
        at = {"symmetry": symmetry}
        last = float(mean.sel(at)[-1]), float(error.sel(at)[-1])
        told.append(f"{symmetry}: {last[0]:.3g} ± {last[1]:.2g}")
        series.append(Series(str(symmetry), steps, mean.sel(at).values, error.sel(at).values))
    finding = f"Imbalance |charge|/size at the end (0 balanced, 1 one-sided) – {'; '.join(told)}."
    chart = Chart("Imbalance of each symmetry", "step", "mean |charge| / size", tuple(series[:6]))
    return _section("Balance", finding, chart)


@register("basins")
def basins_section(name: str, node: xr.DataTree) -> Section:
    """Shares of the basins that gradient flow leads to."""
    data, said = node.to_dataset(), node.attrs
    share, error = data["share"].values, data["share_error"].values
    told = [
        f"basin {i}: {s:.4f} ± {e:.2g}" for i, (s, e) in enumerate(zip(share, error, strict=True))
    ]
    finding = (
        f"Following the gradient flow from every endpoint, {'; '.join(told)}; {said['unassigned']} "
        f"endpoints belong to no declared minimum, {said['not_converged']} flows did not arrive."
    )
    place = np.arange(len(share), dtype=float)
    names = tuple(f"basin {i}" for i in range(len(share)))
    bars = Series("", place, share, error, "bars")
    chart = Chart("Where endpoints belong", "", "share of endpoints", (bars,), names=names)
    return _section("Basins", finding, chart)


def _single(data: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    """Every number that each replica has one of, with a name: entries of arrays one by one."""
    for variable in data.data_vars:
        array = data[variable]
        others = [dim for dim in array.dims if dim != "replica"]
        if variable == "diverged" or "replica" not in array.dims:
            continue
        if not others:
            yield str(variable), array
        for place in np.ndindex(*(array.sizes[dim] for dim in others)) if others else ():
            at = dict(zip(others, place, strict=True))
            told = ", ".join(f"{dim} {data[dim].values[i]}" for dim, i in at.items())
            yield f"{variable} at {told}", array.isel(at)


def _section(title: str, finding: str, chart: Chart, table: Any = None) -> Section:
    figure = Figure((chart.panel(),), f"{chart.title}, with one standard error.", chart.title)
    return Section(title, finding, (figure,), table)
