"""One self-contained HTML file from a data tree of results."""

import base64
import datetime
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from statsgd.reports.sections import sections

_LONG_TABLE = 12  # rows above which a table is folded away


def report(results: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write `results` as one HTML file that needs nothing else, and return its path.

    Every node whose `attrs["kind"]` is known (`ensemble`, `draws`, `comparison`, `modes`, …)
    becomes a section; verdicts come first. The root's attributes `title`, `question` and `finding`
    head the page, and the rest of them is listed as provenance. Text is escaped.

    Raises `ValueError` if there is nothing to report or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"path must be a file to write, got the folder {str(target)!r}")
    parts = list(sections(results))
    if not parts:
        raise ValueError("results must hold at least one node of a known kind, got none")
    environment = Environment(
        loader=PackageLoader("statsgd.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    page = environment.get_template("report.html").render(
        title=results.attrs.get("title", "statsgd report"),
        question=results.attrs.get("question", ""),
        finding=results.attrs.get("finding", ""),
        verdicts=[part for part in parts if part.verdict],
        sections=[(part, _table(part.table)) for part in parts],
        provenance=_provenance(results),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and moved into place: an interrupted run leaves no half report.
    partial = target.with_name(target.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


def _table(table: pd.DataFrame | None) -> dict[str, Any] | None:
    if table is None:
        return None
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return {"columns": list(table.columns), "rows": rows, "folded": len(rows) > _LONG_TABLE}


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _provenance(results: xr.DataTree) -> list[tuple[str, str]]:
    shown = {"title", "question", "finding", "kind"}
    rows = {str(key): value for key, value in results.attrs.items() if key not in shown}
    config = rows.pop("config", None)
    listed = [(key, str(value)) for key, value in rows.items()]
    if config is not None:
        listed += [(f"config: {key}", str(value)) for key, value in json.loads(config).items()]
    return listed
