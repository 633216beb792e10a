"""How flat the loss is around the checkpoint."""

import numpy as np
import xarray as xr

from statsgd.diagnosis.gradients import loss_at
from statsgd.diagnosis.part import Part
from statsgd.diagnosis.request import Request

#: Size of random displacements, relative to the weights' root mean square, and their number.
DISPLACEMENT, PAIRS = 0.05, 8


def flatness(request: Request) -> xr.Dataset:
    """E[L(θ₀+ν) − L(θ₀)] for normal ν of a twentieth of the size of the weights.

    As `measures.expected_sharpness`, whose displacements are all evaluated at once: here one after
    the other, for networks of any size.
    """
    problem, flat = request.problem, request.flat
    radius = DISPLACEMENT * (float(np.sqrt(np.mean(flat**2))) or 1.0)
    here = loss_at(problem, request.params)
    rng = np.random.default_rng(request.seed)
    rises = []
    for _ in range(PAIRS):
        shift = radius * rng.standard_normal(len(flat))
        there = [loss_at(problem, problem.unflatten(flat + sign * shift)) for sign in (1, -1)]
        rises.append(np.mean(there) - here)
    error = np.std(rises, ddof=1) / np.sqrt(PAIRS)
    return xr.Dataset({"radius": radius, "rise": np.mean(rises), "rise_error": error})


def told(numbers: xr.Dataset, look: xr.Dataset, whole: xr.Dataset) -> Part:
    """Rise of the loss under random displacements, and how much of it is plain curvature."""
    rise, error, radius = (float(numbers[name]) for name in ("rise", "rise_error", "radius"))
    loss, trace = float(look["loss"]), float(whole["hessian_trace"])
    quadratic, share = radius**2 * trace / 2, rise / loss if loss else float("inf")
    finding = (
        f"Shaking every weight at random by {DISPLACEMENT:.0%} of their typical size (ε = "
        f"{radius:.2g}) raises the loss by {rise:.3g} ± {error:.1g}, {share:.2g} of the "
        f"loss itself ({loss:.4g}). Curvature alone, ε² Tr H/2, would raise it by {quadratic:.3g}."
    )
    advice = (
        "Compare these numbers between runs of one architecture only: they change when layers are "
        "rescaled although the network's function does not."
    )
    return Part(
        "Flatness", finding, advice, source="Zhu et al. (2019), arXiv:1803.00195, for the measure"
    )
