"""One comparison for every cell of a grid of settings: where a law holds, and where it does not."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import random_seed
from statsgd.comparison.compare import REFERENCE_DRAWS, compare
from statsgd.comparison.reference import references
from statsgd.comparison.samples import read_ensemble
from statsgd.comparison.verdicts import Comparison
from statsgd.laws import ImproperLawError, Law
from statsgd.provenance import provenance

#: What is said of a cell at whose settings the law cannot be normalised.
IMPROPER = "improper"
_BINS = 40
_REACH = 4.0  # standard deviations of the law shown on either side


def compare_grid(
    axes: Mapping[str, Any],
    endpoints_at: Callable[..., xr.DataTree],
    law_at: Callable[..., Law],
    *,
    seed: int,
    margin: float = 0.1,
    confidence: float = 0.95,
    direction: Float[Any, " d"] | None = None,
    **options: Any,
) -> xr.DataTree:
    """Compare endpoints with laws at every combination of two settings.

    **Arguments:**

    - `axes`: two names with their values, such as `{"learning_rate": [...], "batch_size": [...]}`.
    - `endpoints_at`, `law_at`: given the settings of a cell by name, its ensemble (a cell of a
      `grid` ensemble by `tree.sel`, or a run of its own) and its law.
    - `direction`: unit vector along which marginals are kept; by default the first parameter.
    - `confidence`: at which the intervals of *all* cells hold simultaneously.
    - `options`: further arguments of `compare`.

    **Returns** a tree of kind `comparison_grid`: `cells`, with dims of the axes: `verdict`,
    `effect` (the variance ratio farthest from 1) with `low` and `high`, `distance` (the energy
    coefficient), and `survived`, the share of replicas that did not diverge; `marginals`: shares of
    endpoints and of the law in bins of the law's standard deviation. Cells where every replica
    diverged have the verdict "diverged"; where the law cannot be normalised, "improper".

    Raises `ValueError` unless there are two axes with values.

    >>> import numpy as np, statsgd
    >>> def endpoints_at(variance, points):
    ...     drawn = np.random.default_rng(0).normal(size=(points, 1))
    ...     return statsgd.ensemble(drawn)
    >>> def law_at(variance, points):
    ...     return statsgd.laws.GaussianLaw([0.0], [[variance]])
    >>> axes = {"variance": [1.0, 2.0], "points": [4000]}
    >>> compare_grid(axes, endpoints_at, law_at, seed=0)["cells"]["verdict"].values.tolist()
    [['agrees within 10 %'], ['differs by more than 10 %']]
    """
    if len(axes) != 2 or not all(np.size(values) for values in axes.values()):
        raise ValueError(f"axes must name two settings with values, got {dict(axes)!r}")
    random_seed(seed)
    coords = {name: np.asarray(values) for name, values in axes.items()}
    shape = tuple(values.size for values in coords.values())
    within = 1 - (1 - confidence) / np.prod(shape)
    cells = {name: np.full(shape, np.nan) for name in ("effect", "low", "high", "distance")}
    cells["survived"] = np.ones(shape)
    verdicts = np.full(shape, IMPROPER, dtype=object)
    shares = {name: np.full((*shape, _BINS), np.nan) for name in ("endpoints", "law")}
    for place in np.ndindex(*shape):
        setting = {
            name: values[i].item() for i, (name, values) in zip(place, coords.items(), strict=True)
        }
        ensemble = endpoints_at(**setting)
        cells["survived"][place] = _survived(ensemble)
        if not cells["survived"][place]:
            verdicts[place] = "diverged"
            continue
        try:
            law = law_at(**setting)
            law.require_proper()
        except ImproperLawError:
            continue
        comparison = compare(ensemble, law, seed=seed, margin=margin, confidence=within, **options)
        verdicts[place] = comparison.verdict
        for name, value in _worst(comparison).items():
            cells[name][place] = value
        shares["endpoints"][place], shares["law"][place] = _shares(ensemble, law, direction, seed)
    dims = tuple(coords)
    edges = np.linspace(-_REACH, _REACH, _BINS + 1)
    data = {name: (dims, values) for name, values in cells.items()}
    data["verdict"] = (dims, verdicts.astype(str))
    marginals = {name: ((*dims, "bin"), values) for name, values in shares.items()}
    tree = xr.DataTree.from_dict(
        {
            "cells": xr.Dataset(data, coords),
            "marginals": xr.Dataset(marginals, coords | {"bin": (edges[1:] + edges[:-1]) / 2}),
        }
    )
    tree.attrs = provenance(
        "comparison_grid", axes=list(dims), margin=margin, confidence=confidence, seed=seed
    )
    return tree


def _survived(ensemble: xr.DataTree) -> float:
    if "run" not in ensemble.children:
        return 1.0
    return float(1 - ensemble["run"].to_dataset()["diverged"].values.mean())


def _worst(comparison: Comparison) -> dict[str, float]:
    """The ratio of spread that is farthest from 1 by factor, and the energy coefficient."""
    ratios = comparison.effects("variance ratio")
    if not len(ratios):
        ratios = comparison.effects("median deviation ratio")
    row = ratios.loc[np.abs(np.log(ratios["effect"])).idxmax()]
    found = {name: float(row[name]) for name in ("effect", "low", "high")}
    return found | {"distance": float(comparison.distances["coefficient"].iloc[0])}


def _shares(ensemble: xr.DataTree, law: Law, direction: Any, seed: int) -> tuple[Any, Any]:
    """Shares of endpoints and of the law's draws in bins about the law's mean."""
    points = read_ensemble(ensemble, condition_on_survival=True)["params"][:, -1]
    reference = references(law, ("params",), seed, REFERENCE_DRAWS)["params"]
    along = np.eye(points.shape[1])[0] if direction is None else np.asarray(direction, dtype=float)
    unit = np.std(reference.draws[:, 0] @ along)
    if reference.has_covariance:
        unit = np.sqrt(along @ reference.covariance @ along)
    edges = np.linspace(-_REACH, _REACH, _BINS + 1)
    return tuple(
        np.histogram((values - reference.mean) @ along / unit, edges)[0] / len(values)
        for values in (points, reference.draws[:, 0])
    )
