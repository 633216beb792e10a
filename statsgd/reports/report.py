"""One self-contained HTML file from a data tree of results."""

import base64
import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from statsgd.arguments import instance
from statsgd.reports.panels import DARK, LIGHT, encodable
from statsgd.reports.results import as_tree, gathered
from statsgd.reports.sections import Section, sections

_LONG_TABLE = 12  # rows above which a table is folded away
#: Attributes that a page tells in other places than its provenance.
_SHOWN = frozenset(
    {"title", "question", "finding", "kind", "summary", "sentence", "verdict", "statement", "notes"}
    | {"written", "what", "exactness", "source", "alt"}
)


def report(results: Any, path: str | os.PathLike[str], *, files: bool = False) -> Path:
    """Write `results` as one HTML file that needs nothing else, and return its path.

    `results` is anything that the library returns: a `Comparison`, a measure, an `Estimate`, a
    data tree, a dataset, a table, a law; or a mapping or sequence of these, by whose names the
    sections are found. Of a data tree every node whose `attrs["kind"]` is known (`ensemble`,
    `draws`, `comparison`, `claim`, …) becomes a section; verdicts come first. The root's attributes
    `title`, `question` and `finding` head the page, and the rest of them, with those of the parts,
    is listed as provenance. Text is escaped.

    >>> from statsgd.estimate import Estimate
    >>> report({"width": Estimate(1.5, 0.1)}, "report.html").name
    'report.html'

    With `files`, the figures are also written as PNG files to the folder `figures` beside it, for
    dark pages with names in `-dark.png`, and what the page says, with all numbers of its tables, as
    `summary.json`.

    Raises `ValueError` if there is nothing to report or `path` is a folder.
    """
    call = "report(results, path)"
    target = Path(instance("path", path, (str, os.PathLike), "a file to write", call=call))
    if target.is_dir():
        raise ValueError(f"path must be a file to write, got the folder {str(target)!r}")
    if results is None or isinstance(results, str):
        said = "results must be something that statsgd returns"
        raise ValueError(f"{said}, got {results!r}; the arguments are {call}")
    results = as_tree(results)
    parts = [(_slug(where), section) for where, section in sections(results)]
    if not parts:
        raise ValueError("results must hold at least one node of a known kind, got none")
    page = page_template("report.html").render(
        title=results.attrs.get("title", "statsgd report"),
        question=results.attrs.get("question", ""),
        finding=results.attrs.get("finding", ""),
        symbols=symbols(results.attrs.get("finding", ""), *(part for _, part in parts)),
        verdicts=[(slug, part) for slug, part in parts if part.verdict],
        sections=[(slug, part, _drawn(part), table_rows(part.table)) for slug, part in parts],
        provenance=gathered(results, _SHOWN),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_whole(target, page)
    if files:
        names = _write_figures(parts, target.parent)
        summary = _summary(results, parts, names)
        write_whole(target.with_name("summary.json"), json.dumps(summary, indent=2) + "\n")
    return target


#: What the letters of formulas mean, on every page that uses them.
SYMBOLS = {
    "η": "learning rate",
    "β": "momentum",
    "λ": "weight decay, or a curvature where it is a mode's",
    "θ": "parameters",
    "τ": "temperature",
    "ηh": "learning rate times curvature",
    "Tr H": "trace of the Hessian",
}


def symbols(*texts: Any) -> str:
    """What the symbols mean that stand in these texts and sections; empty without any."""
    said = " ".join(str(part[:2]) if isinstance(part, Section) else str(part) for part in texts)
    used = [f"{letter}, {words}" for letter, words in SYMBOLS.items() if letter in said]
    return "; ".join(used)


def page_template(name: str) -> Template:
    """A template of this package that escapes what it prints and knows images."""
    environment = Environment(
        loader=PackageLoader("statsgd.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.get_template(name)


def write_whole(target: Path, text: str) -> None:
    """Write `text` aside and move it into place: an interrupted run leaves no half file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(encodable(text), encoding="utf-8")
    partial.replace(target)


def _slug(where: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-") or "results"


def _drawn(section: Section) -> list[dict[str, Any]]:
    return [
        {
            "panels": [(panel.png(LIGHT), panel.png(DARK)) for panel in figure.panels],
            "caption": figure.caption,
            "alt": figure.alt,
        }
        for figure in section.figures
    ]


def _write_figures(parts: list[tuple[str, Section]], folder: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for slug, section in parts:
        panels = [panel for figure in section.figures for panel in figure.panels]
        names[slug] = [f"figures/{slug}-{index}.png" for index in range(len(panels))]
        for name, panel in zip(names[slug], panels, strict=True):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(panel.png(LIGHT))
            (folder / name.replace(".png", "-dark.png")).write_bytes(panel.png(DARK))
    return names


def _summary(
    results: xr.DataTree, parts: list[tuple[str, Section]], figures: dict[str, list[str]]
) -> dict[str, Any]:
    """What the page says, as plain JSON values."""
    head = {name: results.attrs.get(name, "") for name in ("title", "question", "finding")}
    listed = [
        {
            "name": slug,
            "title": part.title,
            "verdict": part.verdict,
            "finding": part.finding,
            "source": part.source,
            "figures": figures[slug],
            "table": [] if part.table is None else json.loads(part.table.to_json(orient="records")),
        }
        for slug, part in parts
    ]
    numbers = json.loads(results.attrs.get("summary", "{}"))
    return {
        **head,
        "numbers": numbers,
        "sections": listed,
        "provenance": dict(gathered(results, _SHOWN)),
    }


def table_rows(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """A table as words, with its columns, and whether it is long.

    A verdict stands beside what it is on, where narrow screens show it too.
    """
    if table is None:
        return None
    if "verdict" in table.columns:
        first = "statistic" if "statistic" in table.columns else table.columns[0]
        others = [column for column in table.columns if column not in (first, "verdict")]
        table = table[[first, "verdict", *others]]
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return {"columns": list(table.columns), "rows": rows, "folded": len(rows) > _LONG_TABLE}


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
