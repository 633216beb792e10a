"""Shares of wells: where a law has several, how endpoints are shared out between them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from statsgd.comparison.basin_shares import shares, wilson_interval
from statsgd.comparison.directions import Along
from statsgd.comparison.rows import WELLS
from statsgd.comparison.samples import Clusters
from statsgd.estimate import Estimate

#: A valley parts two wells where it holds less than this of what the lower peak beside it does.
_DEPTH = 0.6
#: Standard errors by which it must do so, and the least share of a well.
_SURE, _LEAST = 5.0, 0.02
_BINS = 60


def ridges(points: Float[Any, " m"]) -> Float[Any, " wells_less_one"]:
    """Where a sample along a line falls apart into wells: at valleys between clear peaks.

    Peaks and valleys of a histogram, of which only those remain that differ by more than chance.
    """
    low, high = np.quantile(points, [0.001, 0.999])
    bins = int(np.clip(len(points) ** (1 / 3) * 2, 8, _BINS))
    if not high > low:
        return np.zeros(0)
    counts, edges = np.histogram(points, np.linspace(low, high, bins + 1))
    return _split(counts, edges, 0, bins, len(points))


def _split(counts: Any, edges: Any, start: int, end: int, number: int) -> Float[Any, " ridges"]:
    """Ridges between bins `start` and `end`, the deepest first."""
    best, place = 0.0, -1
    for i in range(start + 1, end - 1):
        if min(counts[start:i].sum(), counts[i:end].sum()) < _LEAST * number:
            continue
        beside = min(counts[start:i].max(), counts[i + 1 : end].max())
        gap = beside - counts[i]
        sure = gap > _SURE * np.sqrt(beside + counts[i] + 1) and counts[i] < _DEPTH * beside
        if sure and gap > best:
            best, place = gap, i
    if place < 0:
        return np.zeros(0)
    ridge = (edges[place] + edges[place + 1]) / 2
    return np.concatenate(
        [
            _split(counts, edges, start, place + 1, number),
            [ridge],
            _split(counts, edges, place, end, number),
        ]
    )


class Split(NamedTuple):
    """Wells of a law along one direction."""

    along: Along
    direction: int
    ridges: Float[Any, " wells_less_one"]

    @property
    def wells(self) -> int:
        """How many there are."""
        return len(self.ridges) + 1


def most_wells(views: Sequence[Along]) -> Split | None:
    """The direction along which a law falls apart into most wells; None if it has but one."""
    found = [
        Split(along, direction, ridges(points))
        for along in views
        for direction, points in enumerate(along.scattered().T)
    ]
    best = max(found, key=lambda split: split.wells, default=None)
    return best if best is not None and best.wells > 1 else None


def share_rows_along(split: Split, tail: float) -> pd.DataFrame:
    """Shares of the wells along one direction, less those of the law."""
    along, direction, between = split
    basins = len(between) + 1
    seen = shares(np.searchsorted(between, along.measured[:, :, direction]), basins)
    if along.law is not None:
        edges = np.tile(np.median(along.scattered(), axis=0), (len(between), 1))
        edges[:, direction] = between
        below = np.asarray(along.law.cdf(edges))[:, direction]
        stated = Estimate(np.diff(below, prepend=0.0, append=1.0), np.zeros(basins))
    else:
        stated = shares(np.searchsorted(between, along.scattered()[:, None, direction]), basins)
    kind = f"{along.direction} {along.index[direction]}"
    return _rows(seen, stated, along.measured, tail, along.variable, kind)


def share_rows_at(
    wells: Float[Any, "wells d"],
    measured: Clusters,
    scattered: Float[Any, "m d"],
    tail: float,
) -> pd.DataFrame:
    """Shares of the points that are nearest to each well, less the law's.

    Distances are in median deviations of the law's draws. A well that neither side has visited
    leaves the comparison of shares without a verdict.
    """
    if wells.shape[1] != scattered.shape[1]:
        raise ValueError(f"wells must have shape (k, {scattered.shape[1]}), got {wells.shape}")
    deviation = np.median(np.abs(scattered - np.median(scattered, axis=0)), axis=0)
    unit = np.where(deviation > 0, deviation, 1.0)
    seen, stated = (
        shares(_nearest(points, wells, unit), len(wells))
        for points in (measured, scattered[:, None])
    )
    rows = _rows(seen, stated, measured, tail, "params", "nearest well")
    missed = int(np.sum((seen.value == 0) & (stated.value == 0)))
    if missed:
        rows["reason"] = f"neither side has visited {missed} of {len(wells)} wells"
    return rows


def _rows(
    seen: Estimate, stated: Estimate, measured: Clusters, tail: float, variable: str, kind: str
) -> pd.DataFrame:
    low, high = wilson_interval(seen, stated, measured, tail)
    return pd.DataFrame(
        {
            "part": WELLS,
            "statistic": "well share",
            "variable": variable,
            "direction": kind,
            "index": np.arange(len(seen.value)),
            "reason": "",
            "measured": seen.value,
            "predicted": stated.value,
            "effect": seen.value - stated.value,
            "standard_error": np.hypot(seen.standard_error, stated.standard_error),
            "low": low - stated.value,
            "high": high - stated.value,
            "centre": 0.0,
        }
    )


def _nearest(
    points: Clusters, wells: Float[Any, "wells d"], unit: Float[Any, " d"]
) -> Int[Any, "n t"]:
    scaled, centres = points / unit, wells / unit
    # |x − w|² less |x|², which all wells share.
    return np.argmin(np.sum(centres**2, axis=1) - 2 * scaled @ centres.T, axis=-1)
