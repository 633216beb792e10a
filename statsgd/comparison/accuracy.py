"""How far a law is from the truth along one coordinate: distances and errors with uncertainty."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import ndtr

from statsgd.arguments import finite_array, instance, positive
from statsgd.estimate import Discrepancy, Estimate
from statsgd.laws import IntractableError, Law
from statsgd.laws.grids.grid import Grid, total_variation

_CELLS = 800  # between exact marginals
_COUNTED = 20  # where points are counted
_TAIL = 0.99  # share of the law within the tail quantile
_BOOTSTRAPS = 100
_BOUNDED, _RESOLVED = 1.645, 2.326  # normal quantiles at 95 % and 99 %
_NOTHING = 1e-9  # probability that is practically none
# Probabilities between whose quantiles a law is smooth, far out in its tails as well.
_TAILS = np.geomspace(_NOTHING, 1 / (4 * _CELLS), 60)
_LEVELS = np.concatenate([_TAILS, np.arange(2, 4 * _CELLS - 1) / (4 * _CELLS), 1 - _TAILS[::-1]])


@dataclasses.dataclass(frozen=True)
class Marginal:
    """The law of one number, by its distribution function, or points from it.

    `cdf` maps `(n,)` values to probabilities; `points` are independent draws, and then `cdf` is
    their empirical distribution function.

    >>> marginal = Marginal.of_normal(mean=1.0, variance=4.0)
    >>> marginal.cdf(np.array([1.0, 3.0])).round(4).tolist()
    [0.5, 0.8413]
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

    def tabulated(self, other: Self) -> Self:
        """With a distribution function that is quick to ask for, exact at the `places` of both."""
        if self.points is not None:
            return self
        even = np.linspace(self.lower, self.upper, 20 * _CELLS + 1)
        at = np.sort(np.concatenate([even, self.places, other.places]))
        levels = self.cdf(at)
        return type(self)(lambda x: np.interp(x, at, levels), self.lower, self.upper)

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

    total_variation: Discrepancy
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

    Between exact marginals everything is computed on 800 cells. Where one of the two is known by
    points, standard errors are by bootstrap, and total variation is taken over K = 20 cells of
    equal mass, which see over 99 % of a distance between smooth densities, and nothing inside
    them. Counts of n points are off by chance alone, so that the distance t of the counts is

        c = ½ Σ √(2p(1 − p)/πn)

    on average between equal laws (1/n + 1/m for two sets of points). Chance adds in quadrature:
    the value is √(t² − c²), which is too large by c/4 between equal laws and right within c/20 from
    distances of c on. It is resolved if equal laws give t in fewer than 1 of 100 cases. The upper
    bound takes the difference as spread evenly over the cells, where a distance adds least to t;
    it is never below what it is for t = c, which equal laws allow to claim.

    **Arguments:** `threshold`, the border between two basins. Source: derived.

    Numbers are float64.

    >>> found = accuracy(Marginal.of_normal(0.0, 1.0), Marginal.of_normal(0.0, 1.1))
    >>> round(found.total_variation.value, 3)
    0.023
    >>> round(found.variance.value, 3)  # the law's is ten per cent too large
    0.1
    """
    for name, marginal in (("truth", truth), ("law", law)):
        instance(name, marginal, Marginal, "a Marginal, as Marginal.of_law(law)")
    truth, law = truth.tabulated(law), law.tabulated(truth)
    if truth.points is None and law.points is None:
        fine = _errors(truth, law, threshold, _CELLS)
        coarse = _errors(truth, law, threshold, _CELLS // 2)
        spread = [abs(value - other) for value, other in zip(fine, coarse, strict=True)]
        distance = numerical(fine[0], spread[0])
    else:
        fine, spread = _bootstrapped(truth, law, threshold)
        distance = _counted(truth, law, fine[0], spread[0])
    found = [Estimate(float(v), float(s)) for v, s in zip(fine[1:], spread[1:], strict=True)]
    mean, variance, tail, basin = found
    return Accuracy(distance, mean, variance, tail, None if threshold is None else basin)


def numerical(value: float, error: float) -> Discrepancy:
    """A distance that is computed up to an `error`, which bounds it where it is the smaller one."""
    return Discrepancy(value, error, min(value + error, 1.0), value > error)


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


def _bootstrapped(truth: Marginal, law: Marginal, threshold: float | None) -> tuple[Any, Any]:
    """Errors and their standard errors."""
    rng = np.random.default_rng(0)
    again = [
        _errors(_resampled(truth, rng), _resampled(law, rng), threshold, _COUNTED)
        for _ in range(_BOOTSTRAPS)
    ]
    return _errors(truth, law, threshold, _COUNTED), np.std(again, axis=0, ddof=1)


def _counted(truth: Marginal, law: Marginal, distance: float, spread: float) -> Discrepancy:
    """Total variation from the `distance` between counts, which chance alone makes positive."""
    edges = _edges(truth, law, _COUNTED)
    pooled = (np.diff(truth.cdf(edges)) + np.diff(law.cdf(edges))) / 2
    inverse_numbers = [1 / m.points.size for m in (truth, law) if m.points is not None]
    # Mean of |p̂ − q̂| for equal laws: each cell is about normal with variance p(1 − p)/n.
    cell = np.sqrt(pooled * (1 - pooled) * sum(inverse_numbers))
    chance = float(np.sum(cell)) / np.sqrt(2 * np.pi)
    alone = 0.5 * np.sqrt((1 - 2 / np.pi) * np.sum(cell**2))  # scatter between equal laws
    spread = max(float(spread), alone)
    value = float(np.sqrt(max(distance**2 - chance**2, 0.0)))
    farthest = max(distance + _BOUNDED * spread, chance + _BOUNDED * alone)
    upper = _evenly_spread(farthest, float(cell.mean()))
    error = spread * max(distance, chance) / max(value, chance)
    return Discrepancy(value, error, upper, bool(distance > chance + _RESOLVED * alone))


def _evenly_spread(distance: float, deviation: float) -> float:
    """The total variation, the same in every cell, whose counts are at `distance` on average.

    E|δ + sz| = s√(2/π) e^(−x²/2) + δ(1 − 2Φ(−x)) with x = δ/s is convex in δ.
    """

    def excess(total: float) -> float:
        x = 2 * total / (_COUNTED * deviation)
        mean = np.sqrt(2 / np.pi) * np.exp(-(x**2) / 2) + x * (1 - 2 * ndtr(-x))
        return float(_COUNTED * deviation * mean / 2 - distance)

    return float(brentq(excess, 0.0, 1.0)) if excess(1.0) > 0 else 1.0


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
