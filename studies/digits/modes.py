"""Endpoints and laws seen mode by mode in phase space, and what each assumption costs there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from statsgd.comparison.samples import read_ensemble
from statsgd.comparison.statistics import cluster_variance
from statsgd.laws.minimum import MinimumGaussian
from statsgd.provenance import provenance
from statsgd.reports import Chart, Figure, Panel, Section, Series, Theme, register
from statsgd.reports.figures import readable
from statsgd.reports.panels import STYLES

#: Endpoints kept per shown mode: enough for a histogram, few enough for a report.
MAX_POINTS = 4000
_CLOUD = 1500  # points of a cloud: more only make a blot


def modes_in_phase_space(
    endpoints: xr.DataTree,
    laws: Mapping[str, MinimumGaussian],
    *,
    shown: Sequence[int] | None = None,
    include_snapshots: bool = False,
) -> xr.DataTree:
    """Project endpoints and Gaussian laws on the eigenmodes of the first law's Hessian.

    **Returns** a `DataTree` of kind `modes` with `moments` (dims `law`, `mode`): Hessian
    eigenvalue, law variances of θ and m, their covariance, measured variances with errors; and
    `points` (dims `point`, `shown`): endpoints, centred on the first law, along the modes `shown`
    (by default the flattest and the sharpest).
    """
    if not laws:
        raise ValueError("laws must name at least one Gaussian law, got none")
    first = next(iter(laws.values()))
    vectors = first.modes().vectors
    curvatures = _diagonal(first.hessian, vectors)
    samples = read_ensemble(endpoints, include_snapshots=include_snapshots)
    moments: dict = {"curvature": ("mode", np.asarray(curvatures))}
    for variable in first.variables:
        predicted = [_diagonal(law.covariance(variable), vectors) for law in laws.values()]
        measured = cluster_variance(samples[variable] @ vectors)
        moments[f"{variable}_predicted"] = (("law", "mode"), np.stack(predicted))
        moments[f"{variable}_measured"] = ("mode", measured.value)
        moments[f"{variable}_standard_error"] = ("mode", measured.standard_error)
    cross = [_diagonal(law.covariance(*law.variables), vectors) for law in laws.values()]
    moments["cross_predicted"] = (("law", "mode"), np.stack(cross))
    chosen = [0, len(curvatures) - 1] if shown is None else list(shown)
    points = {
        variable: (
            ("point", "shown"),
            ((samples[variable][:, -1] - first.mean(variable)) @ vectors[:, chosen])[:MAX_POINTS],
        )
        for variable in first.variables
    }
    tree = xr.DataTree.from_dict(
        {
            "moments": xr.Dataset(
                moments, coords={"law": list(laws), "mode": np.arange(len(curvatures))}
            ),
            "points": xr.Dataset(points, coords={"shown": chosen}),
        }
    )
    tree.attrs = provenance("modes")
    return tree


def _diagonal(covariance: Float[Any, "d d"], vectors: Float[Any, "d k"]) -> Float[Any, " k"]:
    return np.einsum("ik,ij,jk->k", vectors, covariance, vectors)


@register("modes")
def modes_section(name: str, node: xr.DataTree) -> Section:
    """Variances, marginals and phase-space ellipses of Gaussian laws against endpoints."""
    moments, points = node["moments"].to_dataset(), node["points"].to_dataset()
    laws = [str(law) for law in moments["law"].values]
    steep = [float(moments["curvature"][int(mode)]) for mode in points["shown"].values]
    curvatures = " and ".join(f"{value:.3g}" for value in steep)
    drawn = (
        Figure(
            mode_variances(moments),
            "Stationary variance of parameters and momentum buffer along each eigenmode of the "
            "Hessian: SGD (points, one standard error) and laws (lines).",
            "Measured and predicted variance against curvature, one line per law",
        ),
        Figure(
            marginals(moments, points),
            f"Endpoints along the modes of curvature {curvatures}, in units of the standard "
            f"deviation that {laws[0]} predicts, with the density of each law.",
            "Histograms of endpoints along two modes with law densities",
        ),
        Figure(
            ellipses(moments, points),
            "The same modes in phase space: endpoints, and the ellipse of two standard deviations "
            "of each law. The tilt is the covariance of position and buffer, which the continuous "
            "model does not have.",
            "Phase-space scatter of endpoints with two-sigma ellipses",
        ),
    )
    finding = (
        f"Seen along the {moments.sizes['mode']} eigenmodes of the Hessian, curvature "
        f"{float(moments['curvature'].min()):.3g} to {float(moments['curvature'].max()):.3g}."
    )
    return Section("Mode by mode", finding, drawn)


@register("factors")
def factors_section(name: str, node: xr.DataTree) -> Section:
    """Why laws differ: the factor that each assumption costs, per mode."""
    data = node.to_dataset()
    rows = [
        {
            "assumption given up": str(step),
            "smallest factor": float(data["factor"].sel(step=step).min()),
            "median factor": float(data["factor"].sel(step=step).median()),
            "largest factor": float(data["factor"].sel(step=step).max()),
        }
        for step in data["step"].values
    ]
    picture = Figure(
        factors(data),
        "Factor by which the predicted variance of each mode changes as one assumption after the "
        "other is given up. The product of the three leads from the first law to the last.",
        "Factor per mode for each assumption",
    )
    return Section(
        node.attrs["title"], node.attrs["finding"], (picture,), pd.DataFrame(rows).round(4)
    )


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
    cloud = points.sel(shown=mode).isel(point=slice(_CLOUD))

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


def mode_title(moments: xr.Dataset, mode: Any) -> str:
    """Which mode, and how sharp it is."""
    return f"mode {int(mode)}, curvature {float(moments['curvature'].sel(mode=mode)):.3g}"
