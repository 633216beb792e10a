"""Claims on two wells of one parameter: which one SGD is found in, in the long run."""

from typing import Any

import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import EffectivePotentialGibbs
from statsgd.laws.gibbs import equal_weight_batch_size, well_weights
from statsgd.problems import landscapes
from statsgd.reports import Chart, Series
from studies.batch_size.wells import (
    ASYMMETRY,
    DAI,
    Case,
    Course,
    QuieterWhereSharp,
    Wells,
    minima,
    raised_wells,
)


def preference_claims(wells: Wells, case: Case) -> dict[str, xr.DataTree]:
    """All claims on the long run; `case` has wells of one height and constant noise."""
    return {
        "flat well in the long run": equal_claim(wells, case),
        "flat well whatever the noise": noise_claim(wells),
        "flat well whatever the heights": height_claim(wells),
    }


def share(run: Course, name: str, predicted: float, relation: str = "=", margin: float = 0.0):
    """The share of runs in the flat well at the end as a quantity."""
    return Quantity(name, float(run.flat[-1]), float(run.error[-1]), predicted, relation, margin)


def shares_above_half(case: Case) -> list[Quantity]:
    """That the flat well has more than a half, at every batch size that was run."""
    return [
        share(run, f"share in the flat well is above a half, S = {run.batch_size}", 0.5, ">")
        for run in case.runs
    ]


def shares_chart(title: str, case: Case, level: float, *more: Any) -> Chart:
    """Share of the flat well against the batch size."""
    sizes = [run.batch_size for run in case.runs]
    ends = [run.flat[-1] for run in case.runs], [run.error[-1] for run in case.runs]
    return Chart(
        title, "batch size S", "share in the flat well",
        (Series("SGD at the end of the runs", sizes, *ends),
         Series("chain, exact and stationary", list(case.exact), case.flat(), look="line"), *more),
        level=level,
    )  # fmt: skip


def equal_claim(wells: Wells, case: Case) -> xr.DataTree:
    """Equal heights, constant noise."""
    curvatures, _ = minima(case.problem)
    hessians = [np.array([[h]]) for h in curvatures]
    limit = float(well_weights(hessians, [0.0, 0.0], 1.0)[0])
    flat = case.flat()
    claim = Claim(
        "Of two equally deep wells SGD with constant isotropic noise prefers the flatter one, in "
        "the long run and regardless of the batch size",
        DAI,
        [share(run, f"share in the flat well, S = {run.batch_size}", limit, margin=wells.margin)
         for run in case.runs],
        f"√h_sharp : √h_flat gives the flat well {limit:.3f} of the mass at low temperature. The "
        f"exact chain has {flat[0]:.3f} to {flat[-1]:.3f} for S = {wells.sizes[0]} to "
        f"{wells.sizes[-1]}: a finite learning rate favours the flat well a little more.",
        origin="source",
        place="abstract: flatter minima regardless of the batch size",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    return claim.to_datatree(shares_chart("Equal heights, constant noise", case, limit))


def noise_claim(wells: Wells) -> xr.DataTree:
    """Noise that is weaker in the sharp well."""
    case = wells.case(landscapes.smooth_wells(ASYMMETRY), QuieterWhereSharp)
    flat = case.flat()
    some, published = (wells.sizes[0], wells.batch_sizes[-1], wells.sizes[-1]), []
    for size in some:
        noise = QuieterWhereSharp(wells.example_variance / size)
        law = EffectivePotentialGibbs.from_sgd(
            case.problem, statsgd.SGD(wells.learning_rate, noise)
        )
        published.append(float(np.ravel(law.cdf(np.array([case.edge])))[0]))
    claim = Claim(
        "SGD prefers the flatter of two equally deep wells regardless of the batch size, whatever "
        "its noise",
        DAI,
        shares_above_half(case),
        "The noise here is about half as strong in the sharp well. What counts is then not L but "
        "Φ with ∇Φ = ∇L/v₁, in which the wells are not equally deep, and that difference is "
        "multiplied by the batch size: the share of the flat well of the exact chain falls from "
        f"{flat[0]:.3f} at S = {wells.sizes[0]} to {flat[-1]:.3f} at S = {wells.sizes[-1]}, and "
        f"that of the Gibbs-like law from {published[0]:.3f} to {published[-1]:.3f}.",
        origin="extension",
        place="abstract, extended to noise that varies along the gradient",
        data_sets=0,
        unit="runs",
    )
    line = Series("Gibbs-like law of Φ", some, published, look="line")
    return claim.to_datatree(shares_chart("Weaker noise in the sharp well", case, 0.5, line))


def height_claim(wells: Wells) -> xr.DataTree:
    """A flat well that is less deep."""
    case = wells.case(raised_wells())
    (h_flat, h_sharp), heights = minima(case.problem)
    predicted = equal_weight_batch_size(
        [[h_flat]], [[h_sharp]], heights[0] - heights[1], wells.learning_rate,
        wells.example_variance,
    )  # fmt: skip
    flat = case.flat()
    crossing = float(np.interp(0.0, -np.log(flat / (1 - flat)), wells.sizes))
    claim = Claim(
        "SGD prefers the flatter of two wells at every batch size, where it is less deep too",
        f"derived from {DAI}",
        shares_above_half(case),
        f"The flat minimum is {heights[0] - heights[1]:.3f} higher. Curvature weighs the same at "
        "every temperature, height the more the colder it is: above the batch size "
        f"ηv₁ log(h_sharp/h_flat)/(4Δ) = {predicted:.2f} (exact chain {crossing:.2f}) the deeper "
        "well wins.",
        origin="extension",
        place="abstract, extended to wells of unequal depth",
        data_sets=0,
        unit="runs",
    )
    return claim.to_datatree(shares_chart("Flat well less deep", case, 0.5))
