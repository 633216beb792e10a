"""Ensembles as ArviZ reads draws: endpoints in superchains, in the groups of its schema."""

from typing import Any

import numpy as np
import xarray as xr

from statsgd.arguments import count, told
from statsgd.ensembles import endpoint_trajectories, order, surviving

#: What ArviZ looks at: agreement of chains, of which there must be several.
CHAINS = 4


def as_posterior(
    ensemble: xr.DataTree, *, chains: int = CHAINS, condition_on_survival: bool = False
) -> xr.DataTree:
    """The endpoints of an ensemble as the group `posterior` of ArviZ's schema.

    >>> import arviz as az, numpy as np, statsgd
    >>> tree = statsgd.ensemble(np.random.default_rng(0).normal(size=(400, 2)))
    >>> draws = statsgd.as_posterior(tree)
    >>> dict(draws["posterior"].sizes)
    {'chain': 4, 'draw': 100, 'params_dim_0': 2}

    Endpoints are independent, so that `chains` equal parts of them are chains which have mixed:
    `az.summary`, `az.plot_forest`, `az.plot_pair`, `az.plot_dist` and the rest read the result as
    they read draws of `statsgd.sample`, and both side by side: `az.plot_forest({"SGD":
    statsgd.as_posterior(ensemble), "law": draws})`. Variables have the names and dims of those of
    `sample`: an ensemble of flat parameters and draws of its law share `params`. A remainder of
    fewer than `chains` endpoints is left out. Of an ensemble with a momentum buffer of its own the
    variable `momentum_buffer` holds it, for params of one variable.

    **Arguments:** `ensemble`, of `simulate` or `statsgd.ensemble`, without grid axes;
    `condition_on_survival`, whether to leave out replicas that diverged.

    Raises `ValueError` for fewer than two endpoints a chain, and as `compare` for what is no
    ensemble or holds replicas that diverged.
    """
    if not isinstance(ensemble, xr.DataTree):
        raise ValueError(f"ensemble must be a DataTree of simulate, got {told(ensemble)}")
    count("chains", chains)
    # Reads and refuses as comparisons do.
    endpoint_trajectories(ensemble, condition_on_survival=condition_on_survival)
    alive = surviving(ensemble)
    ends = ensemble["endpoints"].to_dataset()
    groups: dict[str, Any] = {str(name): array for name, array in ends.data_vars.items()}
    if "momentum_buffer" in ensemble.children and len(groups) == 1:
        (buffer,) = ensemble["momentum_buffer"].to_dataset().data_vars.values()
        groups["momentum_buffer"] = buffer.rename(
            {d: str(d).replace(str(buffer.name), "momentum_buffer") for d in buffer.dims}
        )
    chosen = np.arange(ends.sizes["replica"]) if alive is None else np.flatnonzero(alive)
    length = len(chosen) // chains
    if length < 2:
        raise ValueError(
            f"chains must be at most half of the {len(chosen)} endpoints, got {chains}"
        )
    variables = {}
    for name, array in groups.items():
        values = array.transpose("replica", ...).values[chosen[: chains * length]]
        dims = [dim for dim in array.dims if dim != "replica"]
        shaped = values.reshape(chains, length, *values.shape[1:])
        variables[name] = (("chain", "draw", *dims), shaped)
    names = [name for name in order(ends) if name in variables] or list(variables)
    names += [name for name in variables if name not in names]
    data = xr.Dataset(
        {name: variables[name] for name in names},
        coords={"chain": np.arange(chains), "draw": np.arange(length)},
    )
    tree = xr.DataTree.from_dict({"posterior": data})
    tree.attrs = dict(ensemble.attrs) | {"kind": "draws", "law": "endpoints", "kernel": "SGD"}
    return tree
