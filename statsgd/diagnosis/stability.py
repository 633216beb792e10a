"""How much of its stability budget SGD uses at the checkpoint."""

import numpy as np
import xarray as xr

from statsgd.diagnosis.gradients import batch_curvature_variance, of_examples
from statsgd.diagnosis.part import Part
from statsgd.diagnosis.request import Request
from statsgd.laws.networks.mode_law import ModeLaw

#: Sharpest modes that are looked at, and the share of a budget from which on it is nearly spent.
SHARPEST, NEARLY = 4, 0.8


def stability(request: Request, law: ModeLaw) -> xr.Dataset:
    """Shares of two budgets: of steps of the whole loss, and of batches, mode by mode.

    Steps of the whole loss are stable along a mode while ηh < 2(1+β). Batches have curvatures of
    their own, of variance κ = b Var_n(vᵀH_n v): the chain x ← x − η(h_b x + …) along one mode has
    a stationary variance while ηκR/(2h(1−β)) < 1, R = 1/(1 − ηh/(2(1+β))), and it is larger by
    one over what is left of that.
    """
    eta, beta = float(request.sgd.learning_rate), float(request.sgd.momentum)
    h = law.curvatures[:SHARPEST]
    share = eta * h / (2 * (1 + beta))
    found = {"mean_share": ("mode", share)}
    noise = request.sgd.noise
    if of_examples(request.problem, noise):
        directions = np.asarray(law.modes).T[:SHARPEST]
        kappa = batch_curvature_variance(request.problem, request.params, directions)
        kappa *= noise.variance_factor(request.problem)  # type: ignore[attr-defined]
        with np.errstate(divide="ignore", invalid="ignore"):
            spent = eta * kappa / (2 * h * (1 - beta) * (1 - share))
        found |= {"batch_curvature_variance": ("mode", kappa)}
        found |= {"mean_square_share": ("mode", np.where((h > 0) & (share < 1), spent, np.inf))}
    return xr.Dataset(found, coords={"mode": np.arange(1, len(h) + 1)})


def told(numbers: xr.Dataset, request: Request) -> Part:
    """Whether SGD is stable here, by how much, and what would make it unstable."""
    eta, beta = float(request.sgd.learning_rate), float(request.sgd.momentum)
    share = float(numbers["mean_share"].max())
    finding = (
        f"Steps of the whole loss become unstable where the learning rate η times the largest "
        f"curvature h reaches 2(1+β) = {2 * (1 + beta):.3g}: here ηh is {share:.0%} of that, and "
        f"the learning rate could grow to {eta / share:.3g}."
        if share > 0
        else "No direction curves upwards here, so that no step is too large for the curvature."
    )
    worst = share
    if "mean_square_share" in numbers:
        spent = float(numbers["mean_square_share"].max())
        finding += (
            " Batches differ in curvature, and so push along the sharpest modes by chance: along "
            f"one of the {numbers.sizes['mode']} sharpest they use up {spent:.0%} of what the "
            "variance of SGD can bear."
        )
        worst = max(share, spent)
    if worst >= 1:
        verdict = f"unstable: SGD uses {worst:.0%} of its stability budget here"
        advice = "Lower the learning rate, or raise the batch size: SGD will leave this place."
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
        "along one mode is derived",
    )  # fmt: skip
