"""The local learning coefficient, a measure of flatness to all orders, with its diagnostics."""

import warnings

import numpy as np
import xarray as xr

from statsgd.diagnosis.part import Part
from statsgd.diagnosis.request import Request
from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import MixingWarning
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.measures.curvature.learning_coefficient import local_learning_coefficient
from statsgd.problems import EmpiricalRisk

#: Chains, their steps, those discarded first, and examples of each look at the loss.
CHAINS, STEPS, BURN_IN, _LOOK = 4, 800, 200, 256
#: The step size times the largest curvature of the log density, which must stay below 2, and the
#: localization over that curvature: how many times slower than the fastest the slowest relaxes.
_STIFFNESS, _LOCALIZATION = 0.3, 0.02


def look(problem: EmpiricalRisk) -> int:
    """Examples of one look at the loss."""
    return min(_LOOK, problem.num_examples)


def learning_coefficient(request: Request, law: ModeLaw) -> xr.Dataset | None:
    """λ̂ with its errors; None if not asked for, or if no number of examples sets a temperature."""
    problem = request.problem
    if not request.learning_coefficient:
        return None
    if not isinstance(problem, EmpiricalRisk) or problem.num_examples < 3:
        return None
    n = problem.num_examples
    strength = n / np.log(n)
    steep = max(float(law.curvatures.max()) - request.decay, 0.0)
    localization = max(_LOCALIZATION * strength * steep, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixingWarning)  # what it says is in the doubts
        found = local_learning_coefficient(
            problem,
            request.params,
            step_size=_STIFFNESS / (strength * steep + localization),
            localization=localization,
            steps=STEPS,
            burn_in=BURN_IN,
            noise=Minibatch(look(problem)),
            loss_examples=look(problem),
            thinning=4,
            chains=CHAINS,
            seed=request.seed,
            double=False,
        )
    numbers = {
        "coefficient": found.value, "coefficient_error": found.standard_error,
        "step_size_bias": found.step_size_bias,
        "step_size_bias_error": found.step_size_bias_standard_error,
        "localization": localization, "flat_below": localization / strength,
        "rhat": found.rhat, "effective_sample_size": found.effective_sample_size,
    }  # fmt: skip
    doubts = "; ".join(found.doubts())
    return xr.Dataset({name: float(value) for name, value in numbers.items()}).assign_attrs(
        doubts=doubts
    )


def told(numbers: xr.Dataset, request: Request) -> Part:
    """The coefficient against d/2, and whether its chains can be believed."""
    value, error = float(numbers["coefficient"]), float(numbers["coefficient_error"])
    half = request.problem.dimension / 2
    finding = (
        "The local learning coefficient counts how many directions hold the network in place, to "
        f"all orders of the loss: half the number of parameters, {half:g}, where all do, and less "
        "where the loss is flat (below curvatures of "
        f"{float(numbers['flat_below']):.2g}, where a spring holds its chains). Here it is "
        f"{value:.4g} ± {error:.2g}, {value / half:.2%} of that; their step size changes "
        f"it by {float(numbers['step_size_bias']):.2g} ± "
        f"{float(numbers['step_size_bias_error']):.1g}, R-hat is {float(numbers['rhat']):.3f}."
    )
    doubts = str(numbers.attrs["doubts"])
    advice = "Compare it between checkpoints with the same settings; by itself it says little."
    if doubts:
        finding += f" Doubts: {doubts}."
        advice = (
            "Do not read the number as it stands: call measures.local_learning_coefficient with a "
            "smaller step size and longer chains until the doubts are gone."
        )
    return Part(
        "Learning coefficient",
        finding,
        advice,
        f"undecided: {doubts}" if doubts else "",
        "Lau et al. (2023), arXiv:2308.12108",
    )
