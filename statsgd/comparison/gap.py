"""Where the difference between endpoints of SGD and a law comes from, part by part."""

from typing import Any

import numpy as np
import xarray as xr

from statsgd.arguments import count, kinds_checked
from statsgd.comparison.dependence import thin_by_effective_size
from statsgd.comparison.samples import read_chains, read_ensemble
from statsgd.laws import DiscreteChainLaw, FokkerPlanckLaw, Law
from statsgd.laws.grids.grid import Grid, total_variation

#: The parts, in order, and the whole.
PARTS = ("Monte Carlo", "finite learning rate", "theory", "sampler", "all together")
_BETWEEN = (
    "endpoints → chain",
    "chain → SDE",
    "SDE → law",
    "law → draws",
    "endpoints → law",
)


@kinds_checked
def gap_decomposition(
    endpoints: xr.DataTree,
    law: Law,
    *,
    chain: DiscreteChainLaw,
    sde: FokkerPlanckLaw,
    grid: Grid,
    draws: xr.DataTree | None = None,
    condition_on_survival: bool = False,
    bootstraps: int = 1000,
    seed: int,
) -> xr.Dataset:
    """Total variation between neighbours on the way endpoints → chain → SDE → law (→ draws).

    - *Monte Carlo* (endpoints → chain): finitely many endpoints. What exceeds `by_chance` is
      burn-in that was too short.
    - *finite learning rate* (chain → SDE) and *theory* (SDE → law): between exact solutions.
    - *sampler* (law → draws): finitely many draws of a kernel, and above `by_chance` its bias.
    - *all together* (endpoints → law): what is seen; at most the sum of the first three.

    **Arguments:** `chain` and `sde` of the same SGD on one or two parameters; `grid`, cells in
    which everything is counted, what lies outside in the outermost: some tens of cells, since
    `by_chance` grows like their square root; `draws` from `law`, thinned to their effective number.
    A law that is not normalised is normalised over the grid.

    **Returns** a `Dataset` along `part`: `distance`; `error`, the standard error of distances to
    finitely many points (bootstrap), and the numerical error of the others; `by_chance`, mean
    distance of as many independent points from their own law, and `by_chance_95` its 95 %
    quantile (zero between exact laws); `p_value` of a distance under chance alone (NaN there).
    `attrs` hold the finding and the settings.

    Raises `ValueError` for dimensions that differ or exceed two, and for diverged replicas unless
    `condition_on_survival`.

    >>> import jax, numpy as np, statsgd
    >>> problem = statsgd.problems.quadratic(np.eye(1))
    >>> sgd = statsgd.SGD(0.2, statsgd.noise.Isotropic(1.0))
    >>> chain = DiscreteChainLaw.from_sgd(problem, sgd, Grid(-2.0, 2.0, 80))
    >>> sde = FokkerPlanckLaw.from_sgd(problem, sgd, Grid(-2.0, 2.0, 80))
    >>> law = statsgd.laws.Gibbs.from_sgd(problem, sgd)
    >>> ends = statsgd.ensemble(chain.draw(jax.random.key(0), (4000,)))
    >>> sides = {"chain": chain, "sde": sde, "grid": Grid(-1.0, 1.0, 10)}
    >>> gaps = gap_decomposition(ends, law, **sides, bootstraps=100, seed=0)
    >>> gaps["distance"].round(2).to_series().to_dict()
    {'Monte Carlo': 0.01, 'finite learning rate': 0.02, 'theory': 0.0, 'all together': 0.03}
    """
    d = grid.dimension
    if d > 2 or {chain.dimension, sde.dimension, law.dimension} != {d}:
        raise ValueError(
            "grid, chain, sde and law must all have one dimension or all two, got "
            f"{d}, {chain.dimension}, {sde.dimension} and {law.dimension}"
        )
    count("bootstraps", bootstraps)
    samples = read_ensemble(endpoints, condition_on_survival=condition_on_survival)["params"]
    if samples.shape[2] != d:
        raise ValueError(f"the law has {d} parameters, the endpoints have {samples.shape[2]}")
    rng = np.random.default_rng(seed)
    points = samples[:, -1]
    seen = grid.histogram(points)
    of_chain, of_sde, of_law = (one.cell_masses(grid) for one in (chain, sde, law))
    of_diffusion = float(np.nan_to_num(sde.error_estimate))
    # A law with a wrong variance r is off by r·φ(1) ≈ r/4 near a normal law.
    of_steps = chain.exit_probability + abs(chain.numerical_diffusion) / 4
    rows = {
        "Monte Carlo": _counted(rng, seen, of_chain, of_chain, len(points), bootstraps),
        "finite learning rate": _exact(of_chain, of_sde, of_diffusion + of_steps),
        "theory": _exact(of_sde, of_law, of_diffusion),
    }
    thinning = ""
    if draws is not None:
        chains = read_chains(draws, ("params",))
        if "params" not in chains:
            raise ValueError("draws must hold the variable 'params'")
        thinned = thin_by_effective_size(chains["params"])
        thinning = thinned.describe()
        drawn = grid.histogram(thinned.values)
        rows["sampler"] = _counted(rng, drawn, of_law, of_law, len(thinned.values), bootstraps)
    rows["all together"] = _counted(rng, seen, of_law, of_chain, len(points), bootstraps)
    parts = list(rows)
    columns = ("distance", "error", "by_chance", "by_chance_95", "p_value")
    table = np.array([rows[part] for part in parts])
    result = xr.Dataset(
        {name: ("part", table[:, i]) for i, name in enumerate(columns)},
        coords={
            "part": parts,
            "between": ("part", [_BETWEEN[PARTS.index(part)] for part in parts]),
        },
    )
    result.attrs = {
        "kind": "gap",
        "title": f"From endpoints to {type(law).__name__}",
        "law": type(law).__name__,
        "finding": finding(result, type(law).__name__, len(points)),
        "endpoints": len(points),
        "cells": int(grid.size),
        "draws": thinning,
        "seed": int(seed),
    }
    return result


def finding(result: xr.Dataset, law: str, endpoints: int) -> str:
    """The decomposition in one sentence."""
    at = {str(part): result.sel(part=part) for part in result["part"].values}
    step, theory = (float(at[name]["distance"]) for name in ("finite learning rate", "theory"))
    whole, noise = at["all together"], at["Monte Carlo"]
    larger = "the finite learning rate" if step >= theory else "the theory's approximation"
    late = float(noise["p_value"]) < 0.01
    text = (
        f"{endpoints} endpoints lie {float(whole['distance']):.4f} ± {float(whole['error']):.4f} "
        f"in total variation from {law}: {step:.4f} from the finite learning rate and "
        f"{theory:.4f} from the theory, of which {larger} is the larger, while "
        f"{float(noise['by_chance']):.4f} is expected by chance alone"
    )
    if late:
        text += (
            f"; but the endpoints are {float(noise['distance']):.4f} from the chain's own law, "
            "more than chance allows: they are not stationary"
        )
    if "sampler" in at:
        drawn = at["sampler"]
        text += (
            f", and the draws lie {float(drawn['distance']):.4f} from the law where "
            f"{float(drawn['by_chance']):.4f} is chance"
        )
    return text + "."


def _exact(masses: Any, other: Any, error: float) -> tuple[float, ...]:
    return total_variation(masses, other), error, 0.0, 0.0, np.nan


def _counted(
    rng: np.random.Generator, seen: Any, law: Any, truth: Any, number: int, bootstraps: int
) -> tuple[float, ...]:
    """Distance of counted points from `law`, and how far points of `truth` are from `truth`."""
    distance = total_variation(seen, law)
    again = rng.multinomial(number, seen.ravel(), bootstraps) / number
    error = np.std(0.5 * np.abs(again - law.ravel()).sum(axis=1), ddof=1)
    weights = truth.ravel() / truth.sum()
    fresh = rng.multinomial(number, weights, bootstraps) / number
    chance = 0.5 * np.abs(fresh - weights).sum(axis=1)
    p_value = np.nan
    if law is truth:
        p_value = (1 + np.sum(chance >= distance)) / (1 + bootstraps)
    return distance, float(error), chance.mean(), np.quantile(chance, 0.95), p_value
