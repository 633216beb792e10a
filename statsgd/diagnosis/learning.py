"""The local learning coefficient, a measure of flatness to all orders, with its diagnostics."""

import warnings

import numpy as np
import xarray as xr

from statsgd.diagnosis.part import Part
from statsgd.diagnosis.request import Request
from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import MixingWarning
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.measures.curvature.learning_coefficient import (
    DivergedChainsError,
    local_learning_coefficient,
)
from statsgd.problems import EmpiricalRisk
from statsgd.reports.charts import Chart, Series

#: Chains, their steps, those discarded first, and examples of each look at the loss.
CHAINS, STEPS, BURN_IN, _LOOK = 4, 800, 200, 256
#: The step size times the largest curvature of the log density, which must stay below 2, and the
#: localization over that curvature: how many times slower than the fastest the slowest relaxes.
_STIFFNESS, _LOCALIZATION = 0.3, 0.02


def look(problem: EmpiricalRisk) -> int:
    """Examples of one look at the loss."""
    return min(_LOOK, problem.num_examples)


def learning_coefficient(request: Request, law: ModeLaw) -> xr.Dataset | None:
    """λ̂ with its errors; None if not asked for, or if no number of examples sets a temperature.

    Where fewer than two chains stay finite, λ̂ is not a number: a diagnosis does not fail by them.
    """
    problem = request.problem
    if not request.learning_coefficient:
        return None
    if not isinstance(problem, EmpiricalRisk) or problem.num_examples < 3:
        return None
    n = problem.num_examples
    strength = n / np.log(n)
    steep = max(float(law.curvatures.max()) - request.decay, 0.0)
    localization = max(_LOCALIZATION * strength * steep, 1.0)
    step_size = _STIFFNESS / (strength * steep + localization)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixingWarning)  # what it says is in the doubts
        try:
            found = local_learning_coefficient(
                problem,
                request.params,
                step_size=step_size,
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
        except DivergedChainsError as error:
            found = error.found
    numbers = {
        "coefficient": found.value, "coefficient_error": found.standard_error,
        "step_size_bias": found.step_size_bias,
        "step_size_bias_error": found.step_size_bias_standard_error,
        "localization": localization, "flat_below": localization / strength,
        "rhat": found.rhat, "effective_sample_size": found.effective_sample_size,
        "step_size": step_size, "baseline": found.baseline,
        "diverged_chains": found.diverged_chains,
    }  # fmt: skip
    return xr.Dataset(
        {name: float(value) for name, value in numbers.items()}
        | {
            "chain_coefficients": ("chain", found.chain_values),
            "chain_losses": (("chain", "chain_step"), found.chain_losses),
        },
        coords={"chain_step": found.chain_steps},
        attrs={"doubts": "; ".join(found.doubts())},
    )


def told(numbers: xr.Dataset, request: Request) -> Part:
    """The coefficient against d/2, and whether its chains can be believed."""
    half = request.problem.dimension / 2
    finding = (
        "The local learning coefficient counts how many directions hold the network in place, to "
        f"all orders of the loss: half the number of parameters, {half:g}, where all do, and less "
        "where the loss is flat (below curvatures of "
        f"{float(numbers['flat_below']):.2g}, where a spring holds its chains). "
    )
    doubts = str(numbers.attrs["doubts"])
    verdict = f"undecided: {doubts}" if doubts else ""
    advice = "Compare it between checkpoints with the same settings; by itself it says little."
    if not np.isfinite(float(numbers["coefficient"])):
        verdict = f"not estimated: {doubts}"
        finding += f"Here nothing could be estimated: {doubts}, and it takes two that do not."
        advice = (
            "Call measures.local_learning_coefficient with a step size well below "
            f"{float(numbers['step_size']):.2g}, which these chains had, or keep them in a box of "
            "some box_radius around the checkpoint."
        )
    else:
        finding += _estimate(numbers, half)
        if doubts:
            finding += f" Doubts: {doubts}."
            advice = (
                "Do not read the number as it stands: call measures.local_learning_coefficient "
                f"with a step size below {float(numbers['step_size']):.2g} and longer chains until "
                "the doubts are gone; measures.learning_coefficient_grid shows over which settings "
                "it does not change."
            )
    return Part(
        "Learning coefficient", finding, advice, verdict, "Lau et al. (2023), arXiv:2308.12108",
        (_traces(numbers),),
    )  # fmt: skip


def _estimate(numbers: xr.Dataset, half: float) -> str:
    """The number, what speaks for it, and that of each chain."""
    value, error = float(numbers["coefficient"]), float(numbers["coefficient_error"])
    said = f"Here it is {value:.4g} ± {error:.2g}, {value / half:.2%} of that; "
    bias = float(numbers["step_size_bias"])
    if np.isfinite(bias):
        wide = float(numbers["step_size_bias_error"])
        said += f"their step size changes it by {bias:.2g} ± {wide:.1g}, "
    chains = numbers["chain_coefficients"].values
    chains = chains[np.isfinite(chains)]
    return said + (
        f"R-hat is {float(numbers['rhat']):.3f}; by themselves its {len(chains)} chains say "
        f"{chains.min():.4g} to {chains.max():.4g}."
    )


def _traces(numbers: xr.Dataset) -> Chart:
    """Losses along each chain, up to where it diverged."""
    steps, series = numbers["chain_step"].values, []
    for index, losses in enumerate(numbers["chain_losses"].values, 1):
        kept = np.isfinite(losses)
        series.append(Series(f"chain {index}", steps[kept], losses[kept], look="line"))
    return Chart(
        "Chains of the learning coefficient: a trend is a chain that has not arrived",
        "step after the burn-in", "loss of some examples", tuple(series),
        level=float(numbers["baseline"]),
    )  # fmt: skip
