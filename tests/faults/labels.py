"""Reports whose every label is hostile: all of it is text of the page, and none of it is markup."""

import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import xarray as xr
from hypothesis import strategies as st

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Map, Series
from tests.faults.fuzz import explored
from tests.faults.tally import Tally, judged

_PARTS = [
    "<script>faults()</script>", '"><faults onload=faults()>', "'><faults>", "</title><faults>",
    "<!--", "-->", "&lt;faults&gt;", "&amp", "{{ 7 * 7 }}", "{% for %}", "]]>",
    "javascript:faults()", "$x_", "$", "$\\frac{1}$", "\\alpha", "^", "_", "_hidden", "%s", "{0}",
    "\x00", "\x1b[31m", "\n", "\t", "\u202e", "é", "漢字", "🙂", " ", "θ", "a" * 300, "./..",
    "\ud800", "",
]  # fmt: skip
LABELS = st.lists(st.sampled_from(_PARTS), min_size=1, max_size=3).map("".join)
_KINDS = ("title", "finding", "statement", "source", "why", "quantity", "series", "axis", "unit",
          "node", "attribute", "chart")  # fmt: skip
CASES = st.fixed_dictionaries(dict.fromkeys(_KINDS, LABELS))


def labels(folder: Path, trials: int, seed: int) -> Tally:
    """Write `trials` reports."""
    return explored(CASES, lambda case: _judge(folder, case), trials, seed)


def tree_of(case: dict[str, str]) -> xr.DataTree:
    """Results in which every label is one of the case."""
    x, y = np.arange(3.0), np.array([1.0, 2.0, 4.0])
    series = (Series(case["series"], x, y, 0.1 * y), Series(case["axis"], x, y, look="line"))
    names = (case["unit"], case["series"], case["quantity"])
    chart = Chart(case["chart"], case["axis"], case["unit"], series, names=names)
    words = [[case["unit"], case["series"]]]
    cells = Map(case["title"], case["axis"], case["unit"], [1, 2], [case["quantity"]],
                [[1.0, 2.0]], case["unit"], words=words)  # fmt: skip
    claim = Claim(
        case["statement"],
        case["source"],
        [Quantity(case["quantity"], 1.0, 0.1, 2.0, "<")],
        case["why"],
    )
    tree = xr.DataTree.from_dict(
        {case["node"].replace("/", "") or "node": claim.to_datatree(chart, cells)}
    )
    tree.attrs = {"title": case["title"], "finding": case["finding"], case["attribute"]: "<faults>"}
    return tree


def _judge(folder: Path, case: dict[str, str]) -> Tally:
    def write() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return statsgd.report(tree_of(case), folder / "report.html").read_text()

    def is_right(page: str) -> bool:
        found = Page(page)
        shown = [case[name] for name in ("title", "statement", "source", "quantity", "why")]
        return not found.hostile and all(_plain(label) in _plain(found.text) for label in shown)

    return judged(repr(case), write, is_right)


class Page(HTMLParser):
    """The text of a page, and whatever of the labels became markup."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.hostile = "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        bad = [name for name, _ in attrs if name.startswith("on")]
        if tag in ("script", "faults") or bad:
            self.hostile.append(tag)

    def handle_comment(self, data: str) -> None:
        self.hostile.append(data)

    def handle_data(self, data: str) -> None:
        self.text += data


def _plain(text: str) -> str:
    """Without what pages do not keep: spaces, control characters and halves of others."""
    text = text.encode(errors="replace").decode()
    return "".join("".join(c for c in text if c.isprintable()).split())
