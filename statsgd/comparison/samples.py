"""Data trees read as arrays `(cluster, within, d)`: what is independent, and what is not.

A cluster is a replica of an ensemble (its late steps are correlated) or a stretch of a chain.
Errors are computed over clusters alone, so correlation within a cluster does no harm.
"""

from typing import Any

import xarray as xr
from jaxtyping import Float

from statsgd.ensembles import endpoint_trajectories, flat, trajectories

#: Chains are cut into stretches until there are at least this many clusters.
MIN_CLUSTERS = 32

type Clusters = Float[Any, "cluster within d"]


def read_ensemble(
    tree: xr.DataTree, *, include_snapshots: bool = False, condition_on_survival: bool = False
) -> dict[str, Clusters]:
    """Endpoints of `simulate` by variable, `"params"` and `"momentum_buffer"` where there is one.

    With `include_snapshots` the kept steps count too, clustered by replica; they must be
    stationary. Raises `ValueError` if replicas diverged, unless `condition_on_survival`.
    """
    read = trajectories if include_snapshots else endpoint_trajectories
    run = read(tree, condition_on_survival=condition_on_survival)
    found = {"params": run.params, "momentum_buffer": run.momentum_buffer}
    return {variable: values for variable, values in found.items() if values is not None}


def read_chains(
    tree: xr.DataTree, variables: tuple[str, ...]
) -> dict[str, Float[Any, "chain draw d"]]:
    """Draws of `sample` (or any ArviZ posterior) by variable, chain by chain."""
    if "posterior" not in tree.children:
        raise ValueError(
            f"draws must be a DataTree with the group 'posterior', got {sorted(tree.children)}"
        )
    posterior = tree["posterior"].to_dataset()
    return {
        variable: flat(posterior[[variable]], ("chain", "draw"), [variable])
        for variable in variables
        if variable in posterior
    }


def stretches(chains: Float[Any, "chain draw d"]) -> Clusters:
    """Chains cut into at least `MIN_CLUSTERS` stretches, each of them a cluster."""
    number = -(-MIN_CLUSTERS // chains.shape[0])
    length = max(chains.shape[1] // number, 1)
    kept = chains[:, : chains.shape[1] // length * length]
    return kept.reshape(-1, length, chains.shape[2])
