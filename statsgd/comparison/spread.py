"""How far endpoints scatter against how far a law says, direction by direction and jointly."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from statsgd.comparison import statistics
from statsgd.comparison.directions import Along
from statsgd.comparison.parts import REPLACED
from statsgd.comparison.rows import LOCATION, SPREAD, along_rows, ratio_of, whole_row
from statsgd.comparison.samples import Clusters
from statsgd.comparison.tails import FOR_VARIANCE, tail_index
from statsgd.comparison.whole import Whole

#: One point in fifty of a law is farther from its median than where tails are compared: far enough
#: out to tell tails, near enough to be known as well as a variance.
TAIL_LEVEL = 0.98

#: Draws of a law, in clusters of another size than the endpoints.
type Draws = Float[Any, "stretch draw k"]


def variance_rows(along: Along, tail: float, heavy: bool) -> pd.DataFrame:
    """Ratio of the variance along each direction to the law's.

    The standard error is from the scatter of squared deviations, and no less than that of draws
    from the law: few endpoints do not show their tails. There is no verdict where tails leave the
    error without meaning: those of a `heavy` law, or of the endpoints.
    """
    law = along.reference
    variance = statistics.cluster_variance(along.measured)
    predicted = np.diagonal(law.covariance)
    ratio = variance.value / predicted
    own = np.divide(
        variance.standard_error, variance.value,
        out=np.full(len(ratio), np.inf), where=variance.value > 0,
    )  # fmt: skip
    error = np.maximum(own, error_of_law(along.measured, along.scattered()))
    error = np.hypot(error, law.errors()[1])
    z = statistics.student_quantile(tail, len(along.measured))
    index = tail_index(along.measured[:, -1])
    return along_rows(
        SPREAD,
        "variance ratio",
        along,
        measured=variance.value,
        predicted=predicted,
        effect=ratio,
        standard_error=ratio * np.where(np.isfinite(error), error, 0.0),
        # The error of a variance is multiplicative: the interval is set on its logarithm.
        low=ratio * np.exp(-z * error),
        high=_times(ratio, np.exp(z * error)),
        centre=1.0,
        reason=[_without_variance(one, heavy) for one in index],
    )


def deviation_rows(
    along: Along, tail: float, part: str, statistic: str, level: float
) -> pd.DataFrame:
    """Ratio of the `level`-quantile of |x − the law's median| to the law's own.

    It needs no moments. The median deviation (`level` ½) is a spread; `TAIL_LEVEL` tells tails.
    """
    median = np.median(along.scattered(), axis=0)
    measured, predicted = (
        statistics.quantile_interval(np.abs(points - median), level, tail)
        for points in (along.measured, along.scattered()[:, None])
    )
    ratio, low, high = ratio_of(measured, predicted)
    below = np.where(low > 0, low, np.nan)
    z = statistics.student_quantile(tail, len(along.measured))
    return along_rows(
        part,
        statistic,
        along,
        measured=measured[0],
        predicted=predicted[0],
        effect=ratio,
        standard_error=ratio * np.log(ratio / below) / z,
        low=low,
        high=high,
        centre=1.0,
    )


def joint_rows(whole: Whole, tail: float) -> pd.DataFrame:
    """Largest and smallest variance ratio over all directions of all variables together.

    Extreme eigenvalues of a sample covariance lie apart even under the law, the more so the more
    directions there are for the endpoints. So the direction is found on one half of the endpoints
    and measured on the other, which is no larger than the largest in truth; and the largest of all
    endpoints is no smaller than theirs along the direction that is largest in truth. The interval
    lies between: it holds for any number of directions. Source: derived.
    """
    first, second = whole.measured[::2], whole.measured[1::2]
    draws = (whole.draws[::2], whole.draws[1::2])
    found = []
    for end, name in ((-1, "largest joint variance ratio"), (0, "smallest joint variance ratio")):
        held_out, low, high = _ratio(second, draws[1], whole, _extreme(first, draws[0], whole, end),
                                     tail)  # fmt: skip
        of_all = _ratio(whole.measured, whole.draws, whole,
                        _extreme(whole.measured, whole.draws, whole, end), tail)  # fmt: skip
        low, high = (low, max(of_all[2], held_out)) if end else (min(of_all[1], held_out), high)
        z = statistics.student_quantile(tail, len(second))
        row = whole_row(
            SPREAD, name, measured=held_out, predicted=1.0, effect=held_out,
            standard_error=(high - low) / (2 * z), low=low, high=high, centre=1.0,
            reason=whole.reason,
        )  # fmt: skip
        found.append(row)
    return pd.concat(found, ignore_index=True)


def off_support_row(whole: Whole, tail: float) -> pd.DataFrame:
    """Root mean square distance of endpoints from where a law without noise there puts them."""
    square = statistics.cluster_mean(np.sum(whole.off_support**2, axis=2, keepdims=True))
    reach = statistics.student_quantile(tail, len(whole.measured)) * square.standard_error
    value, low, high = (
        float(np.sqrt(np.maximum(part[0], 0.0)))
        for part in (square.value, square.value - reach, square.value + reach)
    )
    return whole_row(
        LOCATION, "distance off the support", measured=value, predicted=0.0, effect=value,
        standard_error=(high - low) / 2, low=low, high=high, centre=0.0,
    )  # fmt: skip


def error_of_law(measured: Clusters, draws: Float[Any, "m k"]) -> Float[Any, " k"]:
    """Relative standard error that a variance of as many independent draws of the law has."""
    squared = (draws - draws.mean(axis=0)) ** 2
    level = squared.mean(axis=0)
    spread = np.divide(squared.std(axis=0), level, out=np.zeros_like(level), where=level > 0)
    return spread / np.sqrt(measured.shape[0] * measured.shape[1])


def _ratio(
    measured: Clusters, draws: Draws, whole: Whole, direction: Float[Any, " k"], tail: float
) -> tuple[float, float, float]:
    """Variance of endpoints over the law's along one direction, with its interval."""
    column = direction[:, None]
    variance = statistics.cluster_variance(measured @ column)
    value, own = float(variance.value[0]), float(variance.standard_error[0])
    error = max(own / value if value > 0 else np.inf,
                float(error_of_law(measured, whole.scattered @ column)[0]))  # fmt: skip
    predicted = 1.0
    if not whole.exact:
        stated = statistics.cluster_variance(draws @ column)
        predicted = float(stated.value[0])
        error = float(np.hypot(error, stated.standard_error[0] / predicted))
    ratio = value / predicted
    reach = statistics.student_quantile(tail, len(measured)) * error
    return ratio, ratio * np.exp(-reach), float(_times(ratio, np.exp(reach)))


def _extreme(measured: Clusters, draws: Draws, whole: Whole, end: int) -> Float[Any, " k"]:
    """Direction in which endpoints scatter most, or least, for what the law does."""
    # Against draws whitened by their own covariance where the law states none.
    root = np.eye(measured.shape[2])
    if not whole.exact:
        values, vectors = np.linalg.eigh(_covariance(draws))
        root = vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1]))
    return root @ np.linalg.eigh(root.T @ _covariance(measured) @ root)[1][:, end]


def _covariance(clusters: Draws) -> Float[Any, "k k"]:
    flat = clusters.reshape(-1, clusters.shape[2])
    centred = flat - flat.mean(axis=0)
    return centred.T @ centred / max(len(flat) - 1, 1)


def _times(ratio: Any, factor: Any) -> Any:
    # Nothing is known where nothing scatters: 0·∞.
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(factor), np.inf, ratio * factor)


def _without_variance(index: float, heavy: bool) -> str:
    if heavy:
        return f"tails of the law leave variances without an error: {REPLACED}"
    if index >= FOR_VARIANCE:
        return ""
    return f"tails of the endpoints (index {index:.2g}) leave their variance without an error"
