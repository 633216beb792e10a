"""One page over several reports: every verdict, its figure, and the way there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statsgd.reports.report import page_template, write_whole


def gallery(
    folders: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    title: str = "Gallery",
    failed: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Path:
    """Write the page over reports that `report(…, files=True)` left in `folders`, by name.

    Each report is listed with its question, its sections that pass a judgement, their first figure
    and a link. Links are relative: the page must stay beside the folders.

    **Arguments:** `failed` names what could not be run, with its error, and is shown as such;
    `seconds` says, by name, how long each took, and is shown in a table with its total.
    Raises `ValueError` for a folder without `summary.json`, and where there is nothing to show.

    >>> from statsgd.reports import report
    >>> from statsgd.estimate import Estimate
    >>> page = report({"width": Estimate(1.5, 0.1)}, "one/report.html", files=True)
    >>> gallery({"one": "one"}, "index.html").name
    'index.html'
    """
    target = Path(path)
    problems = dict(failed or {})
    if not folders and not problems:
        raise ValueError("folders must name at least one report, got none")
    studies = [_entry(name, Path(folder), target.parent) for name, folder in folders.items()]
    verdicts = [claim["verdict"] for study in studies for claim in study["claims"]]
    page = page_template("gallery.html").render(
        title=title,
        studies=studies,
        failed=problems,
        seconds=dict(seconds or {}),
        claims=len(verdicts),
        holding=sum(verdict.startswith(("holds", "agrees")) for verdict in verdicts),
        undecided=verdicts.count("undecided"),
    )
    write_whole(target, page)
    return target


def judged(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sections of a report's `summary.json` that pass a judgement.

    >>> judged({"sections": [{"title": "a", "verdict": "holds"}, {"title": "b", "verdict": None}]})
    [{'title': 'a', 'verdict': 'holds'}]
    """
    return [section for section in summary["sections"] if section["verdict"]]


def _entry(name: str, folder: Path, beside: Path) -> dict[str, Any]:
    record = folder / "summary.json"
    if not record.is_file():
        raise ValueError(
            f"folders must hold reports written with files=True, got {str(folder)!r} for {name!r}, "
            "which has no summary.json"
        )
    summary = json.loads(record.read_text(encoding="utf-8"))
    where = Path(os.path.relpath(folder, beside)).as_posix()
    claims = [
        {
            "title": section["title"],
            "verdict": section["verdict"],
            "link": f"{where}/report.html#{section['name']}",
        }
        for section in judged(summary)
    ]
    return {
        "name": name,
        "title": summary["title"],
        "question": summary["question"],
        "link": f"{where}/report.html",
        "claims": claims,
        "figures": [
            {
                "title": section["title"],
                "link": f"{where}/report.html#{section['name']}",
                "file": f"{where}/{section['figures'][0]}",
            }
            for section in _drawn(summary)
        ],
    }


def _drawn(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The judged sections that have figures, or, where none has, the first section with any."""
    drawn = [section for section in judged(summary) if section["figures"]]
    return drawn or [section for section in summary["sections"] if section["figures"]][:1]
