"""Sections of a report: each kind of data tree knows its finding, its figures and its table.

A section function takes a node and returns a `Section`. To make a new kind of result readable,
write one such function and `register` it under the kind its tree carries in `attrs["kind"]`.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports import comparison_figures, figures
from statsgd.reports.charts import charts_of
from statsgd.reports.panels import Figure


class Section(NamedTuple):
    """One part of a report."""

    title: str
    finding: str
    """One sentence that says what was found."""
    figures: tuple[Figure, ...] = ()
    table: pd.DataFrame | None = None
    verdict: str | None = None
    """For the overview at the top, if the section passes a judgement."""
    source: str = ""


#: Section functions by the kind of tree they read.
SECTIONS: dict[str, Callable[[str, xr.DataTree], Section]] = {}

#: Kinds that are shown in another way: charts within sections, whole results by their parts.
WITHOUT_SECTION = frozenset({"chart", "diagnosis", "map", "page", "study", "sweep"})


def register(kind: str) -> Callable:
    """Make the decorated function the section of trees of this `kind`.

    >>> @register("my kind")
    ... def my_section(place, node):
    ...     return Section(title=place, finding=f"The width is {node.attrs['width']}.")
    >>> tree = xr.DataTree(xr.Dataset(attrs={"kind": "my kind", "width": 2}))
    >>> [section.finding for _, section in sections(tree)]
    ['The width is 2.']
    >>> del SECTIONS["my kind"]
    """

    def add(function: Callable[[str, xr.DataTree], Section]) -> Callable:
        SECTIONS[kind] = function
        return function

    return add


def sections(results: xr.DataTree) -> Iterator[tuple[str, Section]]:
    """Path and section of every node of `results` that has a registered kind, depth first.

    Charts and maps directly below such a node close its section. Raises `ValueError` for a kind
    that nobody registered: a name that is misspelt must not vanish from a report.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> points = np.random.default_rng(0).normal(size=(4000, 1))
    >>> tree = statsgd.compare(points, law, seed=0).to_datatree()
    >>> [section.verdict for _, section in sections(tree)]
    ['agrees within 10 %']
    """
    kind = results.attrs.get("kind")
    if kind is not None and kind not in SECTIONS.keys() | WITHOUT_SECTION:
        raise ValueError(
            f"{results.path} is of the kind {kind!r}, which has no section: known are "
            f"{', '.join(sorted(SECTIONS.keys() | WITHOUT_SECTION))}; see reports.register"
        )
    function = SECTIONS.get(str(kind))
    if function is not None:
        section = function(results.name or "results", results)
        drawn = charts_of(results)
        if drawn:
            section = section._replace(figures=(*section.figures, drawn))
        yield results.path, section
    for child in results.children.values():
        yield from sections(child)


@register("comparison")
def comparison_section(name: str, node: xr.DataTree) -> Section:
    """Verdict and effect sizes of one comparison."""
    table = node["table"].to_dataset().to_dataframe()
    law = _decoded(node.attrs["law"])
    source = f"{law['citation']}. Applies to: {law['setting']}. Accuracy: {law['exactness']}."
    ratios = table[table["statistic"].isin(["variance ratio", "median deviation ratio"])]
    spread = ratios["statistic"].iloc[-1].removesuffix(" ratio") if len(ratios) else ""
    positions = ratios[ratios["variable"] == "params"]
    positions = positions[positions["statistic"] == f"{spread} ratio"]
    decided = [
        f"{verdict}: {int((table['verdict'] == verdict).sum())}"
        for verdict in table["verdict"].unique()
    ]
    finding = f"{node.attrs['subject']}: {node.attrs['sentence']}."
    finding = finding[:1].upper() + finding[1:]
    if len(positions):
        finding += (
            f" The measured {spread} is {positions['effect'].min():.3f} to "
            f"{positions['effect'].max():.3f} times what the law predicts (median standard error "
            f"{positions['standard_error'].median():.4f}), over {len(positions)} directions in "
            "parameter space."
        )
    finding += (
        f" Of {len(table)} quantities – {', '.join(decided)}. Intervals hold "
        f"simultaneously at {100 * node.attrs['confidence']:g} % ({node.attrs['multiplicity']})."
    )
    distances = node["distances"].to_dataset().to_dataframe()
    for _, row in distances.iterrows():
        finding += (
            f" Energy distance of {row['variable'].replace('_', ' ')}: {row['coefficient']:.4f} of "
            f"its largest value, permutation p = {row['p_value']:.3f} with "
            f"{int(row['endpoints'])} endpoints."
        )
    finding += _effects_and_tests(node, table)
    if node.attrs["notes"]:
        finding += f" {node.attrs['notes']}."
    pictures = []
    drawn = figures.spread_ratios(ratios, node.attrs["margin"])
    if drawn:
        caption = (
            f"Measured over predicted {spread} of each mode, flattest first, with simultaneous "
            f"intervals; the band is ±{100 * node.attrs['margin']:g} %."
        )
        alt = f"Ratio of {spread} per mode for {law['name']}: {node.attrs['verdict']}"
        pictures.append(Figure(drawn, caption, alt))
    effects = table[table["direction"] == "effect"]
    if len(effects):
        drawn = comparison_figures.effect_sizes(effects, node.attrs["margin"])
        caption = "Effect sizes with simultaneous intervals; the band counts as agreement."
        pictures.append(Figure(drawn, caption, f"Effect sizes of {law['name']}"))
    columns = ["part", "variable", "direction", "statistic", "index", "measured", "predicted"]
    shown = table[[*columns, "effect", "standard_error", "low", "high", "verdict", "reason"]]
    return Section(law["name"], finding, tuple(pictures), shown, node.attrs["verdict"], source)


@register("draws")
def draws_section(name: str, node: xr.DataTree) -> Section:
    """Convergence of the draws from a law."""
    import arviz  # seconds to import: only a report pays for it

    law = _decoded(node.attrs["law"])
    posterior = node["posterior"].to_dataset()
    shown = posterior[[v for v in ("params", "momentum_buffer") if v in posterior]]
    if "sample_stats" not in node.children:
        finding = f"{posterior.sizes['draw']} exact independent draws in each of "
        return Section(f"Draws from {law['name']}", f"{finding}{posterior.sizes['chain']} chains.")
    rhat, bulk, tail = (
        np.concatenate([array.values.ravel() for array in function(shown).data_vars.values()])
        for function in (
            arviz.rhat,
            lambda data: arviz.ess(data, method="bulk"),
            lambda data: arviz.ess(data, method="tail"),
        )
    )
    stats = node["sample_stats"].to_dataset()
    finding = (
        f"{node.attrs['kernel']} on the law as a NumPyro model: {posterior.sizes['chain']} chains "
        f"of {posterior.sizes['draw']} draws, largest R-hat {rhat.max():.4f}, smallest effective "
        f"sample size {bulk.min():.0f} in the bulk and {tail.min():.0f} in the tails, acceptance "
        f"{float(stats['acceptance_rate'].mean()):.3f}, "
        f"{int(stats['diverging'].sum())} draws with an undefined potential."
    )
    picture = Figure(
        figures.convergence(rhat, bulk, tail),
        "R-hat and effective sample size of every coordinate of the law's draws; the lines "
        "are the usual limits of 1.01 and 400.",
        "R-hat and effective sample sizes per coordinate",
    )
    return Section(f"Draws from {law['name']}", finding, (picture,))


@register("ensemble")
def ensemble_section(name: str, node: xr.DataTree) -> Section:
    """What was simulated, and how much of it diverged."""
    run = node["run"].to_dataset()
    diverged = int(run["diverged"].sum())
    dynamics = json.loads(node.attrs.get("dynamics", "{}"))
    stages = dynamics if isinstance(dynamics, list) else [dynamics]
    steps = str(node.attrs.get("steps", "")).strip("[]").replace(",", " +")
    origin = json.loads(run.attrs.get("origin", "{}"))
    before = f" They continue runs of {origin['steps']} steps." if origin else ""
    length = f" of {steps} steps" if steps else ", made elsewhere"
    finding = (
        f"{run.sizes['replica']} independent runs{length}; {diverged} "
        f"diverged ({100 * diverged / run.sizes['replica']:.2g} %)."
    )
    if "loss" in run:
        loss = run["loss"].values[~run["diverged"].values]
        error = loss.std(ddof=1) / np.sqrt(loss.size) if loss.size > 1 else float("nan")
        finding += f" Mean loss at the end {loss.mean():.5f} ± {error:.5f}."
    finding += before
    rows = [(key, str(value)) for stage in stages for key, value in stage.items()]
    return Section("The ensemble", finding, table=pd.DataFrame(rows, columns=["setting", "value"]))


def _effects_and_tests(node: xr.DataTree, table: pd.DataFrame) -> str:
    """Sentences on effects beyond moments, and on tests."""
    text = ""
    preference = table[table["statistic"] == "flat preference against none"]
    for (_, row), (_, law) in zip(
        preference.iterrows(),
        table[table["statistic"] == "flat preference"].iterrows(),
        strict=True,
    ):
        text += (
            f" Flat minima are preferred by {row['measured']:.3f} ± {row['standard_error']:.3f} in "
            f"log-odds per unit of log-curvature (law: {law['predicted']:.3f}, no preference: 0)."
        )
    for _, row in table[table["statistic"] == "basin probability"].iterrows():
        text += (
            f" Basin {row['index']}: {row['measured']:.4f} ± {row['standard_error']:.4f} (law: "
            f"{row['predicted']:.4f})."
        )
    variation = table[table["statistic"] == "total variation"]
    if len(variation):
        text += f" Total variation of single coordinates is at most {variation['high'].max():.3f}."
    if "tests" in node.children:
        tests = node["tests"].to_dataset().to_dataframe()
        worst = tests.loc[tests["adjusted_p_value"].idxmin()]
        text += (
            f" The smallest of {len(tests)} p-values is that of {worst['test'].replace('_', ' ')}: "
            f"{worst['p_value']:.3g}, {worst['adjusted_p_value']:.3g} after Holm's adjustment."
        )
    if node.attrs.get("draws"):
        text += f" Draws: {node.attrs['draws']}."
    return text


def _decoded(text: Any) -> dict[str, str]:
    unknown = {"name": str(text), "citation": "", "setting": "unknown", "exactness": "unknown"}
    return json.loads(text) if str(text).startswith("{") else unknown
