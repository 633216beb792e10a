"""What every study of claims returns: one tree with the claims, and what was found in sentences."""

import json
from collections.abc import Mapping
from typing import Any

import xarray as xr

from statsgd.provenance import provenance


def findings(title: str, question: str, parts: Mapping[str, xr.DataTree]) -> xr.DataTree:
    """The results of a study from its parts, for `statsgd.report`.

    **Arguments:** `title` and `question` head the page; `parts` by name: trees of claims
    (`Claim.to_datatree`), which the summary counts and lists with their quantities, and any other
    trees that a report can show.

    Raises `ValueError` for claims that do not say whose they are and what they rest on
    (`Claim.missing`).
    """
    results = xr.DataTree.from_dict(dict(parts))
    claims = {name: part for name, part in parts.items() if part.attrs.get("kind") == "claim"}
    for name, part in claims.items():
        if part.attrs["missing"]:
            raise ValueError(f"claim {name!r} must say its {part.attrs['missing']}")
    verdicts = [part.attrs["verdict"] for part in claims.values()]
    holding = sum(verdict.startswith("holds") for verdict in verdicts)
    sentences = [f"{holding} of {len(claims)} claims hold."]
    sentences += [
        f"{part.attrs['statement'].rstrip('.')}: {part.attrs['verdict']}."
        for part in claims.values()
        if not part.attrs["verdict"].startswith("holds")
    ]
    results.attrs = provenance(
        "study",
        title=title,
        question=question,
        finding="\n".join(sentences),
        summary={name: _numbers(part) for name, part in claims.items()},
    )
    return results


def _numbers(part: xr.DataTree) -> dict[str, Any]:
    table = part["table"].to_dataset().to_dataframe()
    said = ("statement", "verdict", "source", "origin", "place", "data_sets", "unit")
    numbers = {name: part.attrs[name] for name in said}
    numbers["quantities"] = json.loads(table.set_index("quantity").to_json(orient="index"))
    if "first_form" in part.children:
        numbers["first_form"] = _numbers(part.children["first_form"])
    return numbers


def diagnosis_parts(tree: xr.DataTree, name: str, where: str) -> dict[str, xr.DataTree]:
    """The parts of a diagnosis as parts of a study, each with its verdict in its finding.

    The head of a study counts claims alone. `name` begins the parts' names, `where` ends their
    titles.
    """
    parts = {}
    for key, part in tree.children.items():
        verdict, shown = part.attrs["verdict"], part.copy()
        said = f"{verdict[:1].upper()}{verdict[1:]}. " if verdict else ""
        title = f"{part.attrs['title']} ({where})"
        words = {"title": title, "verdict": "", "finding": said + part.attrs["finding"]}
        shown.attrs = part.attrs | words
        parts[f"{name}: diagnosis, {key}"] = shown
    return parts
