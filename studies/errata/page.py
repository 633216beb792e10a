"""All errata of a run: as one tree, as a page, and as a table for machines."""

import json
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from statsgd.progress import silent
from studies.atlas_families.family import Effort
from studies.errata.erratum import ERRATA
from studies.findings import findings


def run(effort: Effort, progress: bool = True) -> xr.DataTree:
    """Every erratum with its table, its chart, and its verdict in the attributes."""
    parts = {}
    for name, erratum in tqdm(ERRATA.items(), desc="errata", disable=silent(progress)):
        shown = erratum.show(effort)
        parts[name] = shown.claim.to_datatree(shown.chart)
        # Not a claim that the study makes: pages of claims leave it out.
        del parts[name].attrs["kind"]
        parts[name].attrs["disagreement"] = shown.disagreement
    return xr.DataTree.from_dict(parts)


def sentence(errata: xr.DataTree) -> str:
    """How many printed formulas the truth rejects."""
    verdicts = [part.attrs["verdict"] for part in errata.children.values()]
    return (
        f"{verdicts.count('does not hold')} of {len(verdicts)} printed formulas that the theory "
        "corrects do not hold."
    )


def page(errata: xr.DataTree) -> xr.DataTree:
    """The printed formulas as claims, each with its chart."""
    parts = {name: part.copy() for name, part in errata.children.items()}
    for part in parts.values():
        part.attrs["kind"] = "claim"
    results = findings(
        "Errata as figures",
        "Where do a published formula and the truth disagree, and what is right?",
        parts,
    )
    results.attrs["finding"] = (
        f"{sentence(errata)} Each chart shows the formula as printed, as corrected, and the truth."
    )
    return results


def table(errata: xr.DataTree) -> dict[str, Any]:
    """Source, printed statement, verdict and numbers of each, as plain JSON values."""
    listed = {}
    for name, part in errata.children.items():
        rows = part["table"].to_dataset().to_dataframe()
        listed[name] = {
            "source": part.attrs["source"],
            "printed": part.attrs["statement"],
            "verdict": part.attrs["verdict"],
            "why": part.attrs["why"],
            "numbers": json.loads(rows.to_json(orient="records", double_precision=6)),
        }
    return listed
