"""Two-sample tests on arrays: how far two samples differ, with exact permutation p-values.

All take independent points `x` `(n, d)` and `y` `(m, d)` and a key. Bring coordinates to
comparable units first (`compare` whitens by the law's covariance): distances mix them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PRNGKeyArray

from statsgd.comparison.permutation import HypothesisTest, Statistic, contrasts, run_in_double

#: Random projections beside the coordinates.
PROJECTIONS = 8
#: Bandwidths of the MMD in units of the median distance.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: Parts of the cross-fitted classifier, and its ridge penalty per point.
FOLDS, RIDGE = 5, 1e-3
#: Number of coordinates up to which the classifier sees all their products, and not squares alone.
ALL_PRODUCTS = 10

type Members = Bool[Any, "relabellings points"]
type Values = Float[Any, " relabellings"]


def kolmogorov_smirnov(
    x: Float[Any, "n d"], y: Float[Any, "m d"], key: PRNGKeyArray, permutations: int = 999
) -> HypothesisTest:
    """Largest gap max |F_x − F_y| over all coordinates and some random projections.

    The permutation null is that of the maximum over directions, so that their number is accounted
    for. Raises `ValueError` for samples that do not match.

    Source: Smirnov (1939).

    >>> import jax, numpy as np
    >>> x = np.arange(20.0)[:, None]
    >>> round(float(kolmogorov_smirnov(x, x + 10, jax.random.key(0), 99).statistic), 4)
    0.5
    """
    return run_in_double(kolmogorov_smirnov_statistic, x, y, key, permutations)


def cramer_von_mises(
    x: Float[Any, "n d"], y: Float[Any, "m d"], key: PRNGKeyArray, permutations: int = 999
) -> HypothesisTest:
    """nm/(n+m)² Σ (F_x − F_y)² over the pooled points, the largest over directions.

    Directions and errors as in `kolmogorov_smirnov`. Source: Anderson (1962).

    >>> import jax, numpy as np
    >>> x = np.arange(20.0)[:, None]
    >>> round(float(cramer_von_mises(x, x + 10, jax.random.key(0), 99).statistic), 4)
    1.6687
    """
    return run_in_double(cramer_von_mises_statistic, x, y, key, permutations)


def sliced_wasserstein(
    x: Float[Any, "n d"], y: Float[Any, "m d"], key: PRNGKeyArray, permutations: int = 999
) -> HypothesisTest:
    """Mean over directions of the Wasserstein distance ∫|F_x − F_y|, in the unit of the samples.

    Directions and errors as in `kolmogorov_smirnov`. Source: Bonneel et al. (2015).

    >>> import jax, numpy as np
    >>> x = np.arange(20.0)[:, None]
    >>> round(float(sliced_wasserstein(x, x + 10, jax.random.key(0), 99).statistic), 4)
    10.0
    """
    return run_in_double(sliced_wasserstein_statistic, x, y, key, permutations)


def energy(
    x: Float[Any, "n d"], y: Float[Any, "m d"], key: PRNGKeyArray, permutations: int = 999
) -> HypothesisTest:
    """Energy distance 2E|X−Y| − E|X−X'| − E|Y−Y'|. Memory (n + m)².

    Raises `ValueError` for samples that do not match. Source: Székely, Rizzo (2013).

    >>> import jax, numpy as np
    >>> x = np.arange(50.0)[:, None]
    >>> round(float(energy(x, x + 40, jax.random.key(0), 99).p_value), 4)
    0.01
    """
    return run_in_double(energy_statistic, x, y, key, permutations)


def maximum_mean_discrepancy(
    x: Float[Any, "n d"], y: Float[Any, "m d"], key: PRNGKeyArray, permutations: int = 999
) -> HypothesisTest:
    """Largest squared MMD over Gaussian kernels exp(−r²/2w²), each in units of its null.

    Bandwidths w are `BANDWIDTHS` times the median distance of the pooled sample, which no
    relabelling changes; each kernel's MMD² is centred and scaled by its own permutations before
    the maximum is taken, and the null is that of the maximum. Memory (n + m)².

    Raises `ValueError` for samples that do not match. Source: Gretton et al. (2012); standardising
    by permutations over several kernels as in Biggs, Schrab, Gretton (2023), arXiv:2306.08777.

    >>> import jax, numpy as np
    >>> x = np.arange(20.0)[:, None]
    >>> round(float(maximum_mean_discrepancy(x, x + 10, jax.random.key(0), 99).p_value), 4)
    0.01
    """
    return run_in_double(mmd_statistic, x, y, key, permutations)


def classifier(
    x: Float[Any, "n d"], y: Float[Any, "m d"], key: PRNGKeyArray, permutations: int = 999
) -> HypothesisTest:
    """How well a classifier tells the samples apart on points that it was not fitted to.

    Ridge regression of the label on the coordinates and their products, cross-fitted over
    `FOLDS` parts. The statistic is the difference between the samples' mean held-out scores in
    standard deviations of the score; the permutation null fits every relabelling anew.

    Raises `ValueError` for samples that do not match. Source: Lopez-Paz, Oquab (2017),
    arXiv:1610.06545; the ridge form is derived.

    >>> import jax, numpy as np
    >>> x = np.arange(50.0)[:, None]
    >>> round(float(classifier(x, x + 40, jax.random.key(0), 99).p_value), 4)
    0.01
    """
    return run_in_double(classifier_statistic, x, y, key, permutations)


def kolmogorov_smirnov_statistic(
    pooled: Float[Any, "points d"], members: Members, key: PRNGKeyArray
) -> Values:
    """The statistic of `kolmogorov_smirnov` for every relabelling."""
    gaps = _over_directions(pooled, members, key, lambda gap, _: jnp.max(jnp.abs(gap), axis=1))
    return jnp.max(gaps, axis=0)


def cramer_von_mises_statistic(
    pooled: Float[Any, "points d"], members: Members, key: PRNGKeyArray
) -> Values:
    """The statistic of `cramer_von_mises` for every relabelling."""
    total = pooled.shape[0]
    size = members[0].sum()
    factor = size * (total - size) / total**2
    sums = _over_directions(pooled, members, key, lambda gap, _: jnp.sum(gap**2, axis=1))
    return factor * jnp.max(sums, axis=0)


def sliced_wasserstein_statistic(
    pooled: Float[Any, "points d"], members: Members, key: PRNGKeyArray
) -> Values:
    """The statistic of `sliced_wasserstein` for every relabelling."""

    def distance(gap, positions):
        return jnp.abs(gap[:, :-1]) @ jnp.diff(positions)

    return jnp.mean(_over_directions(pooled, members, key, distance), axis=0)


def energy_statistic(pooled: Float[Any, "points d"], members: Members, key: PRNGKeyArray) -> Values:
    """The statistic of `energy` for every relabelling."""
    weights = contrasts(members)
    return -jnp.sum(weights @ jnp.sqrt(squared_distances(pooled)) * weights, axis=1)


def mmd_statistic(pooled: Float[Any, "points d"], members: Members, key: PRNGKeyArray) -> Values:
    """The statistic of `maximum_mean_discrepancy` for every relabelling."""
    weights, squares = contrasts(members), squared_distances(pooled)
    unit = median_square(squares)

    def standardised(bandwidth):
        kernel = jnp.exp(-squares / (2 * bandwidth**2 * unit))
        values = jnp.sum(weights @ kernel * weights, axis=1)
        # Observed and permuted values enter alike, so that they stay exchangeable.
        spread = jnp.std(values)
        return (values - jnp.mean(values)) / jnp.where(spread > 0, spread, 1.0)

    return jnp.max(jax.lax.map(standardised, jnp.asarray(BANDWIDTHS)), axis=0)


def classifier_statistic(
    pooled: Float[Any, "points d"], members: Members, key: PRNGKeyArray
) -> Values:
    """The statistic of `classifier` for every relabelling."""
    features = _features(pooled)
    total, labels = pooled.shape[0], contrasts(members)
    fold = jnp.argsort(jax.random.uniform(key, (total,))) % FOLDS

    def held_out(index):
        fitted = features * (fold != index)[:, None]
        gram = fitted.T @ fitted + RIDGE * total * jnp.eye(features.shape[1])
        coefficients = jnp.linalg.solve(gram, fitted.T @ labels.T)
        return jnp.where((fold == index)[:, None], features @ coefficients, 0.0)

    scores = jnp.sum(jax.vmap(held_out)(jnp.arange(FOLDS)), axis=0).T
    spread = jnp.std(scores, axis=1)
    return jnp.sum(scores * labels, axis=1) / jnp.where(spread > 0, spread, 1.0)


#: Two-sample tests by name: every public test of this module.
TWO_SAMPLE_TESTS: dict[str, Callable[..., HypothesisTest]] = {
    "kolmogorov_smirnov": kolmogorov_smirnov,
    "cramer_von_mises": cramer_von_mises,
    "energy": energy,
    "maximum_mean_discrepancy": maximum_mean_discrepancy,
    "sliced_wasserstein": sliced_wasserstein,
    "classifier": classifier,
}

#: Their statistics, for tests of tests.
STATISTICS: dict[str, Statistic] = {
    "kolmogorov_smirnov": kolmogorov_smirnov_statistic,
    "cramer_von_mises": cramer_von_mises_statistic,
    "energy": energy_statistic,
    "maximum_mean_discrepancy": mmd_statistic,
    "sliced_wasserstein": sliced_wasserstein_statistic,
    "classifier": classifier_statistic,
}


def squared_distances(points: Float[Any, "n d"]) -> Float[Any, "n n"]:
    """|x_i − x_j|², never negative."""
    # Centred first: far from the origin the differences would drown in rounding.
    centred = points - jnp.mean(points, axis=0)
    norms = jnp.sum(centred**2, axis=1)
    squares = jnp.maximum(norms[:, None] + norms - 2 * centred @ centred.T, 0.0)
    return squares * (1 - jnp.eye(points.shape[0]))


def median_square(squares: Float[Any, "n n"]) -> Float[Any, ""]:
    """Square of the median distance between different points; 1 where that is zero."""
    number = squares.shape[0]
    upper = squares[jnp.triu_indices(number, 1)]
    median = jnp.median(upper)
    return jnp.where(median > 0, median, 1.0)


def _over_directions(pooled, members, key, summary) -> Float[Any, "directions relabellings"]:
    """`summary(F_x − F_y at the sorted points, the points)` along each direction."""
    d = pooled.shape[1]
    directions = jnp.eye(d)
    if d > 1:
        normal = jax.random.normal(key, (PROJECTIONS, d))
        random = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
        directions = jnp.concatenate([directions, random])
    weights = contrasts(members)

    def along(direction):
        values = pooled @ direction
        order = jnp.argsort(values)
        positions = values[order]
        # Points that coincide count together: the gap is read where the last of them is in.
        last = jnp.searchsorted(positions, positions, side="right") - 1
        gap = jnp.cumsum(weights[:, order], axis=1)[:, last]
        return summary(gap, positions)

    return jax.lax.map(along, directions)


def _features(pooled: Float[Any, "points d"]) -> Float[Any, "points q"]:
    """Standardised coordinates and products of them, standardised again."""
    centred = _standardised(pooled)
    d = pooled.shape[1]
    if d <= ALL_PRODUCTS:
        rows, columns = jnp.triu_indices(d)
        products = centred[:, rows] * centred[:, columns]
    else:
        products = centred**2
    return _standardised(jnp.concatenate([centred, products], axis=1))


def _standardised(columns):
    spread = jnp.std(columns, axis=0)
    return (columns - jnp.mean(columns, axis=0)) / jnp.where(spread > 0, spread, 1.0)
