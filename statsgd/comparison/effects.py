"""Effect sizes that a law's moments do not show: each one is a few rows of a comparison.

An effect reads the same function off endpoints and law, `f(params) -> (k,)`, and states the
difference with an interval. Pass them as `compare(…, effects=[…])`.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import brentq

from statsgd.arguments import count, finite_array
from statsgd.comparison.basin_shares import (
    at_each_point,
    basin_labels,
    predicted_shares,
    shares_of_basins,
    wilson_interval,
)
from statsgd.comparison.parts import AGAINST_NONE
from statsgd.comparison.rows import SHAPE, WELLS
from statsgd.comparison.samples import Clusters
from statsgd.comparison.statistics import cluster_mean, student_quantile
from statsgd.laws import IntractableError, Law


class Sides(NamedTuple):
    """What an effect compares: endpoints, and the law or draws from it."""

    measured: Clusters
    reference: Clusters
    law: Law | None
    """The law itself, where what it says may be exact."""


class Effect(abc.ABC):
    """An effect size: how many intervals it has, and its rows."""

    part: ClassVar[str] = "effects"
    """The part of a comparison's verdict that it is of."""

    @abc.abstractmethod
    def quantities(self, dimension: int) -> int:
        """Number of intervals, which share the comparison's error."""

    @abc.abstractmethod
    def rows(self, sides: Sides, tail: float) -> pd.DataFrame:
        """Rows with index, statistic, measured, predicted, effect, standard_error, low and high.

        `tail` is the probability of error of one interval on either side. Column `centre` is the
        effect of perfect agreement.
        """


@dataclasses.dataclass(frozen=True)
class TotalVariation(Effect):
    """Total variation ½ Σ |p_i − q_i| of every coordinate's law over `cells` of about equal mass.

    The plug-in estimate is too large, by at most ½√((cells−1)/n) whatever the law, and moves by at
    most 1/n with each of n independent points, so that

        [TV̂ − ½√((cells−1)/n) − t,  TV̂ + t],    t = √(log(1/α)/(2n)),

    holds with error α on either side for any n (add the same terms for m draws in place of a law's
    distribution function). Cells cannot see differences inside them: the distance between the laws
    themselves is at least this one. `standard_error` holds the bound on the bias.

    Source: McDiarmid (1989), for t; *derived*.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> points = np.random.default_rng(0).normal(scale=2.0, size=(4000, 1))
    >>> found = statsgd.compare(points, law, seed=0, effects=[TotalVariation(cells=10)])
    >>> found.effects("total variation")["effect"].round(1).tolist()
    [0.3, 0.3, 0.3]
    """

    part: ClassVar[str] = SHAPE
    cells: int = 20

    def __post_init__(self):
        count("cells", self.cells, at_least=2)

    def quantities(self, dimension: int) -> int:
        """One a coordinate."""
        return dimension

    def rows(self, sides: Sides, tail: float) -> pd.DataFrame:
        """Total variation of each coordinate."""
        # One point a cluster: the bounds need independent points.
        points, draws = sides.measured[:, -1], sides.reference[:, -1]
        levels = np.arange(1, self.cells) / self.cells
        edges = np.quantile(draws, levels, axis=0)
        exact = _distribution(sides.law, edges)
        if exact is not None:
            expected = np.diff(exact.T, axis=1, prepend=0.0, append=1.0)
        else:
            expected = _shares(draws, edges)
        distance = 0.5 * np.abs(_shares(points, edges) - expected).sum(axis=1)
        below, above = self.reach(len(points), None if exact is not None else len(draws), tail)
        return pd.DataFrame(
            {
                "statistic": "total variation",
                "index": np.arange(len(distance)),
                "measured": distance,
                "predicted": 0.0,
                "effect": distance,
                "standard_error": below - above,
                "low": np.maximum(distance - below, 0.0),
                "high": np.minimum(distance + above, 1.0),
                "centre": 0.0,
            }
        )

    def reach(self, points: int, draws: int | None, tail: float) -> tuple[float, float]:
        """How far the interval reaches below and above the estimate.

        From so many independent points against a law, or so many draws from one.
        """
        sizes = [points] if draws is None else [points, draws]
        bias = sum(0.5 * np.sqrt((self.cells - 1) / n) for n in sizes)
        reach = float(np.sqrt(np.log(1 / tail) / 2 * sum(1 / n for n in sizes)))
        return bias + reach, reach


@dataclasses.dataclass(frozen=True)
class BasinProbabilities(Effect):
    """Probability of each basin; the effect is the difference from the law's.

    `label` maps one flat params `(d,)` to the index of its basin, 0 ≤ index < `basins`, or to −1
    for none; a JAX function, such as `measures.BasinLabel`, which follows the gradient flow.
    Intervals are Wilson's, with the number of points that the scatter between clusters is worth. A
    law with a quadrature gives its masses by it, any other law through draws, whose error counts.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> points = np.random.default_rng(0).normal(size=(4000, 1))
    >>> sides = BasinProbabilities(lambda x: (x[0] > 0).astype(int), basins=2)
    >>> found = statsgd.compare(points, law, seed=0, effects=[sides])
    >>> found.effects("basin probability")["predicted"].round(2).tolist()
    [0.5, 0.5]
    """

    part: ClassVar[str] = WELLS
    label: Callable[[Any], Any]
    basins: int

    def __post_init__(self):
        count("basins", self.basins, at_least=2)

    def quantities(self, dimension: int) -> int:
        """One a basin."""
        return self.basins

    def rows(self, sides: Sides, tail: float) -> pd.DataFrame:
        """Probability of each basin."""
        seen = shares_of_basins(sides.measured, self.label, self.basins)
        stated = predicted_shares(sides.law, sides.reference, self.label, self.basins)
        low, high = wilson_interval(seen, stated, sides.measured, tail)
        return pd.DataFrame(
            {
                "statistic": "basin probability",
                "index": np.arange(self.basins),
                "measured": seen.value,
                "predicted": stated.value,
                "effect": seen.value - stated.value,
                "standard_error": np.hypot(seen.standard_error, stated.standard_error),
                "low": low - stated.value,
                "high": high - stated.value,
                "centre": 0.0,
            }
        )


@dataclasses.dataclass(frozen=True)
class FlatPreference(Effect):
    """Preference for flat minima: log-odds of flat against sharp per unit of log-curvature.

    The slope s of P(basin i) ∝ v_i exp(−s c_i), c_i the `log_curvatures` (log det H_i, or any
    other), fitted to the shares of the basins; s > 0 prefers flat ones. `volumes` v_i are what *no
    preference* means, equal by default. A Gibbs law has s → ½ in log det H at equal heights as the
    temperature falls. Two rows: s against the slope of the law's own shares, and s against 0,
    which is no part of the verdict on the law.

    With two basins s = log(p_flat v_sharp/(p_sharp v_flat))/(c_sharp − c_flat). Half an endpoint is
    added to each basin, so that an empty one gives a finite slope. Points without a basin (label
    −1) are left out. Errors are from the scatter between clusters, and hold where the model of the
    shares does not.

    Raises `ValueError` unless at least two log-curvatures differ. Source: derived.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([-0.5], [[1.0]])  # more of it on the flat side, x < 0
    >>> points = np.random.default_rng(0).normal(-0.5, size=(4000, 1))
    >>> slope = FlatPreference(lambda x: (x[0] > 0).astype(int), [0.0, np.log(9.0)])
    >>> found = statsgd.compare(points, law, seed=0, effects=[slope])
    >>> found.effects("flat preference")["predicted"].round(2).tolist()
    [0.37]
    """

    part: ClassVar[str] = WELLS
    label: Callable[[Any], Any]
    log_curvatures: Sequence[float]
    volumes: Sequence[float] | None = None

    def __post_init__(self):
        curvatures = finite_array("log_curvatures", self.log_curvatures, ndim=1)
        if np.ptp(curvatures) == 0:
            raise ValueError(
                f"log_curvatures must differ between basins, got {self.log_curvatures!r}"
            )

    def quantities(self, dimension: int) -> int:
        """Against the law and against no preference."""
        return 2

    def rows(self, sides: Sides, tail: float) -> pd.DataFrame:
        """The slope against the law's and against none."""
        curvatures = np.asarray(self.log_curvatures, dtype=np.float64)
        basins = len(curvatures)
        volumes = np.ones(basins) if self.volumes is None else np.asarray(self.volumes, float)
        seen = shares_of_basins(sides.measured, self.label, basins)
        stated = predicted_shares(sides.law, sides.reference, self.label, basins)
        assigned = float(stated.value.sum())
        if not assigned > 0:
            raise ValueError("label must find a basin for points of the law, got none")
        inside = seen.value * sides.measured.shape[0] * sides.measured.shape[1]
        number = max(float(inside.sum()), 1.0)
        filled = (inside + 0.5) / (inside.sum() + 0.5 * basins)
        slope, spread = preference_slope(filled, curvatures, volumes)
        predicted, law_spread = preference_slope(stated.value / assigned, curvatures, volumes)
        error = _mean_error(sides.measured, self.label, curvatures) / spread
        # All endpoints in one basin do not scatter: an error cannot fall below that of one more.
        floor = np.sqrt(_variance(filled, curvatures) / number) / spread
        error = max(error, floor)
        law_error = 0.0
        if np.any(stated.standard_error > 0):
            law_error = _mean_error(sides.reference, self.label, curvatures) / law_spread
        z = student_quantile(tail, len(sides.measured))
        errors = np.array([np.hypot(error, law_error), error])
        effects = np.array([slope - predicted, slope])
        return pd.DataFrame(
            {
                "statistic": ["flat preference", AGAINST_NONE],
                "index": [0, 0],
                "measured": slope,
                "predicted": [predicted, 0.0],
                "effect": effects,
                "standard_error": errors,
                "low": effects - z * errors,
                "high": effects + z * errors,
                "centre": 0.0,
            }
        )


@dataclasses.dataclass(frozen=True)
class MeanRatio(Effect):
    """Ratio of a positive quantity's mean at the endpoints to its mean under the law.

    `quantity` maps one flat params to a vector `(k,)` of non-negative numbers, in JAX: the absolute
    charges of a symmetry, or ratios of layer norms, for the balance of a network. The law's mean
    comes from draws.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> points = np.random.default_rng(0).normal(scale=2.0, size=(4000, 1))
    >>> square = MeanRatio(lambda x: x**2, name="square ratio")
    >>> found = statsgd.compare(points, law, seed=0, effects=[square])
    >>> found.effects("square ratio")["verdict"].tolist()
    ['differs by more than 10 %']
    """

    quantity: Callable[[Any], Any]
    count: int = 1
    name: str = "balance ratio"

    def quantities(self, dimension: int) -> int:
        """The length of the quantity."""
        return self.count

    def rows(self, sides: Sides, tail: float) -> pd.DataFrame:
        """The ratio of each entry."""
        seen, stated = (
            cluster_mean(at_each_point(self.quantity, clusters, (self.count,)))
            for clusters in (sides.measured, sides.reference)
        )
        ratio = seen.value / stated.value
        error = np.hypot(seen.standard_error / seen.value, stated.standard_error / stated.value)
        z = student_quantile(tail, min(len(sides.measured), len(sides.reference)))
        return pd.DataFrame(
            {
                "statistic": self.name,
                "index": np.arange(self.count),
                "measured": seen.value,
                "predicted": stated.value,
                "effect": ratio,
                "standard_error": ratio * error,
                "low": ratio * np.exp(-z * error),
                "high": ratio * np.exp(z * error),
                "centre": 1.0,
            }
        )


def preference_slope(
    shares: Float[Any, " basins"],
    log_curvatures: Float[Any, " basins"],
    volumes: Float[Any, " basins"],
) -> tuple[float, float]:
    """The slope s of shares ∝ v exp(−s c) by maximum likelihood, and Var c under the fit.

    It solves Σ v c e^(−sc)/Σ v e^(−sc) = Σ shares·c. Source: derived.
    """
    wanted = float(shares @ log_curvatures)
    centred = (log_curvatures - wanted) / np.ptp(log_curvatures)

    def fitted(slope):
        exponent = -slope * centred
        weights = volumes * np.exp(exponent - exponent.max())
        return weights / weights.sum()

    reach = 1.0
    while reach < 1e6 and not (fitted(reach) @ centred < 0 < fitted(-reach) @ centred):
        reach *= 2
    scaled = brentq(lambda slope: fitted(slope) @ centred, -reach, reach, xtol=1e-12)
    return scaled / np.ptp(log_curvatures), _variance(fitted(scaled), log_curvatures)


def _distribution(law: Law | None, edges: Float[Any, "inner d"]) -> Float[Any, "inner d"] | None:
    """What the law itself says, where it does."""
    try:
        return None if law is None else np.asarray(law.cdf(edges))
    except IntractableError:
        return None


def _mean_error(clusters: Clusters, label: Callable, values: Float[Any, " basins"]) -> float:
    index = basin_labels(clusters, label, len(values))
    inside = index >= 0
    if not inside.any():
        return 0.0
    off = np.where(inside, values[index] - values[index[inside]].mean(), 0.0)
    return float(cluster_mean(off[..., None]).standard_error[0] / inside.mean())


def _variance(shares: Float[Any, " basins"], values: Float[Any, " basins"]) -> float:
    mean = shares @ values
    return float(shares @ (values - mean) ** 2)


def _shares(points: Float[Any, "n d"], edges: Float[Any, "inner d"]) -> Float[Any, "d cells"]:
    cells = len(edges) + 1
    return np.stack(
        [
            np.bincount(np.searchsorted(edges[:, i], points[:, i]), minlength=cells) / len(points)
            for i in range(points.shape[1])
        ]
    )
