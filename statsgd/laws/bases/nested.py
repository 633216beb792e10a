"""Integrals on the line, and integrals of integrals, of functions given by their logarithms."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.laws.bases.cells import (
    GROUPS,
    LENGTHS,
    RUNNING,
    WEIGHTS,
    Cells,
    at_pieces,
    refined,
)
from statsgd.laws.law import IntractableError, require_accurate

type LogFunction = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]

_FIRST, _MOST = 512, 8192  # cells
_GRADES = 50
_LARGEST = np.log(np.finfo(float).max)
_RESOLVED = 1e-12  # share of a cell's error in the integral


class LogIntegral(NamedTuple):
    """The logarithm of a positive integral, and its relative error."""

    value: float
    error: float

    def number(self, name: str, further_error: float = 0.0) -> float:
        """The integral itself, as the quantity `name`, off by `further_error` on top.

        Warns with `UnresolvedWarning` where it is off by more than a thousandth, and raises
        `IntractableError` where by more than a tenth, and where it overflows.
        """
        require_accurate(name, self.error + further_error)
        if self.value > _LARGEST:
            raise IntractableError(f"the {name} overflows: its logarithm is {self.value:.6g}")
        return float(np.exp(self.value))


def log_integral(
    log_function: LogFunction, low: float, high: float, breaks: Sequence[float] = ()
) -> LogIntegral:
    """log ∫ e^f from `low` to `high`; the grid starts fine about both and about `breaks`."""
    return log_nested_integral(log_function, _nothing, low, high, breaks)


def log_nested_integral(
    log_outer: LogFunction,
    log_inner: LogFunction,
    low: float,
    high: float,
    breaks: Sequence[float] = (),
) -> LogIntegral:
    """log ∫ e^f(y) (∫_low^y e^g(z) dz) dy from `low` to `high`, f and g NumPy functions.

    Cells are split until the integral has twelve digits, or 8192 are used. The dynamic range is
    that of the logarithms: barriers of thousands of temperatures do not overflow.
    """
    plain = log_inner is _nothing
    reach = (high - low) * 2.0 ** -np.arange(_GRADES)
    about = [place + side * reach for place in (low, high, *breaks) for side in (-1, 1)]
    ends = np.concatenate([np.linspace(low, high, _FIRST), *about, np.asarray(breaks, float)])
    ends = np.unique(ends[(ends >= low) & (ends <= high)])
    of = partial(_masses, log_outer, log_inner)
    cells = refined(
        of(ends[:-1], ends[1:]),
        of,
        lambda cells: _shares(cells, plain)[1] - _RESOLVED,
        _MOST,
    )
    value, errors = _shares(cells, plain)
    return LogIntegral(float(value), float(np.sum(errors)))


def _nothing(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The logarithm of an inner function that plays no part."""
    return np.zeros_like(x)


class _Masses(Cells):
    """Integrals over cells, in units of e^scale, and what the number of pieces changes in them."""

    scale: Float[np.ndarray, "n 3"]
    outer: Float[np.ndarray, "n 2"]
    inner: Float[np.ndarray, "n 2"]
    nested: Float[np.ndarray, "n 2"]


def _masses(log_outer: LogFunction, log_inner: LogFunction, start: Any, end: Any) -> _Masses:
    f, f_scale = _scaled(at_pieces(log_outer, start, end))
    g, g_scale = _scaled(at_pieces(log_inner, start, end))
    outer, inner = f @ WEIGHTS * LENGTHS, g @ WEIGHTS * LENGTHS
    nested = (f * (g @ RUNNING.T)) @ WEIGHTS * LENGTHS**2
    sums = [[part[:, group].sum(axis=1) for group in GROUPS] for part in (outer, inner)]
    # Between pieces: all of an earlier one lies below all of a later one.
    between = [
        nested[:, group].sum(axis=1)
        + np.sum(outer[:, group] * (np.cumsum(inner[:, group], axis=1) - inner[:, group]), axis=1)
        for group in GROUPS
    ]
    size = np.log(end - start)
    scales = np.stack([f_scale + size, g_scale + size, f_scale + g_scale + 2 * size], axis=1)
    return _Masses(start, end, scales, *[_with_change(part) for part in (*sums, between)])


def _scaled(logs: Float[np.ndarray, "n 6 m"]) -> tuple[Any, Any]:
    logs = np.where(np.isnan(logs), -np.inf, logs)
    top = np.max(logs, axis=(1, 2))
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(under="ignore"):
        return np.exp(logs - top[:, None, None]), top


def _with_change(sums: Sequence[Any]) -> Any:
    whole, halves, thirds = sums
    change = np.maximum(np.abs(thirds - halves), np.abs(thirds - whole))
    return np.stack([np.maximum(thirds, 0), change], axis=1)


def _shares(cells: _Masses, plain: bool) -> tuple[Any, Any]:
    """The logarithm of the integral, and the relative error that every cell brings into it."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        outer, inner, nested = (
            np.log(part) + cells.scale[:, [index]]
            for index, part in enumerate((cells.outer, cells.inner, cells.nested))
        )
        if plain:
            total = np.logaddexp.reduce(outer[:, 0])
            return total, np.nan_to_num(np.exp(outer[:, 1] - total), nan=1.0)
        nothing = np.array([-np.inf])
        below = np.logaddexp.accumulate(np.concatenate([nothing, inner[:-1, 0]]))
        above = np.logaddexp.accumulate(np.concatenate([nothing, outer[:0:-1, 0]]))[::-1]
        total = np.logaddexp.reduce(np.logaddexp(outer[:, 0] + below, nested[:, 0]))
        parts = (outer[:, 1] + below, inner[:, 1] + above, nested[:, 1])
        return total, np.nan_to_num(sum(np.exp(part - total) for part in parts), nan=1.0)
