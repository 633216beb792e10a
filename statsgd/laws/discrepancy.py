"""Where a gap between endpoints of SGD and a law comes from: sampling, step size or theory."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array
from statsgd.laws.grids.grid import Grid, total_variation
from statsgd.laws.grids.grid_law import GridLaw
from statsgd.laws.law import Law
from statsgd.precision import in_double_precision


class Discrepancy(NamedTuple):
    """Total variation distances along endpoints → chain → SDE → law, on one grid."""

    endpoints_to_chain: float
    """Runs that are too few or too short; compare with `sampling`."""
    chain_to_sde: float
    """The finite learning rate."""
    sde_to_law: float
    """The approximation that the theory makes."""
    endpoints_to_law: float
    """What is seen; at most the sum of the three."""
    sampling: float
    """Expected `endpoints_to_chain` of as many exact draws of the chain's law."""


def split_discrepancy(
    endpoints: Float[Any, "replica 1"], chain: GridLaw, sde: GridLaw, law: Law, grid: Grid
) -> Discrepancy:
    """Split the distance between `endpoints` and `law` into its parts; one dimension.

    **Arguments:** `chain` and `sde`, usually a `DiscreteChainLaw` and a `FokkerPlanckLaw` of the
    same SGD; `grid`, cells in which endpoints are counted: some tens, `sampling` grows with them.
    What lies outside counts for the end cells. A `law` that is not normalised is normalised over
    the grid.

    Raises `ValueError` for more than one dimension and for no endpoints.
    """
    if {grid.dimension, chain.dimension, sde.dimension, law.dimension} != {1}:
        raise ValueError("grid, chain, sde and law must all have one dimension")
    draws = np.asarray(finite_array("endpoints", endpoints), dtype=np.float64).reshape(-1, 1)
    if len(draws) == 0:
        raise ValueError("endpoints must hold at least one replica, got none")
    seen = grid.histogram(draws)
    of_chain, of_sde = _grid_law_masses(chain, grid), _grid_law_masses(sde, grid)
    of_law = _grid_law_masses(law, grid) if isinstance(law, GridLaw) else law_masses(law, grid)
    return Discrepancy(
        total_variation(seen, of_chain),
        total_variation(of_chain, of_sde),
        total_variation(of_sde, of_law),
        total_variation(seen, of_law),
        float(np.sum(np.sqrt(of_chain * (1 - of_chain) / (2 * np.pi * len(draws))))),
    )


def law_masses(law: Law, grid: Grid, nodes: int = 6) -> Float[Any, "..."]:
    """Cell masses of any law, by Gauss–Legendre quadrature, normalised over the grid."""
    law.require_proper()
    node, weight = np.polynomial.legendre.leggauss(nodes)
    d = grid.dimension
    offsets = np.stack(np.meshgrid(*[node / 2] * d, indexing="ij"), axis=-1).reshape(-1, d)
    weights = np.prod(np.stack(np.meshgrid(*[weight / 2] * d), axis=-1).reshape(-1, d), axis=1)
    points = grid.points()[:, None] + offsets * grid.spacing
    values = in_double_precision(jax.vmap(law.log_density), points.reshape(-1, d))
    logs = values.reshape(grid.size, -1)
    masses = np.exp(logs - np.max(logs)) @ weights
    return (masses / masses.sum()).reshape(grid.cells)


def _grid_law_masses(law: GridLaw, grid: Grid) -> Float[Any, " n"]:
    edges = grid.edges().copy()
    edges[0], edges[-1] = -np.inf, np.inf
    outer = (min(law.grid.lower[0], grid.lower[0]), max(law.grid.upper[0], grid.upper[0]))
    return np.diff(law.cdf(np.clip(edges, *outer)[:, None])[:, 0])
