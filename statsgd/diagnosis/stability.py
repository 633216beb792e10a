"""How much of its stability budget SGD uses at the checkpoint."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.diagnosis.part import Part
from statsgd.diagnosis.request import Request
from statsgd.dynamics.noise import Minibatch
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.measures.noise.batch_curvature import (
    CURVATURE_BATCHES,
    BatchCurvature,
    batch_curvature_along,
)
from statsgd.problems import DENSE_LIMIT, BatchRisk, EmpiricalRisk

#: Sharpest modes that are looked at, and the share of a budget from which on it is nearly spent.
SHARPEST, NEARLY = 8, 0.8


def of_batches(request: Request) -> bool:
    """Whether noise is of batches of a data set, which have curvatures of their own."""
    return isinstance(request.sgd.noise, Minibatch) and isinstance(
        request.problem, EmpiricalRisk | BatchRisk
    )


def stability(request: Request, law: ModeLaw) -> xr.Dataset:
    """Shares of two budgets: of steps of the whole loss, mode by mode, and of batches.

    Steps of the whole loss are stable along a mode while ηh < 2(1+β). Batches have Hessians of
    their own: variances along the modes stay finite up to `mean_square_threshold`, here that of
    the first modes, one, two and so on, of which those that bend downwards are left out; zero, and
    no share of it, where the mean of drawn batches bends downwards.
    """
    eta, beta = float(request.sgd.learning_rate), float(request.sgd.momentum)
    h, noise, problem = law.curvatures[:SHARPEST], request.sgd.noise, request.problem
    found: dict[str, Any] = {"mean_share": ("mode", eta * h / (2 * (1 + beta)))}
    if of_batches(request):
        directions = np.asarray(law.modes)[:, :SHARPEST]
        # Rounding in single precision is nothing beside what batches differ by.
        double = problem.dimension <= DENSE_LIMIT
        ask: Any = (problem, request.params, noise, directions)
        batches = batch_curvature_along(*ask, double=double)
        kappa = np.sum(np.diagonal(batches.deviations, axis1=1, axis2=2) ** 2, axis=0)
        thresholds = _thresholds(batches, h, beta, request.decay)
        found |= {
            "batch_curvature_variance": ("mode", kappa),
            "mean_square_threshold": ("mode", thresholds),
            "mean_square_share": (
                "mode",
                np.divide(eta, thresholds, out=np.zeros_like(thresholds), where=thresholds > 0),
            ),
            "exact": batches.exact,
        }
    return xr.Dataset(found, coords={"mode": np.arange(1, len(h) + 1)})


def _thresholds(
    batches: BatchCurvature, curvatures: Float[Any, " k"], beta: float, decay: float
) -> Float[np.ndarray, " k"]:
    """Learning rates up to which the first one, two, … modes are stable together."""
    found = np.full(len(curvatures), np.inf)
    for number in range(1, len(curvatures) + 1):
        kept = np.flatnonzero(curvatures[:number] > 0)
        if len(kept):
            rows = np.ix_(kept, kept)
            part = BatchCurvature(batches.mean[rows], batches.deviations[:, *rows], batches.exact)
            found[number - 1] = part.mean_square_threshold(beta, decay)
    return found


def told(numbers: xr.Dataset, request: Request) -> Part:
    """Whether SGD is stable here, by how much, and what would make it unstable."""
    eta, beta = float(request.sgd.learning_rate), float(request.sgd.momentum)
    share = float(numbers["mean_share"].max())
    finding = (
        f"Steps of the whole loss become unstable where the learning rate η times the largest "
        f"curvature h reaches 2(1+β) = {2 * (1 + beta):.3g}: here ηh is {share:.0%} of that, and "
        f"they alone would allow the learning rate {eta / share:.3g}."
        if share > 0
        else "No direction curves upwards here, so that no step is too large for the curvature."
    )
    worst = share
    if "mean_square_share" in numbers:
        worst = max(share, float(numbers["mean_square_share"].max()))
    finding += _of_batches(numbers, request)
    if worst >= 1:
        verdict = f"unstable: SGD uses {worst:.0%} of its stability budget here"
        advice = "Lower the learning rate, or raise the batch size: " + (
            "SGD will leave this place." if share >= 1 else
            "its variance grows without end here, by rare runs first; most may stay for long."
        )  # fmt: skip
    elif worst <= 0:
        verdict = "stable: no direction curves upwards"
        advice = "Curvature does not limit the learning rate here."
    elif worst >= NEARLY:
        verdict = f"at the edge: SGD uses {worst:.0%} of its stability budget"
        advice = (
            "Training holds itself at the edge of stability: a larger learning rate moves it to a "
            "flatter place, a smaller one lets curvature grow."
        )
    else:
        verdict = f"stable: SGD uses {worst:.0%} of its stability budget"
        advice = (
            "Curvature does not limit the learning rate here. If loss spikes, look for rare "
            "examples of large curvature, not at the average."
        )
    return Part(
        "Stability", finding, advice, verdict,
        "Cohen et al. (2021), arXiv:2103.00065, for the edge of stability; the budget of batches "
        "is derived",
    )  # fmt: skip


def _of_batches(numbers: xr.Dataset, request: Request) -> str:
    """What batches take away from the learning rate."""
    if "mean_square_share" not in numbers:
        return " That batches differ in curvature is looked at for those of a data set alone."
    thresholds = numbers["mean_square_threshold"].values
    last, upwards = float(thresholds[-1]), int(np.sum(numbers["mean_share"].values > 0))
    if not np.isfinite(last):
        return ""
    if last <= 0:
        return " How much batches differ in curvature is not known: drawn ones bend downwards."
    finding = (
        " Batches differ in curvature, and so push along the sharpest modes by chance: along the "
        f"{upwards} sharpest together the variance of SGD stays finite up to the learning "
        f"rate {last:.3g}, of which it uses {float(numbers['mean_square_share'][-1]):.0%} "
        f"({float(thresholds[0]):.3g} along the sharpest alone; further modes can only lower it)."
    )
    if not bool(numbers["exact"]):
        finding += (
            f" That is of {CURVATURE_BATCHES} drawn batches."
            if isinstance(request.problem, BatchRisk)
            else " That is of some drawn keys of every example's random loss."
        )
    if not request.sgd.noise.white:
        finding += " It takes batches as independent, not as parts of an epoch."
    return finding
