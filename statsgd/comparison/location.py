"""Where endpoints lie against where a law says: mean shifts, and medians where means mislead."""

import numpy as np
import pandas as pd

from statsgd.comparison import statistics
from statsgd.comparison.directions import Along
from statsgd.comparison.rows import LOCATION, along_rows
from statsgd.comparison.tails import FOR_MEAN, tail_index

#: Median of |x| of a standard normal law, which makes a deviation comparable to a standard one.
NORMAL_QUARTILE = 0.6744897501960817


def location_rows(along: Along, tail: float, heavy: bool) -> pd.DataFrame:
    """Shift of the mean along each direction, in the law's standard deviations.

    Of a `heavy` law that of the median, in median deviations made comparable. The mean of endpoints
    whose own tails leave it without an error gets no verdict.
    """
    if heavy:
        return _median_shifts(along, tail)
    mean = statistics.cluster_mean(along.measured)
    law = along.reference
    error = np.hypot(mean.standard_error, law.errors()[0])
    sd = np.sqrt(np.diagonal(law.covariance))
    shift, reach = (
        (mean.value - law.mean) / sd,
        statistics.student_quantile(tail, len(along.measured)),
    )
    index = tail_index(along.measured[:, -1])
    return along_rows(
        LOCATION,
        "mean shift",
        along,
        measured=mean.value,
        predicted=law.mean,
        effect=shift,
        standard_error=error / sd,
        low=shift - reach * error / sd,
        high=shift + reach * error / sd,
        centre=0.0,
        reason=[_without_mean(one) for one in index],
    )


def _median_shifts(along: Along, tail: float) -> pd.DataFrame:
    value, low, high = statistics.quantile_interval(along.measured, 0.5, tail)
    stated, lower, higher = statistics.quantile_interval(along.scattered()[:, None], 0.5, tail)
    deviation = np.median(np.abs(along.scattered() - stated), axis=0) / NORMAL_QUARTILE
    shift = (value - stated) / deviation
    down = np.hypot(value - low, higher - stated) / deviation
    up = np.hypot(high - value, stated - lower) / deviation
    reach = statistics.student_quantile(tail, len(along.measured))
    return along_rows(
        LOCATION,
        "median shift",
        along,
        measured=value,
        predicted=stated,
        effect=shift,
        standard_error=(down + up) / (2 * reach),
        low=shift - down,
        high=shift + up,
        centre=0.0,
    )


def _without_mean(index: float) -> str:
    if index >= FOR_MEAN:
        return ""
    return f"tails of the endpoints (index {index:.2g}) leave their mean without an error"
