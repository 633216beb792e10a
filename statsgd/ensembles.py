"""Ensembles and draws as data trees, read as arrays whose last axis is one of parameters.

Variables of a group are joined in the order of the params' leaves: that of the names a caller
gives, else of the attribute `parameters` of the group, which every run writes. The order in which
they are listed means nothing: file systems list a store as they like. So several variables of
which nothing says the order are refused.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from statsgd.arguments import told

#: Attribute of a group of parameters that lists the names of its variables in order.
ORDER = "parameters"


class Trajectories(NamedTuple):
    """Flat parameters of an ensemble on their way."""

    params: Float[Any, "replica step d"]
    steps: Int[Any, " step"]
    momentum_buffer: Float[Any, "replica step d"] | None
    """The buffer m at the same steps, None for dynamics without momentum."""


def trajectories(
    tree: xr.DataTree, names: Sequence[str] | None = None, *, condition_on_survival: bool = False
) -> Trajectories:
    """Kept parameters of `simulate(…, keep=…)`, flattened, without grid axes.

    **Arguments:** `names` of the params' leaves in order, `problem.names`, where they are known;
    `condition_on_survival`, whether to leave out replicas that diverged.

    Raises `ValueError` without the group `snapshots`, for a grid (select a cell first), for names
    that the group does not hold, for several variables without an order, and if replicas diverged,
    unless `condition_on_survival`: what is left is not a sample of the law.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, simulate
    >>> from statsgd.problems import quadratic
    >>> sgd = SGD(0.1, noise.Isotropic(1.0))
    >>> tree = simulate(
    ...     quadratic(np.eye(2)), sgd, steps=20, replicas=3, seed=0, progress=False, keep=10
    ... )
    >>> found = trajectories(tree)
    >>> found._fields, found.params.shape
    (('params', 'steps', 'momentum_buffer'), (3, 2, 2))
    """
    return _read(tree, "snapshots", "snapshots_momentum_buffer", names, condition_on_survival)


def endpoint_trajectories(
    tree: xr.DataTree, names: Sequence[str] | None = None, *, condition_on_survival: bool = False
) -> Trajectories:
    """The endpoints of `simulate`, as trajectories of one step. Raises as `trajectories`.

    Numbers are float64.

    >>> import numpy as np, statsgd
    >>> tree = statsgd.ensemble(np.ones((3, 2)))
    >>> endpoint_trajectories(tree).params.shape
    (3, 1, 2)
    """
    return _read(tree, "endpoints", "momentum_buffer", names, condition_on_survival)


def observed(tree: xr.DataTree, name: str) -> xr.DataArray:
    """Observable `name` of `simulate(…, observe={name: …})`, dims `replica`, `step`, ….

    Raises `ValueError` if it was not observed.
    """
    dataset = _group(tree, "observables")
    if name not in dataset:
        raise ValueError(
            f"observable must be one of {sorted(map(str, dataset.data_vars))}, got {name!r}"
        )
    return dataset[name].transpose("replica", "step", ...)


def order(dataset: xr.Dataset) -> list[str]:
    """Names of the parameters in a group in order; none where it does not say."""
    # Some file formats give back a list of one as text.
    return np.atleast_1d(dataset.attrs.get(ORDER, [])).tolist()


def flat(
    dataset: xr.Dataset, lead: tuple[str, str], names: Sequence[str] | None = None
) -> Float[Any, "lane record d"]:
    """All variables side by side as float64, in order; a missing lead dimension has size 1."""
    wanted = _in_order(dataset) if names is None else list(names)
    if sorted(wanted) != sorted(map(str, dataset.data_vars)):
        raise ValueError(f"params must be {wanted}, got {sorted(map(str, dataset.data_vars))}")
    columns = []
    for array in (dataset[name] for name in wanted):
        have = [dim for dim in lead if dim in array.dims]
        values = array.transpose(*have, ...).values.astype(np.float64)
        width = math.prod(values.shape[len(have) :])  # 0 for a leaf of no numbers
        columns.append(values.reshape(*(array.sizes.get(dim, 1) for dim in lead), width))
    return np.concatenate(columns, axis=-1)


def surviving(tree: xr.DataTree) -> Bool[Any, " replica"] | None:
    """Which replicas did not diverge; None where the tree does not say."""
    return ~tree["run"].to_dataset()["diverged"].values if "run" in tree.children else None


def counting_overflow(tree: xr.DataTree) -> xr.DataTree:
    """`tree` of `simulate` with replicas whose loss is not finite among those that diverged.

    Their parameters still are finite, and nothing that is computed from them is.
    """
    run = tree["run"].to_dataset()
    lost = run["diverged"] | ~np.isfinite(run["loss"])
    return tree.assign({"run": xr.DataTree(run.assign(diverged=lost))})


def _in_order(dataset: xr.Dataset) -> list[str]:
    listed = sorted(map(str, dataset.data_vars))
    known = order(dataset)
    if not known and len(listed) > 1:
        raise ValueError(
            f"params must come with their order, got {listed} in no known one; give names, or set "
            f"the attribute {ORDER!r} of the group to problem.names"
        )
    return known or listed


def _read(
    tree: xr.DataTree,
    group: str,
    buffers: str,
    names: Sequence[str] | None,
    condition_on_survival: bool,
) -> Trajectories:
    dataset = _group(tree, group)
    alive = _alive(tree, dataset.sizes["replica"], condition_on_survival)
    parts = [dataset]
    if buffers in tree.children:
        parts.append(tree[buffers].to_dataset())
    params, *momentum = (flat(part, ("replica", "step"), names)[alive] for part in parts)
    for name, values in zip((group, buffers), (params, *momentum), strict=False):
        bad = int((~np.isfinite(values)).any(axis=(1, 2)).sum())
        if bad:
            raise ValueError(
                f"{name} must be finite, got NaN or infinity in {bad} of {len(values)} replicas "
                "that are not marked as diverged"
            )
    steps = dataset["step"].values if "step" in dataset.dims else np.zeros(1, dtype=int)
    return Trajectories(params, steps, *(momentum or [None]))


def _group(tree: xr.DataTree, group: str) -> xr.Dataset:
    asked = {"snapshots": ", simulated with keep=…,", "observables": ", simulated with observe=…,"}
    if not isinstance(tree, xr.DataTree):
        raise ValueError(f"endpoints must be a DataTree of simulate or ensemble, got {told(tree)}")
    if group not in tree.children:
        raise ValueError(
            f"endpoints must be a DataTree of simulate{asked.get(group, '')} with the group "
            f"{group!r}, got the groups {sorted(map(str, tree.children))}; statsgd.ensemble makes "
            "such a tree of points from elsewhere"
        )
    dataset = tree[group].to_dataset()
    if not dataset.data_vars:
        raise ValueError(f"endpoints must hold parameters in the group {group!r}, got no variable")
    for name, array in dataset.data_vars.items():
        if "replica" not in array.dims:
            raise ValueError(
                f"endpoints must have the dim 'replica' in the group {group!r}, got {name!r} with "
                f"the dims {list(array.dims)}: rename the one of independent runs to it"
            )
        before = array.dims[: array.dims.index("replica")]
        axes = [str(dim) for dim in before if dim in dataset.coords]
        if axes:
            raise ValueError(
                f"the ensemble must be one cell of a grid, got the axes {axes}: select one by "
                f"tree.sel({axes[0]}=…), or see statsgd.comparison.compare_grid"
            )
    return dataset


def _alive(tree: xr.DataTree, replicas: int, condition_on_survival: bool) -> Bool[Any, " replica"]:
    known = surviving(tree)
    alive = np.ones(replicas, dtype=bool) if known is None else known
    if not alive.all() and not condition_on_survival:
        raise ValueError(
            f"{int((~alive).sum())} of {alive.size} replicas diverged, and what is left is not a "
            "sample of the stationary law; pass condition_on_survival=True to read it anyway"
        )
    if not alive.any():
        raise ValueError("every replica diverged: there is nothing to read")
    return alive
