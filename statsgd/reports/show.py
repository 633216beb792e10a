"""Sections of a report inside a notebook."""

import base64
from typing import Any

from statsgd.reports.panels import Panel, together
from statsgd.reports.report import page_template, table_rows
from statsgd.reports.results import as_tree
from statsgd.reports.sections import sections


class Fragment:
    """HTML that a notebook displays, and plain text elsewhere."""

    def __init__(self, html: str, text: str):
        self._html, self._text = html, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


def show(results: Any, *names: str, tables: bool = False) -> Fragment:
    """The sections of `results`, or of its children `names` alone, for a notebook.

    `results` is anything that `report` takes.

    Title, verdict, finding and figures, and with `tables` the numbers. Raises `ValueError` for
    names that are no children of `results`, and where there is nothing to show.

    >>> from statsgd.estimate import Estimate
    >>> show(Estimate(1.5, 0.1))
    results: 1.5 ± 0.1.
    """
    results = as_tree(results)
    missing = [name for name in names if name not in results.children]
    if missing:
        raise ValueError(f"names must be among {sorted(results.children)}, got {missing}")
    nodes = [results.children[name] for name in names] or [results]
    parts = [section for node in nodes for _, section in sections(node)]
    if not parts:
        raise ValueError("results must hold at least one node of a known kind, got none")
    drawn = []
    for part in parts:
        images = [
            (base64.b64encode(panel.png()).decode("ascii"), figure.alt)
            for figure in part.figures
            for panel in figure.panels
        ]
        drawn.append((part, images, table_rows(part.table) if tables else None))
    text = "\n\n".join(
        f"{part.title}: {part.verdict}\n{part.finding}" if part.verdict else part.finding
        for part in parts
    )
    return Fragment(page_template("fragment.html").render(sections=drawn), text)


def figure(results: Any) -> Any:
    """All figures of `results`, anything that `report` takes, as one Matplotlib figure.

    Raises `ValueError` where there is nothing to draw.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> points = np.random.default_rng(0).normal(size=(4000, 1))
    >>> len(figure(statsgd.compare(points, law, seed=0)).axes) > 0
    True
    """
    panels: list[Panel] = [
        panel
        for _, section in sections(as_tree(results))
        for drawn in section.figures
        for panel in drawn.panels
    ]
    if not panels:
        raise ValueError("results must hold something to draw, got none")
    return together(panels)
