"""Are the comparisons calibrated? Every test and interval, tried where the truth is known.

Two-sample tests and the Stein test see points that do follow the law, and must reject in 5 % of the
repeats; then points with a planted error, and the share of rejections is their power. Verdicts of
`compare` are tried on laws of every kind that are right, or wrong by just the margin, and intervals
must cover the truth as they say.
"""

import dataclasses
import os
from typing import Self

import numpy as np
import pandas as pd
import xarray as xr
from scipy.signal import lfilter

import statsgd
from statsgd.arguments import count
from statsgd.comparison import (
    CALIBRATED_TESTS,
    Claim,
    Quantity,
    calibrate,
    normal_setting,
    wells_setting,
)
from statsgd.laws import HeavyBallGaussian
from statsgd.reports import Chart, Map, Series
from studies.findings import findings
from studies.verdicts.claims import claims


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    repeats: int = 10_000
    """Repeats under the null, for every test."""
    points: int = 40
    """Points of a repeat."""
    references: int = 53
    """Reference points of a repeat; unequal numbers leave fewer ties."""
    power_repeats: int = 400
    """Repeats with a planted error, for every test and number of points."""
    power_points: tuple[int, ...] = (100, 200, 400)
    """Numbers of points at which power is tabulated."""
    margin: float = 0.2
    """Relative error of the rate that is allowed: [4 %, 6 %] at a level of 5 %."""
    coverage_repeats: int = 1000
    """Comparisons whose intervals are checked."""
    replicas: int = 400
    """Endpoints of each of them."""
    correlation: float = 0.9
    """Correlation of successive draws of the chains."""
    verdict_repeats: int = 60
    """Comparisons in every cell of laws and sizes; a tenth of that above 20 dimensions, and ten
    times as many single intervals."""
    largest: int = 200_000
    """Cells with more endpoints times dimensions than this are left out."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "calibration")
    """Folder for the report."""
    progress: bool = True
    """Say what is being done."""

    @classmethod
    def quick(cls) -> Self:
        """Settings that take two minutes, and allow for the noise of fewer repeats."""
        return cls(
            repeats=200, power_repeats=40, power_points=(40, 80), margin=1.0,
            coverage_repeats=20, verdict_repeats=6, largest=1000,
        )  # fmt: skip


def run(config: Config) -> xr.DataTree:
    """Rejection rates, power and coverage, as claims of our own."""
    if config.progress:
        print("rates of rejection where nothing is wrong")
    null = calibrate(
        CALIBRATED_TESTS, [normal_setting("null")], repeats=config.repeats, points=config.points,
        references=config.references, seed=config.seed,
    )  # fmt: skip
    parts = {"size": size(null, config)}
    if config.progress:
        print("power against planted errors")
    settings = (
        normal_setting("variance 10 % too large", 1.1),
        wells_setting("5 % of the weight moved between wells", 0.05),
    )
    tables = [
        calibrate(
            CALIBRATED_TESTS, settings, repeats=config.power_repeats, points=points,
            seed=config.seed + 1,
        )
        for points in config.power_points
    ]  # fmt: skip
    parts["power"] = power(pd.concat(tables, ignore_index=True), config)
    if config.progress:
        print("coverage of intervals")
    parts["coverage"] = coverage(config)
    if config.progress:
        print("verdicts where the truth is known")
    parts |= claims(
        count("verdict_repeats", config.verdict_repeats, at_least=2),
        count("largest", config.largest),
        config.seed,
    )
    return findings(
        "Are the comparisons calibrated?",
        "How often do tests reject a law that is right, how often one that is wrong, and how often "
        "do intervals cover the truth?",
        parts,
    )


def size(null: pd.DataFrame, config: Config) -> xr.DataTree:
    """The claim that tests reject in 5 % of the repeats."""
    quantities = [
        Quantity(
            f"rate of {_said(row['test'])}", row["rate"], row["standard_error"], row["level"],
            margin=config.margin,
        )
        for _, row in null.iterrows()
    ]  # fmt: skip
    claim = Claim(
        "A test at level 5 % rejects a law that is right in 4 % to 6 % of the cases"
        if config.margin == Config.margin
        else f"A test at level 5 % rejects a right law in 5 % of the cases, ±{config.margin:.0%}",
        "derived: permutation and wild-bootstrap tests",
        quantities,
        f"Standard normal points in the plane, {config.points} against {config.references}, "
        f"{config.repeats} repeats.",
        origin="derived",
        data_sets=0,
        unit="repeats",
    )
    place = np.arange(len(null), dtype=float)
    rates = Series(
        "", place, 100 * null["rate"].to_numpy(), 100 * null["standard_error"].to_numpy()
    )
    chart = Chart(
        "Rejections where nothing is wrong",
        "test",
        "rejected (%)",
        (rates,),
        level=5.0,
        names=tuple(_said(name) for name in null["test"]),
    )
    return claim.to_datatree(chart)


def power(table: pd.DataFrame, config: Config) -> xr.DataTree:
    """How often errors are caught, by test and number of points."""
    maps = []
    for setting, rows in table.groupby("setting", sort=False):
        wide = rows.pivot(index="test", columns="points", values="rate")
        maps.append(
            Map(
                f"Rejected (%): {setting}",
                "points on either side",
                "test",
                wide.columns.to_numpy(),
                [_said(name) for name in wide.index],
                100 * wide.to_numpy(),
                "rejected (%)",
            )
        )
    largest = table[table["points"] == max(config.power_points)]
    groups = {"power": xr.Dataset.from_dataframe(table.rename_axis("row"))}
    tree = xr.DataTree.from_dict(
        groups | {f"chart_{i}": chart.to_datatree() for i, chart in enumerate(maps)}
    )
    best = largest.loc[largest.groupby("setting")["rate"].idxmax()]
    told = "; ".join(
        f"{row['setting']}: {_said(row['test'])} sees it in {100 * row['rate']:.0f} ± "
        f"{100 * row['standard_error']:.0f} % of the cases with {row['points']} points"
        for _, row in best.iterrows()
    )
    tree.attrs = {
        "kind": "charts",
        "title": "Power against planted errors",
        "finding": f"{told}.",
    }
    return tree


def coverage(config: Config) -> xr.DataTree:
    """The claim that the intervals of a comparison hold together as they say."""
    law = HeavyBallGaussian([[2.0, 0.0], [0.0, 0.5]], np.eye(2), 0.1)
    root = np.linalg.cholesky(law.covariance())
    rng = np.random.default_rng(config.seed)
    held: dict[str, list[bool]] = {"exact law": [], "correlated chains": []}
    for repeat in range(config.coverage_repeats):
        points = rng.normal(size=(config.replicas, 2)) @ root.T
        endpoints = _tree("endpoints", points, ("replica", "parameter"))
        draws = _tree("posterior", _chains(rng, config) @ root.T, ("chain", "draw", "parameter"))
        for name, other in (("exact law", law), ("correlated chains", draws)):
            table = statsgd.compare(endpoints, other, seed=repeat, coordinates=False).table
            covered = (table["low"] <= table["centre"]) & (table["high"] >= table["centre"])
            held[name].append(bool(covered.all()))
    rates = {}
    for name, covered in held.items():
        rate = float(np.mean(covered))
        rates[name] = rate, float(np.sqrt(max(rate * (1 - rate), 1 / len(covered)) / len(covered)))

    def stated(relation: str, margin: float = 0.0) -> list[Quantity]:
        return [
            Quantity(f"intervals hold together, {name}", *one, 0.95, relation, margin)
            for name, one in rates.items()
        ]

    source = (
        "derived: Bonferroni over Student intervals on independent clusters, bounds of McDiarmid"
    )
    first_form = Claim(
        "Intervals at 95 % hold together in 95 % of the comparisons", source,
        stated("=", config.margin / 4), origin="derived", data_sets=0, unit="repeats",
    )  # fmt: skip
    claim = Claim(
        "Intervals at 95 % hold together in more than 95 % of the comparisons",
        source,
        stated(">"),
        f"{config.replicas} exact endpoints of a Gaussian law in the plane, against the law itself "
        f"and against four chains of 1000 draws with correlation {config.correlation:g} from one "
        f"to the next; {config.coverage_repeats} repeats. Since the claim was first put, there are "
        "bounds of the whole, which hold for any number of directions: they make intervals too "
        "wide for equality.",
        origin="derived",
        data_sets=0,
        unit="repeats",
        first_form=first_form,
    )
    return claim.to_datatree()


def _chains(rng: np.random.Generator, config: Config) -> np.ndarray:
    """Stationary autoregressive chains of standard normal draws."""
    kicks = rng.normal(size=(4, 1000, 2)) * np.sqrt(1 - config.correlation**2)
    kicks[:, 0] /= np.sqrt(1 - config.correlation**2)
    return lfilter([1.0], [1.0, -config.correlation], kicks, axis=1)


def _tree(group: str, values: np.ndarray, dims: tuple[str, ...]) -> xr.DataTree:
    return xr.DataTree.from_dict({group: xr.Dataset({"params": (dims, values)})})


def _said(test: str) -> str:
    return test.replace("_", " ")
