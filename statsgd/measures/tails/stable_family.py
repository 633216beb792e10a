"""Estimators of α inside the stable family: on anything else they estimate no tail index."""

import functools

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from statsgd.laws.heavy_tails.stable_line import log_density, quantile
from statsgd.precision import in_double_precision

_LEVELS = np.array([0.05, 0.25, 0.75, 0.95])
_RATIO = np.array([[-1.0, 0.0, 0.0, 1.0], [0.0, -1.0, 1.0, 0.0]])
_TABLE = np.linspace(0.3, 2.0, 69)


def block_index(values: Float[np.ndarray, " n"], block: int) -> tuple[float, float]:
    """1/α = (mean ln|Y_i| − mean ln|x_i|)/ln K, Y_i the sum of the i-th block of K values.

    Blocks are independent, so the error is that of a mean over them.
    """
    blocks = values[: len(values) // block * block].reshape(-1, block)
    sums = blocks.sum(axis=1)
    if np.any(blocks == 0) or np.any(sums == 0):
        raise ValueError("samples must differ from their centre, got a value or a sum equal to it")
    inverse = (np.log(np.abs(sums)) - np.log(np.abs(blocks)).mean(axis=1)) / np.log(block)
    mean, error = inverse.mean(), inverse.std(ddof=1) / np.sqrt(len(inverse))
    if not mean > 0:
        return np.inf, np.nan
    return 1 / mean, error / mean**2


def log_moment_index(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """α = (6 Var ln|x|/π² − ½)^(−1/2); infinite where that root is of nothing."""
    logs = np.log(np.abs(values[values != 0]))
    square = (logs - logs.mean()) ** 2
    inverse = 6 * square.mean() / np.pi**2 - 0.5
    if not inverse > 0:
        return np.inf, np.nan
    error = 6 * square.std(ddof=1) / np.sqrt(len(square)) / np.pi**2
    return inverse**-0.5, error / (2 * inverse**1.5)


def quantile_index(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """α from (q.95 − q.05)/(q.75 − q.25), between 0.3 and 2, with the error of the fitted law."""
    table = _standard_quantiles()
    widths = _RATIO @ np.quantile(values, _LEVELS)
    if not widths[1] > 0:
        raise ValueError("samples must differ between their quartiles, got equal ones")
    logs = np.log(_RATIO @ table.T)
    logs = (logs[0] - logs[1])[::-1]  # falling in α
    inverse = CubicSpline(logs, _TABLE[::-1])
    alpha = float(inverse(np.clip(np.log(widths[0] / widths[1]), logs[0], logs[-1])))
    places = CubicSpline(_TABLE, table)(alpha)
    density = np.exp(in_double_precision(log_density, places, np.float64(alpha)))
    joint = np.minimum.outer(_LEVELS, _LEVELS) - np.outer(_LEVELS, _LEVELS)
    joint = joint / np.outer(density, density) / len(values)
    unit = _RATIO @ places
    slope = _RATIO[0] / unit[0] - _RATIO[1] / unit[1]
    error = np.sqrt(slope @ joint @ slope)
    return alpha, float(error * abs(inverse(np.log(unit[0] / unit[1]), 1)))


@functools.cache
def _standard_quantiles() -> Float[np.ndarray, "table 4"]:
    """Those of unit scale at `_LEVELS`, over `_TABLE`."""
    return quantile(_LEVELS, _TABLE[:, None])
