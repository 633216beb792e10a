"""How far a law is from the truth along one coordinate: distances and errors with uncertainty."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from statsgd.arguments import finite_array, positive
from statsgd.estimate import Estimate
from statsgd.laws import IntractableError, Law
from statsgd.laws.grids.grid import Grid, total_variation

_CELLS = 800  # between exact marginals
_COUNTED = 40  # where points are counted
_TAIL = 0.99  # share of the law within the tail quantile
_BOOTSTRAPS = 200
_NOTHING = 1e-9  # probability that is practically none
# Probabilities between whose quantiles a law is smooth, far out in its tails as well.
_TAILS = np.geomspace(_NOTHING, 1 / (4 * _CELLS), 60)
_LEVELS = np.concatenate([_TAILS, np.arange(2, 4 * _CELLS - 1) / (4 * _CELLS), 1 - _TAILS[::-1]])


@dataclasses.dataclass(frozen=True)
class Marginal:
    """The law of one number, by its distribution function, or points from it.

    `cdf` maps `(n,)` values to probabilities; `points` are independent draws, and then `cdf` is
    their empirical distribution function.
    """

    cdf: Callable[[Float[Any, " n"]], Float[Any, " n"]]
    lower: float
    """Practically nothing lies below."""
    upper: float
    points: Float[Any, " n"] | None = None

    @classmethod
    def of_normal(cls, mean: float, variance: float) -> Self:
        """A normal law."""
        spread = float(np.sqrt(positive("variance", variance)))
        centre = float(mean)
        reach = 9 * spread
        return cls(
            lambda x: ndtr((np.asarray(x) - centre) / spread), centre - reach, centre + reach
        )

    @classmethod
    def of_points(cls, points: Float[Any, " n"]) -> Self:
        """The law that independent `points` come from; raises `ValueError` for none."""
        ordered = np.sort(np.asarray(finite_array("points", points, ndim=1), dtype=np.float64))
        if ordered.size < 2:
            raise ValueError(f"points must be at least 2, got {ordered.size}")
        reach = 1e-9 + 1e-9 * np.abs(ordered[[0, -1]])
        return cls(
            lambda x: np.searchsorted(ordered, x, side="right") / ordered.size,
            float(ordered[0] - reach[0]),
            float(ordered[-1] + reach[1]),
            ordered,
        )

    @classmethod
    def of_law(cls, law: Law, axis: int = 0, grid: Grid | None = None) -> Self:
        """A coordinate of a law that knows its distribution function and quantiles.

        With a `grid` over one parameter its masses are spread evenly over each cell, as those of a
        law on that grid are, so that the two can be compared to less than a cell; a law that knows
        only its density is integrated over the cells. Raises `IntractableError` for any other law.
        """

        def at(x: Float[Any, " n"]) -> Float[Any, "n d"]:
            return np.stack([x if i == axis else 0 * x for i in range(law.dimension)], axis=-1)

        def below(x: Float[Any, " n"]) -> Float[Any, " n"]:
            return np.asarray(law.cdf(at(x)))[:, axis]

        cells = grid if law.dimension == 1 else None
        try:
            low, high = np.asarray(law.quantile([_NOTHING, 1 - _NOTHING]))[:, axis]
            below(low[None])
        except IntractableError:
            if cells is None:
                raise
            cumulative = np.concatenate([[0.0], np.cumsum(law.cell_masses(cells))])
            edges = cells.edges()
            return cls(lambda x: np.interp(x, edges, cumulative), float(edges[0]), float(edges[-1]))
        if cells is None:
            return cls(below, float(low), float(high))
        edges = cells.edges()
        at_edges = below(edges)

        def spread(x: Float[Any, " n"]) -> Float[Any, " n"]:
            inside = (x >= edges[0]) & (x <= edges[-1])
            return np.where(inside, np.interp(x, edges, at_edges), below(x))

        return cls(spread, float(low), float(high))

    @functools.cached_property
    def places(self) -> Float[Any, " n"]:
        """Quantiles, dense enough that the law is smooth between them, also in its tails."""
        if self.points is not None:
            ranks = np.linspace(0, 1, self.points.size)
            return np.interp(_LEVELS, ranks, np.sort(self.points, kind="stable"))
        low, high = np.full(_LEVELS.shape, self.lower), np.full(_LEVELS.shape, self.upper)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle) < _LEVELS
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def moments(self) -> tuple[float, float]:
        """Mean and variance."""
        if self.points is not None:
            return float(self.points.mean()), float(self.points.var(ddof=1))
        even = np.linspace(self.lower, self.upper, 20 * _CELLS + 1)
        edges = np.sort(np.concatenate([even, self.places]))
        masses = np.diff(self.cdf(edges))
        centres = (edges[1:] + edges[:-1]) / 2
        mean = float(masses @ centres / masses.sum())
        return mean, float(masses @ (centres - mean) ** 2 / masses.sum())

    def reach(self, centre: float) -> float:
        """The distance from `centre` within which a share of 99 % lies."""
        if self.points is not None:
            return float(np.quantile(np.abs(self.points - centre), _TAIL))
        low, high = 0.0, max(self.upper - centre, centre - self.lower)
        for _ in range(60):
            middle = (low + high) / 2
            within = self.cdf(np.array([centre - middle, centre + middle]))
            low, high = (low, middle) if within[1] - within[0] >= _TAIL else (middle, high)
        return (low + high) / 2


class Accuracy(NamedTuple):
    """How far a law is from the truth.

    Errors are standard errors where points are involved, the change on halving the cells elsewhere.
    """

    total_variation: Estimate
    """Between 0 and 1. With points, what chance alone gives on average is subtracted."""
    mean: Estimate
    """Law minus truth, in standard deviations of the truth."""
    variance: Estimate
    """Law over truth, minus 1."""
    tail: Estimate
    """Distance from the true mean within which 99 % of the law lies, over the truth's, minus 1."""
    basin: Estimate | None
    """P(x < threshold) of the law minus that of the truth, where there is a threshold."""


def accuracy(truth: Marginal, law: Marginal, threshold: float | None = None) -> Accuracy:
    """Hold the marginal of a law against the true one.

    Between exact marginals everything is computed on 800 cells; where one of the two is known by
    points, total variation is taken over 40 cells and all errors are standard errors by bootstrap.

    **Arguments:** `threshold`, the border between two basins.
    """
    counted = truth.points is not None or law.points is not None
    if not counted:
        fine = _errors(truth, law, threshold, _CELLS)
        coarse = _errors(truth, law, threshold, _CELLS // 2)
        found = [
            Estimate(value, abs(value - other)) for value, other in zip(fine, coarse, strict=True)
        ]
    else:
        found = _bootstrapped(truth, law, threshold)
    distance, mean, variance, tail, basin = found
    return Accuracy(distance, mean, variance, tail, None if threshold is None else basin)


def _errors(
    truth: Marginal, law: Marginal, threshold: float | None, cells: int
) -> tuple[float, ...]:
    mean, variance = truth.moments()
    law_mean, law_variance = law.moments()
    edges = _edges(truth, law, cells)
    distance = total_variation(np.diff(truth.cdf(edges)), np.diff(law.cdf(edges)))
    at = np.array([0.0 if threshold is None else threshold])
    return (
        distance,
        (law_mean - mean) / np.sqrt(variance),
        law_variance / variance - 1,
        law.reach(mean) / truth.reach(mean) - 1,
        float((law.cdf(at) - truth.cdf(at))[0]),
    )


def _bootstrapped(truth: Marginal, law: Marginal, threshold: float | None) -> list[Estimate]:
    """Errors with standard errors; the bias of total variation is estimated and removed."""
    rng = np.random.default_rng(0)
    truth, law = _tabulated(truth, law), _tabulated(law, truth)
    value = np.array(_errors(truth, law, threshold, _COUNTED))
    again = np.array(
        [
            _errors(_resampled(truth, rng), _resampled(law, rng), threshold, _COUNTED)
            for _ in range(_BOOTSTRAPS)
        ]
    )
    spread = again.std(axis=0, ddof=1)
    edges = _edges(truth, law, _COUNTED)
    masses = [np.diff(marginal.cdf(edges)) for marginal in (truth, law)]
    numbers = [np.inf if m.points is None else m.points.size for m in (truth, law)]
    # Mean of |p̂ − q̂| for equal laws: each cell is about normal with variance p(1 − p)/n.
    pooled = sum(masses) / 2
    cell = np.sqrt(pooled * (1 - pooled) * sum(1 / n for n in numbers))
    chance = 0.5 * float(np.sum(cell)) * np.sqrt(2 / np.pi)
    # Where the laws differ by far more than chance, chance adds in quadrature and not as it is.
    value[0] = np.sqrt(max(value[0] ** 2 - chance**2, 0.0))
    spread[0] = max(spread[0], chance / np.sqrt(_COUNTED))
    return [Estimate(float(v), float(s)) for v, s in zip(value, spread, strict=True)]


def _tabulated(marginal: Marginal, other: Marginal) -> Marginal:
    """With a distribution function that is quick to ask for, where it is not one of points."""
    if marginal.points is not None:
        return marginal
    even = np.linspace(marginal.lower, marginal.upper, 20 * _CELLS + 1)
    at = np.sort(np.concatenate([even, marginal.places, other.places]))
    levels = marginal.cdf(at)
    return Marginal(lambda x: np.interp(x, at, levels), marginal.lower, marginal.upper)


def _resampled(marginal: Marginal, rng: np.random.Generator) -> Marginal:
    if marginal.points is None:
        return marginal
    return Marginal.of_points(rng.choice(marginal.points, marginal.points.size))


def _edges(truth: Marginal, law: Marginal, cells: int) -> Float[Any, " edges"]:
    """Cells of about equal mass under the truth and the law together, the outermost unbounded."""
    low, high = min(truth.lower, law.lower), max(truth.upper, law.upper)
    # Where mass is: an even grid would miss everything if a few points lie far off.
    fine = np.sort(np.concatenate([truth.places, law.places]))
    together = (truth.cdf(fine) + law.cdf(fine)) / 2
    inner = np.interp(np.arange(1, cells) / cells, together, fine)
    return np.concatenate([[low - (high - low)], inner, [high + (high - low)]])
