"""Ensembles read as arrays `(replica, step, …)`, and what is measured on them labelled again."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from statsgd.measures.measured import Measured


class Trajectories(NamedTuple):
    """Flat parameters of an ensemble on their way."""

    params: Float[Any, "replica step d"]
    steps: Int[Any, " step"]
    momentum_buffer: Float[Any, "replica step d"] | None
    """The buffer m at the same steps, None for dynamics without momentum."""

    def spacing(self) -> int:
        """Steps from one record to the next; `ValueError` unless they are evenly spaced."""
        gaps = np.unique(np.diff(self.steps))
        if len(gaps) != 1:
            raise ValueError(
                "snapshots must be evenly spaced for this measure (simulate with keep=every), got "
                f"gaps of {gaps.tolist()} steps"
            )
        return int(gaps[0])

    def require_consecutive(self) -> None:
        """Raise `ValueError` unless every step was kept."""
        if self.spacing() != 1:
            raise ValueError(
                "snapshots must be those of consecutive steps for this measure (simulate with "
                f"keep=1, or keep=range(…)), got every {self.spacing()}th"
            )


def trajectories(tree: xr.DataTree) -> Trajectories:
    """Kept parameters of `simulate(…, keep=…)`, in flattening order, without grid axes.

    Raises `ValueError` without the group `snapshots`, for a grid (select a cell first), and if
    replicas diverged: what is left is not a sample of the law.
    """
    dataset = _group(tree, "snapshots", "keep=…")
    buffers = None
    if "snapshots_momentum_buffer" in tree.children:
        buffers = _flat(tree["snapshots_momentum_buffer"].to_dataset())
    return Trajectories(_flat(dataset), dataset["step"].values, buffers)


def endpoint_trajectories(tree: xr.DataTree) -> Trajectories:
    """The endpoints of `simulate`, as trajectories of one step. Raises as `trajectories`."""
    dataset = _group(tree, "endpoints", "")
    buffers = None
    if "momentum_buffer" in tree.children:
        buffers = _flat(tree["momentum_buffer"].to_dataset())
    return Trajectories(_flat(dataset), np.zeros(1, dtype=int), buffers)


def observed(tree: xr.DataTree, name: str) -> xr.DataArray:
    """Observable `name` of `simulate(…, observe={name: …})`, dims `replica`, `step`, ….

    Raises `ValueError` if it was not observed, and as `trajectories`.
    """
    dataset = _group(tree, "observables", f"observe={{{name!r}: …}}")
    if name not in dataset:
        raise ValueError(
            f"observable must be one of {sorted(map(str, dataset.data_vars))}, got {name!r}"
        )
    return dataset[name].transpose("replica", "step", ...)


def label(
    measured: Mapping[str, Measured], dims: tuple[str, ...], coords: Mapping[str, Any]
) -> xr.Dataset:
    """A dataset with every measured value and, as `<name>_error`, its standard error."""
    variables: dict[str, Any] = {}
    for name, one in measured.items():
        variables[name] = (dims, np.asarray(one.value))
        variables[f"{name}_error"] = (dims, np.asarray(one.standard_error))
    return xr.Dataset(variables, coords=dict(coords))


def _group(tree: xr.DataTree, group: str, argument: str) -> xr.Dataset:
    if group not in tree.children:
        raise ValueError(
            f"tree must have the group {group!r} (simulate with {argument}), got "
            f"{sorted(map(str, tree.children))}"
        )
    dataset = tree[group].to_dataset()
    more = set(dataset.dims) - {"replica", "step"}
    axes = sorted(str(dim) for dim in more if dim in dataset.coords)
    if axes:
        raise ValueError(f"tree must be one cell of a grid, got the axes {axes}")
    if "run" in tree.children:
        diverged = int(tree["run"].to_dataset()["diverged"].values.sum())
        if diverged:
            raise ValueError(
                f"{diverged} of {dataset.sizes['replica']} replicas diverged, and what is left is "
                "no sample of the law"
            )
    return dataset


def _flat(dataset: xr.Dataset) -> Float[Any, "replica step d"]:
    columns = []
    for array in dataset.data_vars.values():
        if "step" not in array.dims:
            array = array.expand_dims("step")
        values = array.transpose("replica", "step", ...).values.astype(np.float64)
        columns.append(values.reshape(*values.shape[:2], -1))
    return np.concatenate(columns, axis=-1)
