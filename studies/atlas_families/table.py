"""What the package stores of the atlas, law by law, and the picture of all of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from statsgd.estimate import Discrepancy
from statsgd.laws.atlas import cells_of
from statsgd.reports import Map

#: Total variation up to which a law holds, and up to which it holds roughly.
HOLDS, ROUGHLY = 0.05, 0.2
_REGIMES = ("low", "mid", "high")
#: Where cells keep what the package stores of them, a `Discrepancy`.
COLUMNS = ("total_variation", "total_variation_uncertainty", "total_variation_upper", "resolved")


def atlas_table(atlas: Mapping[str, dict]) -> dict:
    """What `statsgd.laws.atlas.expected_error` reads, from the cells of every law.

    Of each law the `problem`, the `axes`, and over them the fields of `Discrepancy`; None where
    there was nothing to compare.
    """
    return {name: _entry(law) for name, law in atlas.items() if name != "errata"}


def _entry(law: dict) -> dict:
    # Cells are listed in the order of the axes, the last one running fastest.
    shape = [len(values) for values in law["axes"].values()]
    stored = {}
    for name, column in zip(Discrepancy._fields, COLUMNS, strict=True):
        values = [
            None if cell["total_variation"] is None else _rounded(cell[column])
            for cell in law["cells"]
        ]
        stored[name] = np.array(values, dtype=object).reshape(shape).tolist()
    return {"problem": law["problem"], "axes": law["axes"]} | stored


def _rounded(value: Any) -> Any:
    return value if isinstance(value, bool) else float(f"{value:.3g}")


def overview(table: Mapping[str, dict]) -> xr.DataTree:
    """Laws by regimes of their leading number: the worst total variation, and a word for it."""
    values = np.full((len(table), len(_REGIMES)), np.nan)
    words = np.full(values.shape, "n/a", dtype=object)
    rows = []
    for i, (name, law) in enumerate(table.items()):
        leading, *_ = law["axes"]
        rows.append(f"{name} ({leading})")
        thirds = np.array_split(cells_of(law), len(_REGIMES))
        for j, third in enumerate(thirds):
            cells = [
                cell for cell in map(Discrepancy._make, third.reshape(-1, 4)) if cell.at_most > 0
            ]
            if cells:
                worst = max(cells, key=lambda cell: cell.at_most)
                values[i, j] = np.log10(worst.at_most)
                words[i, j] = f"{_word(worst.at_most)}\n{_short(worst)}"
    diagram = Map(
        "Where laws hold: worst total variation, in %",
        "leading number (in brackets)",
        "",
        list(_REGIMES),
        rows,
        values,
        "log₁₀ of total variation, or of its bound",
        words=words,
    )
    tree = xr.DataTree.from_dict({"chart_0": diagram.to_datatree()})
    tree.attrs = {
        "kind": "charts",
        "title": "All laws",
        "finding": f"Each law in thirds of the range of its leading number. It holds where the "
        f"total variation between it and the truth is at most {HOLDS:g} in the worst cell; up to "
        f"{ROUGHLY:g} it holds within 20 %. Below the word the distance with its error, if that is "
        "not below the last digit; < is a bound at 95 % where it is not told from zero.",
    }
    return tree


def _word(distance: float) -> str:
    """What a total variation says of a law."""
    if distance <= HOLDS:
        return "holds"
    return "≤ 20 %" if distance <= ROUGHLY else "fails"


def _short(distance: Discrepancy) -> str:
    """In per cent, for a cell that is narrow."""
    told = str(distance).removesuffix(" %").replace("below", "<")
    return told.removeprefix("0").replace(" ± 0", "±").replace(" ± ", "±")
