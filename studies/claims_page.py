"""The page of claims: a part to every study, from its last full run."""

import re
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from statsgd.display import percent
from studies.tables import markdown

#: The part of a study on the page, and in it what was counted.
_PART = re.compile(r"<!-- claims (\w+) -->\n(.*?)\n<!-- /claims \1 -->", flags=re.DOTALL)
_COUNTED = re.compile(r"^\*\*(.+?)\*\*: (.+?)\.$", flags=re.MULTILINE)
#: Whose claims a table holds. The last: parts from runs of code that did not tell.
THEIRS, OURS, NOT_TOLD = "What the literature says", "What is ours", "Not told apart"
_FIRST = "As it was first put: "


def claims_page(page: str, reports: Mapping[str, dict]) -> str:
    """What stands between the marks `claims` of `page`, anew.

    Studies in `reports`, the summaries of full runs by name, get a new part; every other keeps the
    part that it has on the page.
    """
    parts = dict(_PART.findall(page))
    for name, found in reports.items():
        if any(_forms(found)):
            parts[name] = study_part(found)
    sections = [
        f"## {name}\n\n<!-- claims {name} -->\n{part}\n<!-- /claims {name} -->"
        for name, part in sorted(parts.items())
    ]
    return "\n\n".join([markdown(_counts(parts)), *sections])


def study_part(found: dict) -> str:
    """The claims of one study: those of the literature, and those that are ours."""
    table = claims(found)
    theirs = table["whose"] == "the source's"
    told = [f"*{_plain(found['title'])}*"]
    if theirs.any():
        told.append(_counted(THEIRS, table[theirs]))
        told.append(markdown(table[theirs].drop(columns="whose")))
    if not theirs.all():
        told.append(_counted(OURS, table[~theirs]))
        told.append(markdown(table[~theirs]))
    return "\n\n".join(told)


def claims(found: dict) -> pd.DataFrame:
    """One row a claim of a study, and one for its first form where it was changed.

    Statement, verdict, the quantity that decides it with its difference, whose claim it is, source
    and place, and what it rests on.
    """
    columns = ["claim", "verdict", "measured (predicted)", "whose", "source", "rests on"]
    return pd.DataFrame([_row(*form) for form in _forms(found)], columns=columns)


def _forms(found: dict) -> Iterator[tuple[dict, str]]:
    """Every claim of a study, followed by its first form."""
    for told in found["numbers"].values():
        if isinstance(told, dict) and "origin" in told:
            yield told, ""
            if "first_form" in told:
                yield told["first_form"], _FIRST


def _row(told: dict, prefix: str) -> tuple[str, ...]:
    source = told["source"] + (f" ({told['place']})" if told["place"] else "")
    number = told["data_sets"]
    sets = {0: "a given loss", 1: "1 data set"}.get(number, f"{number} data sets")
    return (
        _plain(prefix + told["statement"].rstrip(".")),
        told["verdict"],
        _plain(_deciding_quantity(told)),
        "the source's" if told["origin"] == "source" else f"ours: {told['origin']}",
        _plain(source),
        f"{sets}; {told['unit']}",
    )


def _deciding_quantity(told: dict) -> str:
    quantities, verdict = told["quantities"], told["verdict"]
    # Any quantity that fails fails the claim; where all hold, the first stands for them.
    first = next(iter(quantities))
    name = next((name for name, row in quantities.items() if row["verdict"] == verdict), first)
    row = quantities[name]
    error = f" ± {row['standard_error']:.2g}" if row["standard_error"] else ""
    relation = "" if row["relation"] == "=" else f"{row['relation']} "
    found = f"{name}: {row['measured']:.4g}{error} ({relation}{row['predicted']:.4g})"
    if row["relation"] == "=" and row["difference_percent"] is not None:
        off, low, high = (percent(row[f"{name}_percent"]) for name in ("difference", "low", "high"))
        found += f", off by {off} % ({low} to {high})"
    return found


def _counted(whose: str, table: pd.DataFrame) -> str:
    """How many of the claims in `table` hold; first forms are not counted again."""
    return f"**{whose}**: {_holding(table.loc[~table['claim'].str.startswith(_FIRST), 'verdict'])}."


def _holding(verdicts: Sequence[str]) -> str:
    holding = sum(verdict.startswith("holds") for verdict in verdicts)
    undecided = sum(verdict == "undecided" for verdict in verdicts)
    told = f"{holding} of {len(verdicts)} hold"
    return f"{told}, {undecided} undecided" if undecided else told


def _counts(parts: Mapping[str, str]) -> pd.DataFrame:
    """One row a study: how many claims of the literature, and of ours, hold."""
    rows = []
    for name, part in sorted(parts.items()):
        counted = dict(_COUNTED.findall(part))
        columns = [counted.get(whose, "–") for whose in (THEIRS, OURS)]
        if NOT_TOLD in counted:
            columns = [f"{counted[NOT_TOLD]} (ours among them)", "–"]
        rows.append((f"[{name}](#{name})", *columns))
    return pd.DataFrame(rows, columns=["study", "claims of the literature", "ours"])


def _plain(text: str) -> str:
    """Text in which nothing is read as Markdown, on the site nor elsewhere."""
    return re.sub(r"([\\|*_\[\]])", r"\\\1", text).replace("<", "&lt;")
