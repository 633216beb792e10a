"""Shares of basins, with errors: what is read off endpoints and off a law."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from statsgd.comparison.samples import Clusters
from statsgd.comparison.statistics import cluster_mean, normal_quantile
from statsgd.estimate import Estimate
from statsgd.laws import IntractableError, Law
from statsgd.precision import over_points


def shares_of_basins(clusters: Clusters, label: Callable, basins: int) -> Estimate:
    """Share of the points in each basin, with errors from the scatter between clusters.

    Points without a basin count as points: the shares then sum to less than one.
    """
    return shares(basin_labels(clusters, label, basins), basins)


def shares(index: Int[Any, "n t"], basins: int) -> Estimate:
    """Share of the points with each index from 0 to `basins` − 1, with errors over clusters."""
    return cluster_mean((index[..., None] == np.arange(basins)).astype(np.float64))


def predicted_shares(
    law: Law | None, reference: Clusters, label: Callable, basins: int
) -> Estimate:
    """The law's shares: by quadrature where it has one, with its error, else from draws."""
    if law is None:
        return shares_of_basins(reference, label, basins)
    try:
        found = law.expectation_estimate(_InBasin(label, basins))
    except IntractableError:
        return shares_of_basins(reference, label, basins)
    if found.value[-1] > 0:
        raise ValueError(
            f"label must give indices from 0 to {basins - 1}, or -1 for none, got others where the "
            f"law has a share {found.value[-1]:.2g} of its mass"
        )
    return Estimate(found.value[:-1], np.nan_to_num(found.standard_error[:-1]))


class _InBasin(eqx.Module):
    """One for the basin that a point is in, zero for the others; last, one for none that exists."""

    label: Callable
    basins: int = eqx.field(static=True)

    def __call__(self, params: Float[Any, " d"]) -> Float[Any, " basins_and_one"]:
        index = jnp.rint(jnp.reshape(self.label(params), ()))
        inside = index == jnp.arange(self.basins)
        wrong = (index < -1) | (index >= self.basins)
        return jnp.append(inside, wrong).astype(float)


def basin_labels(clusters: Clusters, label: Callable, basins: int) -> Int[Any, "n t"]:
    """Index of the basin of every point, −1 for none; `ValueError` for indices that are neither."""
    values = at_each_point(label, clusters, ())
    index = np.rint(values).astype(int)
    if np.any(index < -1) or np.any(index >= basins):
        raise ValueError(
            f"label must give indices from 0 to {basins - 1}, or -1 for none, got {index.min()} to "
            f"{index.max()}"
        )
    return index


def at_each_point(function: Callable, clusters: Clusters, shape: tuple[int, ...]) -> Any:
    """`function` of one params at every point, in float64; `ValueError` for another shape."""
    values = np.asarray(over_points(function, clusters), dtype=np.float64)
    if values.size != clusters.shape[0] * clusters.shape[1] * np.prod(shape, dtype=int):
        raise ValueError(f"the function must return shape {shape}, got {values.shape[2:]}")
    return values.reshape(*clusters.shape[:2], *shape)


def wilson_interval(
    seen: Estimate, stated: Estimate, clusters: Clusters, tail: float
) -> tuple[Float[Any, " basins"], Float[Any, " basins"]]:
    """Wilson's interval of `seen` shares, widened by the error of the `stated` ones.

    For the number of independent points that would scatter as the clusters do.
    """
    z = normal_quantile(tail)
    number = _independent_points(seen, clusters)
    centre = (seen.value + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number)
    half = half * np.sqrt(seen.value * (1 - seen.value) / number + z**2 / (4 * number**2))
    half = np.hypot(half, z * stated.standard_error)
    return centre - half, centre + half


def _independent_points(shares: Estimate, clusters: Clusters) -> Float[Any, " basins"]:
    """The number of independent points that would scatter as the clusters do."""
    total = clusters.shape[0] * clusters.shape[1]
    if clusters.shape[1] == 1:
        return np.full(shares.value.shape, float(total))
    spread = shares.value * (1 - shares.value)
    squared = shares.standard_error**2
    worth = np.divide(spread, squared, out=np.full(spread.shape, np.nan), where=squared > 0)
    return np.where(np.isnan(worth), clusters.shape[0], np.clip(worth, 1.0, total))
