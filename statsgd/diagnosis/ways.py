"""The straight ways from the checkpoint to where replicas end: kinks and ridges on them."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.diagnosis.request import Request
from statsgd.estimate import Estimate
from statsgd.measures.curvature.secant import secant_curvature
from statsgd.measures.escape.barrier import loss_barrier
from statsgd.measures.runs.averages import jackknife

#: Replicas whose ways are looked at, and part of curvature in kinks that is worth a word.
WAYS, KINKED = 6, 0.02
#: Barrier that counts as a ridge, relative to what the curvature between the ends would make the
#: loss rise from one to the other.
BARRIER = 0.05


def ways(request: Request, ends: Float[Any, "replica d"]) -> xr.Dataset:
    """Curvatures and barrier on the ways to a few endpoints; none to one that has not moved."""
    gone = [
        (request.problem, request.params, request.problem.unflatten(end))
        for end in ends[:WAYS]
        if np.any(end != request.flat)
    ]
    curved = [secant_curvature(*way) for way in gone]
    return xr.Dataset(
        {
            "secant_curvature": ("way", [way.between for way in curved]),
            "curvature_on_the_way": ("way", [way.on_the_way for way in curved]),
            "distance": ("way", [way.distance for way in curved]),
            "loss_barrier": ("way", [loss_barrier(*way) for way in gone]),
        }
    )


def told_ways(numbers: xr.Dataset) -> str:
    """What the ways say, in words."""
    return _told_kinks(numbers) + _told_barrier(numbers)


def over_second_derivatives(numbers: xr.Dataset) -> Estimate | None:
    """Curvature between the ends of replicas' ways over that of the places on them.

    None where fewer than two ways are known, or second derivatives curve downwards on them.
    """
    both = np.stack([numbers["secant_curvature"], numbers["curvature_on_the_way"]], axis=1)
    if len(both) < 2 or not np.all(np.isfinite(both)) or np.any(both[:, 1] <= 0):
        return None
    return jackknife(lambda mean: mean[..., 0] / mean[..., 1], both)


def _told_kinks(numbers: xr.Dataset) -> str:
    found = over_second_derivatives(numbers)
    if found is None:
        return ""
    ratio, error = float(found.value), float(found.standard_error)
    told = (
        f" From the checkpoint to where {found.clusters} of them ended the gradient changes "
        f"{ratio:.3f} ± {error:.1g} times as much along their way as second derivatives on it say."
    )
    if ratio > 1 + KINKED and found.p_value(1 + KINKED) < 0.05:
        told += (
            " The rest lies in kinks of the loss, such as those of ReLU units, which no law made "
            "of second derivatives knows: replicas stay nearer to the checkpoint than it says."
        )
    return told


def _told_barrier(numbers: xr.Dataset) -> str:
    barriers = numbers["loss_barrier"].values
    if not barriers.size or not np.all(np.isfinite(barriers)):
        return ""
    told = (
        f" On the straight ways to where {len(barriers)} of them ended the loss rises by at most "
        f"{barriers.max():.2g} above the line between its values at either end: "
    )
    scale = np.abs(numbers["secant_curvature"].values) * numbers["distance"].values ** 2 / 2
    over = int(np.sum(barriers > BARRIER * scale))
    if over:
        return told + (
            f"{over} of {len(barriers)} lead over a ridge, and those replicas may have left the "
            "basin of the checkpoint, which no law around it describes."
        )
    return told + "no ridge lies on them, as within one basin."
