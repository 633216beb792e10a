"""What a report says of laws fitted to endpoints: which predicts best, with which parameters."""

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.charts import Chart, Series
from statsgd.reports.panels import Figure, Panel
from statsgd.reports.sections import Section, register

_CELLS = 40  # of a histogram


@register("fitted_laws")
def fitted_laws_section(name: str, node: xr.DataTree) -> Section:
    """The ranking of fitted laws, and their parameters against theory."""
    sentences, panels, tables = [], [], []
    if "ranking" in node.children:
        ranking = node["ranking"].to_dataset().to_dataframe().sort_values("rank")
        sentences.append(_ranked(ranking))
        panels.append(_ranking(ranking))
        tables.append(ranking.reset_index())
    if "parameters" in node.children:
        parameters = node["parameters"].to_dataset().to_dataframe().reset_index(drop=True)
        draws = node["draws"].to_dataset()
        for _, row in parameters.iterrows():
            sentences.append(
                f"{row['law']}: {row['parameter']} is {row['mean']:.4g} ± {row['sd']:.2g} "
                f"(theory {row['theory']:.4g}): {row['verdict']}."
            )
            panels.append(_posterior(row, draws[f"{row['law']}: {row['parameter']}"].values))
        tables = [parameters]
    figure = Figure(
        tuple(panels),
        "Expected log predictive density of an endpoint that was left out, relative to the best "
        "law, with one standard error; and posteriors of parameters with their theoretical values.",
        "Ranking of fitted laws and posteriors of their parameters",
    )
    return Section("Laws fitted to the endpoints", " ".join(sentences), (figure,), tables[0])


def _ranked(ranking: pd.DataFrame) -> str:
    best, second = ranking.index[0], ranking.iloc[1]
    return (
        f"{best} predicts endpoints best; {ranking.index[1]} follows, "
        f"{abs(second['elpd_diff']):.4g} ± {second['dse']:.2g} behind in expected log predictive "
        "density over all endpoints."
    )


def _ranking(ranking: pd.DataFrame) -> Panel:
    behind = ranking["elpd_diff"].to_numpy(dtype=float)
    points = Series("", np.arange(len(ranking)), behind, ranking["dse"].to_numpy(dtype=float))
    return Chart(
        "How well laws predict endpoints left out",
        "",
        "log predictive density, law minus best",
        (points,),
        level=0.0,
        names=tuple(map(str, ranking.index)),
    ).panel()


def _posterior(row: pd.Series, draws: np.ndarray) -> Panel:
    density, edges = np.histogram(draws, _CELLS, density=True)
    centres = (edges[1:] + edges[:-1]) / 2
    theory = Series("theory", [row["theory"]] * 2, [0.0, density.max()], look="line")
    title = f"{row['parameter']} of {row['law']}"
    series = (Series("posterior", centres, density, look="steps"), theory)
    return Chart(title, str(row["parameter"]), "posterior density", series).panel()
