"""Shapes of distributions: total variation and tails along directions, and over all slices."""

import numpy as np
import pandas as pd

from statsgd.comparison.directions import Along
from statsgd.comparison.effects import Sides, TotalVariation
from statsgd.comparison.rows import SHAPE, along_rows, whole_row
from statsgd.comparison.spread import TAIL_LEVEL, deviation_rows
from statsgd.comparison.whole import Whole

#: Random directions that the sliced distance is a mean over.
SLICES = 32


def shape_rows(along: Along, tail: float) -> pd.DataFrame:
    """Total variation, and the ratio of tails, along each direction.

    Total variation sees modes and skewness in cells of about equal mass (`TotalVariation` says how
    its interval holds); the tail ratio sees what is far out. A Student law of 5 degrees of freedom
    against a normal one of its variance: 0.05, and 1.12.
    """
    sides = Sides(along.measured, along.scattered()[:, None], along.law)
    found = TotalVariation().rows(sides, tail)
    columns = [name for name in found if name not in ("statistic", "index")]
    variation = along_rows(
        SHAPE, "total variation", along, **{name: found[name].to_numpy() for name in columns}
    )
    tails = deviation_rows(along, tail, SHAPE, "tail ratio", TAIL_LEVEL)
    return pd.concat([variation, tails], ignore_index=True)


def sliced_row(whole: Whole, tail: float, seed: int) -> pd.DataFrame:
    """Mean total variation over random directions of all variables, whitened by the law.

    As each of n points moves every slice by 1/n at most, the mean has the bounds of one slice.
    """
    normal = np.random.default_rng(seed).normal(size=(whole.measured.shape[2], SLICES))
    directions = normal / np.linalg.norm(normal, axis=0)
    sides = Sides(whole.measured @ directions, (whole.scattered @ directions)[:, None], None)
    bound = TotalVariation()
    mean = float(bound.rows(sides, tail)["measured"].mean())
    below, above = bound.reach(len(whole.measured), len(whole.scattered), tail)
    return whole_row(
        SHAPE, "sliced total variation", measured=mean, predicted=0.0, effect=mean,
        standard_error=below - above, low=max(mean - below, 0.0), high=min(mean + above, 1.0),
        centre=0.0,
    )  # fmt: skip
