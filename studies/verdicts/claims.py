"""What is claimed of verdicts: how rarely they are wrong, and how intervals cover."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Series
from studies.verdicts.cells import CELLS, COVERED, DOMAIN, WRONG, Cell, tried

#: Of the table of all cells.
CELLS_TITLE = "Verdicts where the truth is known"
#: Share of wrong verdicts that is allowed, and of the truth that intervals must hold.
ALLOWED, NOMINAL, BAND = 0.05, 0.95, 0.02
#: Laws whose intervals along a direction are claimed to cover, by part; and the least endpoints.
CLAIMED = {
    "location": DOMAIN,
    "spread": ("normal", "Student, ν = 2.5", "Student, ν = 3", "half without noise",
               "correlated to 0.95"),
}  # fmt: skip
LEAST = 200


def claims(
    repeats: int, largest: int, seed: int, cells: Sequence[Cell] = CELLS,
    wrong: Sequence[Cell] = WRONG,
) -> Mapping[str, xr.DataTree]:  # fmt: skip
    """The claims and the table of all cells with at most `largest` numbers in their endpoints."""
    right = tried([one for one in cells if one.endpoints * one.dimension <= largest], repeats, seed)
    off = tried([one for one in wrong if one.endpoints * one.dimension <= largest], repeats, seed)
    parts = {"wrong differences": rarely_differs(right).to_datatree(refusals(right))}
    if len(off):
        parts["wrong agreement"] = rarely_agrees(off).to_datatree()
    for part in CLAIMED:
        parts[f"coverage of {part}"] = covers(right, part).to_datatree()
    parts["verdicts, cell by cell"] = cell_by_cell(pd.concat([right, off], ignore_index=True))
    return parts


def rarely_differs(table: pd.DataFrame) -> Claim:
    """Wrong "differs", over all sizes of a law."""
    # All chains are one kind, and all runs, and all Student laws.
    kind = table["law"].str.replace(r"(,| of).*", "", regex=True)
    sums = table.groupby(kind, sort=False)[["differs", "repeats"]].sum()
    worst = table.loc[(table["differs"] / table["repeats"]).idxmax()]
    return Claim(
        "Of comparisons with a law that is right, at most 5 % say that it differs by more than "
        "10 %",
        "derived",
        [
            _rate(f"says 'differs': {law}", row["differs"], row["repeats"])
            for law, row in sums.iterrows()
        ],
        "Exact draws (runs and chains where so named), over all numbers of endpoints and "
        f"dimensions. In the worst cell, {worst['law']}, n = {worst['endpoints']}, d = "
        f"{worst['dimension']}, {worst['differs']} of {worst['repeats']} did.",
        origin="derived",
        data_sets=0,
        unit="comparisons",
    )


def rarely_agrees(table: pd.DataFrame) -> Claim:
    """Wrong "agrees", where the law is off by the margin."""
    return Claim(
        "Of comparisons with a law that is off by just the margin of 10 %, at most 5 % say that it "
        "agrees",
        "derived",
        [
            _rate(f"says 'agrees': {row['law']}", row["agrees"], row["repeats"])
            for _, row in table.iterrows()
        ],
        f"{table['endpoints'].max()} endpoints each: enough to say 'agrees' of a right law.",
        origin="derived",
        data_sets=0,
        unit="comparisons",
    )


def covers(table: pd.DataFrame, part: str) -> Claim:
    """Coverage of intervals along a direction, in the stated domain."""
    inside = table[table["law"].isin(CLAIMED[part]) & (table["endpoints"] >= LEAST)]
    inside = inside[inside[part].notna()]
    quantities = []
    for law, rows in inside.groupby("law", sort=False):
        weights = rows["repeats"] / rows["repeats"].sum()
        share = float(np.sum(weights * rows[part]))
        error = float(np.sqrt(np.sum((weights * rows[f"{part}_error"].fillna(0)) ** 2)))
        name = f"intervals that hold the truth: {law}"
        # All of few may hold: an error cannot fall below that of one more.
        error = max(error, 0.5 / float(rows["repeats"].sum()))
        quantities.append(Quantity(name, share, error, NOMINAL, "=", BAND / NOMINAL))
    return Claim(
        f"Of intervals of {part} at 95 %, 93 % to 97 % hold the truth from {LEAST} endpoints on",
        "derived",
        quantities,
        "Along single coordinates, each on its own; over all sizes of a law from that on. Means "
        "and variances, but medians and median deviations where tails are heavy.",
        origin="derived",
        data_sets=0,
        unit="comparisons",
    )


def cell_by_cell(table: pd.DataFrame) -> xr.DataTree:
    """Rates in every cell."""
    shown = table[["law", "endpoints", "dimension", "repeats"]].copy()
    for word in ("differs", "agrees", "refused"):
        shown[f"{word} (%)"] = 100 * table[word] / table["repeats"]
    for part in COVERED:
        shown[f"coverage, {part} (%)"] = (100 * table[part]).round(1)
    tree = xr.DataTree.from_dict({"table": xr.Dataset.from_dataframe(shown.rename_axis("row"))})
    tree.attrs = {
        "kind": "charts",
        "title": CELLS_TITLE,
        "finding": (
            f"{int(table['repeats'].sum())} comparisons. 'Differs' is wrong but in the last rows, "
            "where 'agrees' is; refused are those that name a reason why they cannot decide. Of "
            "coverage, blank is where no interval is given."
        ),
    }
    return tree


def refusals(table: pd.DataFrame) -> Chart:
    """Share of refusals against the number of endpoints, law by law."""
    series = []
    for law, rows in table.groupby("law", sort=False):
        share = rows["refused"].to_numpy() / rows["repeats"].to_numpy()
        series.append(Series(str(law), rows["endpoints"].to_numpy(float), 100 * share))
    return Chart("Comparisons that name a reason why they cannot decide", "endpoints",
                 "refused (%)", tuple(series), log="x")  # fmt: skip


def _rate(name: str, events: float, repeats: float) -> Quantity:
    # One more of each kind, so that the error is never zero.
    smoothed = (events + 1) / (repeats + 2)
    error = float(np.sqrt(smoothed * (1 - smoothed) / repeats))
    return Quantity(name, events / repeats, error, ALLOWED, "<")
