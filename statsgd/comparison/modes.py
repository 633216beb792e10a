"""Endpoints and laws seen mode by mode in phase space: what figures of Gaussian laws need."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.comparison.samples import read_ensemble
from statsgd.comparison.statistics import cluster_variance
from statsgd.laws.minimum import MinimumGaussian
from statsgd.provenance import provenance

#: Endpoints kept per shown mode: enough for a histogram, few enough for a report.
MAX_POINTS = 4000


def modes_in_phase_space(
    endpoints: xr.DataTree,
    laws: Mapping[str, MinimumGaussian],
    *,
    shown: Sequence[int] | None = None,
    include_snapshots: bool = False,
) -> xr.DataTree:
    """Project endpoints and Gaussian laws on the eigenmodes of the first law's Hessian.

    **Returns** a `DataTree` of kind `modes` with `moments` (dims `law`, `mode`): Hessian
    eigenvalue, law variances of θ and m, their covariance, measured variances with errors; and
    `points` (dims `point`, `shown`): endpoints, centred on the first law, along the modes `shown`
    (by default the flattest and the sharpest).
    """
    if not laws:
        raise ValueError("laws must name at least one Gaussian law, got none")
    first = next(iter(laws.values()))
    vectors = first.modes().vectors
    curvatures = _diagonal(first.hessian, vectors)
    samples = read_ensemble(endpoints, include_snapshots=include_snapshots)
    moments: dict = {"curvature": ("mode", np.asarray(curvatures))}
    for variable in first.variables:
        predicted = [_diagonal(law.covariance(variable), vectors) for law in laws.values()]
        measured = cluster_variance(samples[variable] @ vectors)
        moments[f"{variable}_predicted"] = (("law", "mode"), np.stack(predicted))
        moments[f"{variable}_measured"] = ("mode", measured.value)
        moments[f"{variable}_standard_error"] = ("mode", measured.standard_error)
    cross = [_diagonal(law.covariance(*law.variables), vectors) for law in laws.values()]
    moments["cross_predicted"] = (("law", "mode"), np.stack(cross))
    chosen = [0, len(curvatures) - 1] if shown is None else list(shown)
    points = {
        variable: (
            ("point", "shown"),
            ((samples[variable][:, -1] - first.mean(variable)) @ vectors[:, chosen])[:MAX_POINTS],
        )
        for variable in first.variables
    }
    tree = xr.DataTree.from_dict(
        {
            "moments": xr.Dataset(
                moments, coords={"law": list(laws), "mode": np.arange(len(curvatures))}
            ),
            "points": xr.Dataset(points, coords={"shown": chosen}),
        }
    )
    tree.attrs = provenance("modes")
    return tree


def _diagonal(covariance: Float[Any, "d d"], vectors: Float[Any, "d k"]) -> Float[Any, " k"]:
    return np.einsum("ik,ij,jk->k", vectors, covariance, vectors)
