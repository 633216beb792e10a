"""Data trees read as arrays `(cluster, within, d)`: what is independent, and what is not.

A cluster is a replica of an ensemble (its late steps are correlated) or a stretch of a chain.
Errors are computed over clusters alone, so correlation within a cluster does no harm.
"""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

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
    if "endpoints" not in tree.children:
        raise ValueError(
            f"endpoints must be a DataTree of simulate with the group 'endpoints', got the groups "
            f"{sorted(tree.children)}"
        )
    groups = {"params": "endpoints", "momentum_buffer": "momentum_buffer"}
    if include_snapshots:
        if "snapshots" not in tree.children:
            raise ValueError("include_snapshots needs an ensemble simulated with keep=…, got none")
        groups = {"params": "snapshots", "momentum_buffer": "snapshots_momentum_buffer"}
    alive = np.ones(tree["endpoints"].sizes["replica"], dtype=bool)
    if "run" in tree.children:
        alive = ~tree["run"].to_dataset()["diverged"].values
    if not alive.all() and not condition_on_survival:
        raise ValueError(
            f"{int((~alive).sum())} of {alive.size} replicas diverged, and what is left is not a "
            "sample of the stationary law; pass condition_on_survival=True to compare it anyway"
        )
    if not alive.any():
        raise ValueError("every replica diverged: there is nothing to compare")
    read = {}
    for variable, group in groups.items():
        if group in tree.children:
            values = flatten_variables(tree[group].to_dataset(), ("replica", "step"))
            read[variable] = values[alive]
    return read


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
        variable: flatten_variables(posterior[[variable]], ("chain", "draw"))
        for variable in variables
        if variable in posterior
    }


def stretches(chains: Float[Any, "chain draw d"]) -> Clusters:
    """Chains cut into at least `MIN_CLUSTERS` stretches, each of them a cluster."""
    number = -(-MIN_CLUSTERS // chains.shape[0])
    length = max(chains.shape[1] // number, 1)
    kept = chains[:, : chains.shape[1] // length * length]
    return kept.reshape(-1, length, chains.shape[2])


def flatten_variables(dataset: xr.Dataset, lead: tuple[str, str]) -> Clusters:
    """All variables of `dataset` side by side as float64; a missing lead dimension has size 1."""
    columns = []
    for array in dataset.data_vars.values():
        have = [dim for dim in lead if dim in array.dims]
        values = array.transpose(*have, ...).values.astype(np.float64)
        shape = [array.sizes[dim] if dim in array.dims else 1 for dim in lead]
        columns.append(values.reshape(*shape, -1))
    return np.concatenate(columns, axis=-1)
