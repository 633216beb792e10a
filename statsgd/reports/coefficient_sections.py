"""What a report says and shows of learning coefficients over settings of their chains."""

import numpy as np
import xarray as xr

from statsgd.kernels.mixing import LARGEST_RHAT
from statsgd.reports.charts import Chart, Series
from statsgd.reports.panels import Figure
from statsgd.reports.sections import Section, register

_FAR = 3.0  # times the largest sound value: what lies beyond would flatten all that is of interest

_CAPTION = (
    "The estimate at each step size and localization of its chains. Points, with bars of one "
    "standard error, are those that nothing speaks against; where the line has none, or ends, the "
    "table says why. Trust the estimate where it is flat: with small steps chains have not mixed "
    "(R-hat above the thin line), with large ones they are biased or diverge; a strong "
    "localization takes away from it, with a weak one chains leave."
)


@register("learning_coefficient_grid")
def coefficient_grid_section(name: str, node: xr.DataTree) -> Section:
    """The coefficient against step size and localization, with what speaks against each value."""
    data = node.to_dataset()
    panels = tuple(chart.panel() for chart in _charts(data))
    alt = "Learning coefficient, R-hat and diverged chains against step size and localization"
    return Section(
        "Learning coefficient over step size and localization",
        _finding(data),
        (Figure(panels, _CAPTION, alt),),
        data.to_dataframe().reset_index(),
    )


def _finding(data: xr.Dataset) -> str:
    """At each localization: the step sizes that nothing speaks against, and the values there."""
    sound = data["doubts"].values == ""
    told = [f"Nothing speaks against {int(sound.sum())} of {sound.size} estimates."]
    for row, spring in enumerate(data["localization"].values):
        at = data.isel(localization=row, step_size=sound[row])
        if not at.sizes["step_size"]:
            told.append(f"Localization {spring:.3g}: no step size can be trusted.")
            continue
        steps, values = at["step_size"].values, at["value"].values
        errors = at["standard_error"].values
        told.append(
            f"Localization {spring:.3g}: from {values.min():.4g} to {values.max():.4g} over step "
            f"sizes from {steps.min():.3g} to {steps.max():.3g}, each ± {errors.max():.2g} at most."
        )
    return " ".join(told)


def _charts(data: xr.Dataset) -> tuple[Chart, ...]:
    springs = data["localization"].values
    step, spring = "step size h (params² per unit of log density)", "localization γ (1/params²)"
    charts = [
        Chart("Against the step size", step, "λ̂", _along(data, "localization", "γ"), log="x"),
        Chart("R-hat", step, "R-hat of the loss", _lines(data, "rhat"), log="x",
              level=LARGEST_RHAT),
        Chart("Diverged chains", step, "chains", _lines(data, "diverged_chains"), log="x"),
    ]  # fmt: skip
    if len(springs) > 1 and (data["doubts"] == "").any():
        over = _along(data, "step_size", "h")
        log = "x" if springs[0] > 0 else ""
        charts.insert(1, Chart("Against the localization", spring, "λ̂", over, log=log))
    return tuple(charts)


def _along(data: xr.Dataset, each: str, symbol: str) -> tuple[Series, ...]:
    """For each value of one axis: a line along the other, and points where there is no doubt."""
    (other,) = {"localization", "step_size"} - {each}
    sure = np.abs(data["value"].values[data["doubts"].values == ""])
    most = _FAR * sure.max() if sure.size else np.inf
    series = []
    for value in data[each].values:
        part = data.sel({each: value})
        x, y, error = (part[name].values for name in (other, "value", "standard_error"))
        shown, sound = np.abs(y) <= most, part["doubts"].values == ""
        if each == "step_size" and not sound.any():
            continue  # of many steps those that matter
        label = f"{symbol} = {value:.3g}"
        series.append(Series("", x[shown], y[shown], look="line", group=label))
        series.append(Series(label, x[sound], y[sound], error[sound], group=label))
    return tuple(series)


def _lines(data: xr.Dataset, name: str) -> tuple[Series, ...]:
    steps = data["step_size"].values
    return tuple(
        Series(f"γ = {spring:.3g}", steps, data[name].sel(localization=spring).values, look="line")
        for spring in data["localization"].values
    )
