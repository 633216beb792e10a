"""Endpoints against a law, or against draws from one."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import fraction, positive, random_seed
from statsgd.comparison.distribution_tests import MAX_POINTS, distance, distribution_tests
from statsgd.comparison.effects import Effect, Sides
from statsgd.comparison.moments import directions, moment_effects
from statsgd.comparison.reference import references
from statsgd.comparison.samples import read_ensemble
from statsgd.comparison.verdicts import Comparison, verdicts_on
from statsgd.laws import Law

#: Exact draws from a law where effects are read off draws.
REFERENCE_DRAWS = 20_000


def compare(
    endpoints: xr.DataTree,
    law_or_draws: Law | xr.DataTree,
    *,
    seed: int,
    margin: float = 0.1,
    confidence: float = 0.95,
    modes: Float[Any, "d k"] | None = None,
    coordinates: bool = True,
    effects: Sequence[Effect] = (),
    tests: Sequence[str] = (),
    include_snapshots: bool = False,
    condition_on_survival: bool = False,
) -> Comparison:
    """Compare the endpoints of an ensemble with a law, or with draws from one.

    For every variable that both know (`params`, `momentum_buffer`) the variance and the mean along
    each coordinate and each mode, with intervals that hold simultaneously at `confidence`. The
    verdict on a quantity is *agrees within m* if its interval lies inside [1 − m, 1 + m] (for a
    mean: [−m, m] predicted standard deviations), *differs by more than m* if it lies outside, and
    *undecided* otherwise: a p-value decides nothing. The energy distance between endpoints and
    draws, whitened by the law's covariance, is reported with its permutation p-value.

    **Arguments:**

    - `endpoints`: result of `simulate`; only the replicas need to be independent.
    - `law_or_draws`: a `Law`, or a `DataTree` with a `posterior` group, whose Monte Carlo error
      then enters the intervals, as does that of exact draws from a law that states no moments.
    - `modes`: orthonormal columns to project on; by default the law's own `modes()`, else the
      eigenvectors of its covariance.
    - `coordinates`: whether to compare along coordinates too.
    - `effects`: further effect sizes of `params`, with rows, intervals and verdicts of their own:
      `TotalVariation`, `BasinProbabilities`, `FlatPreference`, `MeanRatio`.
    - `tests`: names from `TESTS`, of the whole distribution. They decide nothing either; their
      p-values are given with Holm's adjustment for all of them. Correlated draws are thinned to
      their effective number, and one point of each replica is used.
    - `include_snapshots`: pool the steps kept by `simulate(keep=…)`, which must be stationary.
    - `condition_on_survival`: leave out replicas that diverged; otherwise they are an error.

    Raises `ValueError` for data that do not match the law.
    """
    margin = float(positive("margin", margin))
    confidence = float(fraction("confidence", confidence))
    random_seed(seed)
    samples = read_ensemble(
        endpoints,
        include_snapshots=include_snapshots,
        condition_on_survival=condition_on_survival,
    )
    number = REFERENCE_DRAWS if effects else MAX_POINTS
    stated = references(law_or_draws, tuple(samples), seed, number)
    for variable, reference in stated.items():
        have, want = samples[variable].shape[2], len(reference.mean)
        if have != want:
            raise ValueError(f"the law has {want} parameters, the endpoints have {have}")
    columns = directions(law_or_draws, stated, modes, coordinates)
    comparisons = 2 * len(stated) * sum(d.shape[1] for d in columns.values())
    comparisons += sum(effect.quantities(samples["params"].shape[2]) for effect in effects)
    tables = [
        moment_effects(
            variable, samples[variable], reference, name, along, comparisons, margin, confidence
        )
        for variable, reference in stated.items()
        for name, along in columns.items()
    ]
    law = law_or_draws if isinstance(law_or_draws, Law) else None
    for effect in effects:
        if "params" not in stated:
            raise ValueError("effects are of params, and the draws hold none")
        reference = stated["params"]
        draws = reference.draws if law is not None else reference.independent.values[:, None]
        sides = Sides(samples["params"], draws, law)
        rows = effect.rows(sides, (1 - confidence) / (2 * comparisons))
        rows = rows.assign(variable="params", direction="effect")
        tables.append(rows.assign(verdict=verdicts_on(rows, rows.pop("centre"), margin)))
    distances = [
        distance(variable, samples[variable], reference, seed)
        for variable, reference in stated.items()
    ]
    tested = distribution_tests(samples, stated, law_or_draws, tests, seed)
    name = type(law_or_draws).__name__ if isinstance(law_or_draws, Law) else "draws"
    settings: dict[str, Any] = {
        "law": law_or_draws.describe() if isinstance(law_or_draws, Law) else "draws",
        "seed": seed,
        "multiplicity": f"Bonferroni over {comparisons} intervals",
        "include_snapshots": int(include_snapshots),
    }
    if len(tested):
        settings["tests"] = f"p-values adjusted by Holm for {len(tested)} tests"
    if law is None:
        settings["draws"] = "; ".join(
            f"{variable}: {reference.independent.describe()}"
            for variable, reference in stated.items()
        )
    settings |= _survival(endpoints)
    return Comparison(
        f"endpoints of the discrete chain against {name}",
        margin,
        confidence,
        pd.concat(tables, ignore_index=True),
        pd.DataFrame(distances),
        settings,
        tested,
    )


def _survival(endpoints: xr.DataTree) -> dict[str, Any]:
    if "run" not in endpoints.children:
        return {}
    diverged = endpoints["run"].to_dataset()["diverged"].values
    return {"diverged": int(diverged.sum()), "replicas": int(diverged.size)}
