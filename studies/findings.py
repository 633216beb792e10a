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
    """
    results = xr.DataTree.from_dict(dict(parts))
    claims = {name: part for name, part in parts.items() if part.attrs.get("kind") == "claim"}
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
    return {
        "statement": part.attrs["statement"],
        "verdict": part.attrs["verdict"],
        "quantities": json.loads(table.set_index("quantity").to_json(orient="index")),
    }
