"""The atlas of where each law holds: every law against the truth over its dimensionless numbers.

Each law has a family of problems that it speaks about, and one or two dimensionless numbers that
decide how good it is. In every cell of that grid the law is held against the truth along one
coordinate: the exact law of the discrete chain where there is one, a simulated ensemble elsewhere.
Every distance has its error, and where it is not told from zero, an upper bound.

    python -m studies atlas --laws Gibbs ScalarNoiseLaw --no-errata --output results/atlas_some
    python -m studies.refresh_pages

computes some laws anew and puts them in place of what the package holds of them.
"""

import dataclasses
import functools
import json
import math
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
import zarr

import statsgd
from statsgd.comparison import Accuracy, Claim, Marginal, Quantity, accuracy
from statsgd.comparison.accuracy import numerical
from statsgd.estimate import Discrepancy
from statsgd.laws import LAWS, ImproperLawError
from statsgd.provenance import provenance
from statsgd.reports import Chart, Map, Series, gallery
from studies.atlas_families import FAMILIES, AtlasCell, Family
from studies.atlas_families.family import DivergedError, Effort
from studies.atlas_families.table import COLUMNS, HOLDS, atlas_table, overview
from studies.errata import page as errata
from studies.outcome import begin

_BINS = 60  # of the marginals that are kept
_ERRATA_REPLICAS = 5000  # enough to tell what is printed from what is right


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    laws: tuple[str, ...] = ()
    """Names of laws; all of them if there are none."""
    values: int = 0
    """Values of each dimensionless number; 0 for all that its family lists."""
    replicas: int = 60_000
    """Runs of a simulated ensemble: so many tell total variations of 1 % from zero, and bound what
    is not told from zero by 0.7 to 1 %."""
    errata: bool = True
    """Also show every published formula that the theory corrects against the truth."""
    executor: str = "serial"
    """Where cells run: serial, processes, or the address of a dask scheduler."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "atlas")
    """Folder for the report, and for the cells that are done."""
    progress: bool = True
    """Show progress bars."""

    @classmethod
    def quick(cls) -> Self:
        """Three values of each number, for two laws."""
        laws = ("Gibbs", "FlooredLossScaledLaw")
        return cls(laws=laws, values=3, replicas=4000)


def run(config: Config) -> xr.DataTree:
    """Every cell of every law; cells that are done already are not run again."""
    names = config.laws or tuple(FAMILIES)
    unknown = sorted(set(names) - set(FAMILIES))
    if unknown:
        raise ValueError(f"laws must be among {sorted(FAMILIES)}, got {unknown}")
    store = begin("atlas", config) / "atlas.zarr"
    entries = {}
    zarr.open_group(store, mode="a")  # so that the sweeps below are one tree
    for name in names:
        family = FAMILIES[name]
        swept = statsgd.sweep(
            functools.partial(evaluate, name, config.replicas),
            {axis: _thinned(values, config.values) for axis, values in family.axes.items()},
            store=store / name,
            seed=config.seed,
            identity=f"atlas of {name}",  # that other families change does not matter
            executor=None if config.executor == "serial" else config.executor,
            progress=config.progress,
        )
        entries[name] = entry(family, swept["results"].to_dataset())
    listed = {name: listing(tree) for name, tree in entries.items()}
    found = {"overview": overview(atlas_table(listed)), **entries}
    if config.errata:
        effort = Effort(min(max(config.replicas // 4, 100), _ERRATA_REPLICAS), config.seed)
        found["errata"] = errata.run(effort, config.progress)
    results = xr.DataTree.from_dict(found)
    held = {name: _worst(tree.to_dataset()) for name, tree in entries.items()}
    results.attrs = provenance(
        "study",
        title="The atlas: where each stationary law holds",
        question="At which settings is each law within 5 % of the truth, in total variation?",
        finding=f"{sum(value <= HOLDS for value in held.values())} of {len(held)} laws are within "
        f"{100 * HOLDS:g} % everywhere in the domain that they claim."
        + (f" {errata.sentence(found['errata'])}" if config.errata else ""),
        summary=held,
    )
    return results


def evaluate(name: str, replicas: int, cell: Any) -> xr.Dataset:
    """One cell of the atlas: errors of the law with their uncertainty, and both marginals."""
    family = FAMILIES[name]
    numbers = [float(cell[axis]) for axis in family.axes]
    found = dict.fromkeys(_columns(), np.nan)
    shares = {side: np.full(_BINS, np.nan) for side in ("truth", "law")}
    at, status, resolved = np.full(_BINS, np.nan), "compared", False
    try:
        compared: AtlasCell = family.cell(Effort(replicas, cell.seed), *numbers)
    except ImproperLawError:
        status = "improper"
    except DivergedError:
        status = "diverged"
    else:
        truth, law = compared.truth.tabulated(compared.law), compared.law.tabulated(compared.truth)
        errors: Accuracy = accuracy(truth, law, compared.threshold)
        for quantity, error in errors._asdict().items():
            if error is not None:
                found[quantity], found[f"{quantity}_uncertainty"] = error[:2]
        distance = errors.total_variation
        if compared.truth_error > 0:
            error = distance.standard_error + compared.truth_error
            distance = numerical(distance.value, error)
        found["total_variation_uncertainty"] = distance.standard_error
        found["total_variation_upper"], resolved = distance.upper, bool(distance.resolved)
        found["chain_to_sde"] = compared.chain_to_sde
        found["sde_to_law"] = compared.sde_to_law
        at, shares = _shares(truth, law)
    data: dict[str, Any] = dict(found)
    data["status"], data["resolved"] = status, resolved
    data["inside"] = bool(family.valid(*numbers))
    data |= {f"{side}_density": ("bin", values) for side, values in shares.items()}
    return xr.Dataset(data | {"at": ("bin", at)})


def entry(family: Family, cells: xr.Dataset) -> xr.DataTree:
    """The cells of a law with what they are about."""
    tree = xr.DataTree(cells)
    described = {
        field.name: getattr(family, field.name)
        for field in dataclasses.fields(family)
        if field.name not in ("cell", "valid", "axes")
    }
    tree.attrs = provenance("study", **described, axes=list(family.axes))
    return tree


def also(results: xr.DataTree, folder: Path) -> None:
    """The page of each law and of the errata, a gallery of them, and the table for machines."""
    pages = {}
    for name, tree in results.children.items():
        if name in FAMILIES:
            pages[name] = folder / "laws" / name
            statsgd.report(page(name, tree), pages[name] / "report.html", files=True)
    if "errata" in results.children:
        pages["errata"] = folder / "errata"
        told = errata.page(results.children["errata"])
        statsgd.report(told, pages["errata"] / "report.html", files=True)
    gallery(pages, folder / "laws.html", title="The atlas, law by law")
    (folder / "atlas.json").write_text(json.dumps(table(results), indent=1) + "\n")


def page(name: str, tree: xr.DataTree) -> xr.DataTree:
    """The page of a law: its map, its worst cell inside its domain, and where its error is from."""
    cells = tree.to_dataset()
    axes = json.loads(tree.attrs["axes"])
    worst = _worst_cell(cells)
    claim = Claim(
        f"{name} is within {100 * HOLDS:g} % of the truth where it claims to hold",
        LAWS[name].citation,
        [
            Quantity(
                "largest total variation in the domain",
                float(worst["total_variation"]),
                float(worst["total_variation_uncertainty"]),
                HOLDS,
                "<",
            )
        ],
        f"Of {tree.attrs['problem']}; {tree.attrs['coordinate']}. Truth: {tree.attrs['truth']}. "
        f"Domain: {tree.attrs['domain']}. Worst cell: "
        + ", ".join(f"{axis} = {float(worst[axis]):g}" for axis in axes)
        + ".",
        origin="derived",
        data_sets=1,
        unit="runs, or the grid",
    )
    charts: list[Any] = [_map(cells, axes), _marginals(worst)]
    if cells["chain_to_sde"].notnull().any():
        charts.append(_gap(cells, axes[0]))
    columns = [*_columns(), "resolved", "inside", "status"]
    shown = cells[columns].to_dataframe().reset_index()
    result = xr.DataTree.from_dict(
        {
            "claim": claim.to_datatree(*charts),
            "cells": _cells(shown[[*axes, *columns]].dropna(axis=1, how="all")),
        }
    )
    result.attrs = provenance(
        "page", title=name, question=LAWS[name].setting, finding=LAWS[name].exactness
    )
    return result


def table(results: xr.DataTree) -> dict[str, Any]:
    """Everything a program needs to know of the atlas, as plain JSON values."""
    listed = {}
    for name, tree in results.children.items():
        if name in FAMILIES:
            listed[name] = listing(tree)
    if "errata" in results.children:
        listed["errata"] = errata.table(results.children["errata"])
    return listed


def listing(tree: xr.DataTree) -> dict[str, Any]:
    """Of one law: what it is held against, the axes, and all cells in their order."""
    axes = json.loads(tree.attrs["axes"])
    columns = [*_columns(), "resolved", "inside", "status"]
    cells = tree.to_dataset()[columns].to_dataframe().reset_index()
    words = ("problem", "coordinate", "truth", "domain")
    return {word: tree.attrs[word] for word in words} | {
        "axes": {axis: tree.to_dataset()[axis].values.tolist() for axis in axes},
        "cells": json.loads(cells.to_json(orient="records", double_precision=9)),
    }


def _map(cells: xr.Dataset, axes: list[str]) -> Map:
    leading, *others = axes
    other = others[0] if others else None
    shown = [_at_most(cells), cells["resolved"], cells["inside"]]
    if other is None:
        shown, other = [values.expand_dims({"": [""]}) for values in shown], ""
    distance, resolved, inside = (values.transpose(other, leading) for values in shown)
    relation = np.where(resolved.values.astype(bool), "", "< ")
    marks = np.where(inside.values.astype(bool), " •", "")
    told = np.char.add(relation, np.char.mod("%.2g", distance.values))
    told = np.where(np.isfinite(distance), told, "–")
    return Map(
        "Total variation between law and truth (<: not told from zero, bounded at 95 %; •: inside "
        "the claimed domain)",
        leading, str(other), cells[leading].values, distance[other].values,
        distance.values, "total variation", contour=HOLDS, words=np.char.add(told, marks),
    )  # fmt: skip


def _marginals(cell: xr.Dataset) -> Chart:
    truth = Series("truth", cell["at"].values, cell["truth_density"].values, look="steps")
    law = Series("law", cell["at"].values, cell["law_density"].values, look="line")
    distance = Discrepancy(*(cell[name].item() for name in COLUMNS))
    title = f"The worst cell inside the domain: total variation {distance}"
    return Chart(title, "coordinate", "density", (truth, law))


def _gap(cells: xr.Dataset, leading: str) -> Chart:
    """Worst parts of the gap along the leading number."""
    others = [dim for dim in cells["chain_to_sde"].dims if dim != leading]
    at = cells[leading].values
    parts = {
        "finite learning rate": cells["chain_to_sde"].max(others).values,
        "theory": cells["sde_to_law"].max(others).values,
    }
    series = tuple(Series(name, at, values) for name, values in parts.items())
    return Chart("Where the error comes from", leading, "total variation", series, "xy")


def _cells(rows: pd.DataFrame) -> xr.DataTree:
    tree = xr.DataTree.from_dict({"table": xr.Dataset.from_dataframe(rows.rename_axis("row"))})
    tree.attrs = {"kind": "charts", "title": "All cells", "finding": f"{len(rows)} settings."}
    return tree


def _shares(truth: Marginal, law: Marginal) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Densities of truth and law over the middle of both."""
    sides = {"truth": truth, "law": law}
    ends = [_ends(marginal) for marginal in sides.values()]
    edges = np.linspace(min(low for low, _ in ends), max(high for _, high in ends), _BINS + 1)
    densities = {
        side: np.diff(marginal.cdf(edges)) / np.diff(edges) for side, marginal in sides.items()
    }
    return (edges[1:] + edges[:-1]) / 2, densities


def _ends(marginal: Marginal) -> tuple[float, float]:
    mean, _ = marginal.moments()
    reach = 1.4 * marginal.reach(mean)
    return max(mean - reach, marginal.lower), min(mean + reach, marginal.upper)


def _at_most(cells: xr.Dataset) -> xr.DataArray:
    """The total variation, or its upper bound where it is not resolved."""
    resolved = cells["resolved"].astype(bool)
    return cells["total_variation"].where(resolved, cells["total_variation_upper"])


def _worst(cells: xr.Dataset) -> float:
    """The largest total variation inside the domain; NaN where nothing was compared."""
    distance = _at_most(cells).where(cells["inside"].astype(bool))
    known = distance.values[np.isfinite(distance.values)]
    return float(known.max()) if known.size else math.nan


def _worst_cell(cells: xr.Dataset) -> xr.Dataset:
    distance = _at_most(cells)
    if bool(cells["inside"].any()):
        distance = distance.where(cells["inside"].astype(bool))
    place = np.unravel_index(np.nanargmax(distance.values), distance.shape)
    return cells.isel(dict(zip(distance.dims, place, strict=True)))


def _columns() -> list[str]:
    quantities = Accuracy._fields
    uncertain = [f"{quantity}_uncertainty" for quantity in quantities]
    return [*quantities, *uncertain, "total_variation_upper", "chain_to_sde", "sde_to_law"]


def _thinned(values: tuple[float, ...], number: int) -> list[float]:
    """`number` of the values, evenly spread from first to last; all of them for 0."""
    if number == 0 or number >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, number).round().astype(int)]
