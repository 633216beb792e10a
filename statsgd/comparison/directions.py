"""Endpoints and law along directions of one variable: what location, spread and shape look at."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from statsgd.comparison.reference import Reference
from statsgd.comparison.samples import Clusters
from statsgd.laws import IntractableError, Law

#: Variances below this share of the largest one are zero: the law has no noise there.
NOISELESS = 1e-10


class Along(NamedTuple):
    """Endpoints and law of one variable along the directions of one kind that have noise."""

    variable: str
    direction: str
    """`"coordinate"` or `"mode"`."""
    index: Any
    """Number of each direction among those of its kind."""
    measured: Clusters
    reference: Reference
    """Of these directions alone."""
    law: Law | None
    """The law itself where it may state the distribution along these directions."""

    def scattered(self) -> Float[Any, "m k"]:
        """Draws of the law, as good as independent."""
        return self.reference.independent.values


def directions(
    source: Any, references: dict[str, Reference], modes: Any, coordinates: bool
) -> dict[str, Float[Any, "d k"]]:
    """Orthonormal columns to look along: the coordinates, and `modes` or those of the law.

    A law without covariance has no modes but those that it states or that are given.
    """
    reference = references.get("params") or next(iter(references.values()))
    d = len(reference.mean)
    finite = bool(np.all(np.isfinite(reference.covariance)))
    if modes is None:
        modes = np.linalg.eigh(reference.covariance)[1] if finite else np.eye(d)
        if isinstance(source, Law) and reference.exact and finite:
            modes = source.directions()
    columns = np.asarray(modes, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] != d:
        raise ValueError(f"modes must have shape ({d}, k), got {columns.shape}")
    return ({"coordinate": np.eye(d)} if coordinates else {}) | {"mode": columns}


def along(
    variable: str,
    samples: Clusters,
    reference: Reference,
    direction: str,
    columns: Float[Any, "d k"],
    source: Any,
) -> Along:
    """One variable along those of `columns` in which the law has noise."""
    seen = reference.seen_along(columns)
    index = np.flatnonzero(has_noise(seen))
    columns = columns[:, index]
    states = isinstance(source, Law) and direction == "coordinate" and variable == "params"
    every = states and len(index) == len(reference.mean)
    return Along(
        variable,
        direction,
        index,
        samples @ columns,
        reference.seen_along(columns),
        source if every and _states_distribution(source) else None,
    )


def has_noise(reference: Reference) -> Bool[Any, " k"]:
    """In which of its directions a law scatters, by its variances or its quartiles."""
    variance = np.diagonal(reference.covariance)
    if not np.all(np.isfinite(variance)):
        return np.ptp(np.quantile(reference.independent.values, [0.25, 0.75], axis=0), axis=0) > 0
    return variance > NOISELESS * np.max(variance, initial=0.0)


def _states_distribution(law: Law) -> bool:
    try:
        law.cdf(np.zeros((1, law.dimension)))
    except IntractableError:
        return False
    return True
