"""Ensembles along modes: every position as its distances from a checkpoint."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import finite_array
from statsgd.ensembles import ORDER, flat

#: Groups of positions, and of buffers, which have no origin.
_POSITIONS = {"endpoints": True, "snapshots": True}
_BUFFERS = {"momentum_buffer": False, "snapshots_momentum_buffer": False}


def projected(
    ensemble: xr.DataTree | Any, modes: Float[Any, "d k"], origin: Float[Any, " d"]
) -> xr.DataTree | Float[Any, "... k"]:
    """Vᵀ(θ − origin) of parameters, and Vᵀm of buffers, in a tree of the same groups.

    Raises `ValueError` for parameters of another number, and for grids.
    """
    if not isinstance(ensemble, xr.DataTree):
        points = np.asarray(finite_array("ensemble", ensemble), dtype=np.float64)
        _require_dimension(points.shape, len(modes))
        return (points - origin) @ modes
    groups: dict[str, xr.Dataset] = {}
    for name, group in ensemble.children.items():
        dataset = group.to_dataset()
        if name in _POSITIONS or name in _BUFFERS:
            dataset = _along(dataset, modes, origin if name in _POSITIONS else 0 * origin)
        elif name == "optimiser_state":
            continue
        groups[name] = dataset
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(ensemble.attrs)
    return tree


def _along(dataset: xr.Dataset, modes: Any, origin: Any) -> xr.Dataset:
    lead = tuple(dim for dim in ("replica", "step") if dim in dataset.dims)
    axes = [str(dim) for dim in dataset.coords if dim not in ("replica", "step")]
    if "replica" not in lead or axes:
        raise ValueError(f"ensemble must be one cell of a grid, got the axes {axes}")
    points = flat(dataset, ("replica", "step"))
    _require_dimension(points.shape, len(modes))
    along = (points - origin) @ modes
    along = along.reshape(*(dataset.sizes[dim] for dim in lead), modes.shape[1])
    coords = {dim: dataset[dim].values for dim in lead if dim in dataset.coords}
    variables = {"params": ((*lead, "params_dim_0"), along)}
    return xr.Dataset(variables, coords=coords, attrs={**dataset.attrs, ORDER: ["params"]})


def _require_dimension(shape: tuple[int, ...], dimension: int) -> None:
    if not shape or shape[-1] != dimension:
        raise ValueError(f"ensemble must have {dimension} parameters, got shape {shape}")
