"""Endpoints against a law, or against draws from one."""

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import finite_array, fraction, instance, positive, random_seed
from statsgd.comparison.dependence import largest_rhat
from statsgd.comparison.directions import Along, along, directions
from statsgd.comparison.distribution_tests import distances, distribution_tests
from statsgd.comparison.effects import Effect, Sides
from statsgd.comparison.location import location_rows
from statsgd.comparison.parts import NO_VERDICT, verdicts_on
from statsgd.comparison.reference import Reference, references
from statsgd.comparison.rows import SPREAD
from statsgd.comparison.samples import Clusters, read_ensemble
from statsgd.comparison.shape import shape_rows, sliced_row
from statsgd.comparison.spread import (
    deviation_rows,
    joint_rows,
    off_support_row,
    variance_rows,
)
from statsgd.comparison.stationarity import rate_and_momentum, stationarity
from statsgd.comparison.tails import FOR_VARIANCE, tail_index
from statsgd.comparison.verdicts import Comparison
from statsgd.comparison.wells import most_wells, share_rows_along, share_rows_at
from statsgd.comparison.whole import Whole, whole
from statsgd.ensembles import surviving
from statsgd.laws import Law

#: Exact draws from a law at a margin of 10 %, and the most: their error must stay within margins.
REFERENCE_DRAWS, _MOST_DRAWS = 20_000, 100_000
#: Independent endpoints below which nothing is decided.
FEWEST_ENDPOINTS = 20
#: R-hat of draws above which nothing is decided: chains do not agree on their law.
LARGEST_RHAT = 1.05
#: Intervals along each direction: of location, spread, total variation and tails.
_PER_DIRECTION = 4


def compare(
    endpoints: xr.DataTree | Float[Any, "n d"],
    law_or_draws: Law | xr.DataTree | Float[Any, "m d"],
    *,
    seed: int,
    margin: float = 0.1,
    confidence: float = 0.95,
    variables: Sequence[str] | None = None,
    modes: Float[Any, "d k"] | None = None,
    coordinates: bool = True,
    wells: Float[Any, "wells d"] | None = None,
    effects: Sequence[Effect] = (),
    tests: Sequence[str] = (),
    include_snapshots: bool = False,
    condition_on_survival: bool = False,
) -> Comparison:
    """Compare the endpoints of an ensemble with a law, or with draws from one.

    The verdict has parts. Along each coordinate and each mode of every variable that both know:

    - *location*: the shift of the mean, in the law's standard deviations;
    - *spread*: the ratio of variances; and jointly, positions and momenta together, the largest and
      the smallest ratio in any direction;
    - *shape*: total variation, and the ratio of tails (what one point in fifty exceeds); and
      total variation over random slices of all variables together;
    - *wells*: where the law falls apart into several, the share of each;
    - *stationarity*: what endpoints have kept of their start, where time scales are known.

    Intervals hold simultaneously at `confidence`. A quantity *agrees within m* if its interval lies
    inside [1 − m, 1 + m] (for what is not a ratio: [−m, m]), *differs by more than m* if it lies
    outside, and is *undecided* otherwise; a part differs if one of its quantities does, and agrees
    if all do. No p-value decides: the energy distance is reported with its own.

    Quantiles take the place of moments where the law's tails are too heavy for them (tail index
    below 4, or no covariance). Where those of the endpoints alone are, their moments get no
    verdict. With fewer than 20 independent endpoints, and with draws of R-hat above 1.05, nothing
    is decided. Where the law has no noise in a direction, the distance of endpoints from it counts.

    **Arguments:**

    - `endpoints`: result of `simulate`, or params `(n, d)`; only replicas need to be independent.
    - `law_or_draws`: a `Law`, a `DataTree` with a `posterior` group, or independent draws `(m, d)`,
      whose Monte Carlo error then enters the intervals (of chains by their effective sample
      sizes), as does that of exact draws from a law that states no moments.
    - `variables`: of `"params"` and `"momentum_buffer"` those to compare; by default all that both
      know, but not the buffer of SGD without momentum, which is a single gradient.
    - `modes`: orthonormal columns to project on; by default the law's own `directions()`, else the
      eigenvectors of its covariance.
    - `coordinates`: whether to compare along coordinates too.
    - `wells`: positions `(k, d)` of wells (`kernels.find_wells`), which points belong to by
      nearness; by default those that `sample(…, starts="wells")` started its chains in, else the
      valleys of the law along a direction part its wells.
    - `effects`: further effect sizes of `params`, with rows, intervals and verdicts of their own:
      `TotalVariation`, `BasinProbabilities`, `FlatPreference`, `MeanRatio`.
    - `tests`: names from `TESTS`, of the whole distribution. They decide nothing either; their
      p-values are given with Holm's adjustment for all of them. Correlated draws are thinned to
      their effective number, and one point of each replica is used.
    - `include_snapshots`: pool the steps kept by `simulate(keep=…)`, which must be stationary.
    - `condition_on_survival`: leave out replicas that diverged; otherwise they are an error.

    >>> import numpy as np, statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> points = np.random.default_rng(0).normal(scale=1.5, size=(4000, 1))
    >>> statsgd.compare(points, law, seed=0).parts["spread"].verdict
    'differs by more than 10 %'

    All numbers are float64. Raises `ValueError` for data that do not match the law, for endpoints
    that are not finite, and for arguments of the wrong kind.
    """
    margin = float(positive("margin", margin))
    confidence = float(fraction("confidence", confidence))
    for i, one in enumerate(effects):
        instance(f"effects[{i}]", one, Effect, "an effect of statsgd.comparison, as MeanRatio(…)")
    random_seed(seed)
    endpoints, law_or_draws = _array(endpoints), _array(law_or_draws)
    _require_kinds(endpoints, law_or_draws)
    samples = _samples(
        endpoints,
        include_snapshots=include_snapshots,
        condition_on_survival=condition_on_survival,
    )
    samples = _chosen(samples, variables, endpoints)
    number = int(np.clip(REFERENCE_DRAWS * (0.1 / margin) ** 2, REFERENCE_DRAWS, _MOST_DRAWS))
    stated = references(law_or_draws, tuple(samples), seed, number)
    for variable, reference in stated.items():
        have, want = samples[variable].shape[2], len(reference.mean)
        if have != want:
            raise ValueError(f"the law has {want} parameters, the endpoints have {have}")
    columns = directions(law_or_draws, stated, modes, coordinates)
    law = law_or_draws if isinstance(law_or_draws, Law) else None
    heavy = any(_heavy(reference) for reference in stated.values())
    seen = _Seen(
        {variable: samples[variable] for variable in stated},
        stated,
        [
            along(variable, samples[variable], reference, name, those, law)
            for variable, reference in stated.items()
            for name, those in columns.items()
        ],
        whole(samples, stated, law, heavy),
        heavy,
    )
    if wells is None:
        wells = _started_in(law_or_draws)
    table, counts = _table(seen, law, wells, effects, confidence, seed)
    table["verdict"] = verdicts_on(table, table["centre"].to_numpy(), margin)
    table.loc[table["reason"] != "", "verdict"] = NO_VERDICT
    independent = len(next(iter(seen.samples.values())))
    tested = distribution_tests(seen.samples, stated, law_or_draws, tests, seed)
    name = type(law_or_draws).__name__ if law is not None else "draws"
    settings: dict[str, Any] = {
        "law": law.describe() if law is not None else "draws",
        "seed": seed,
        "multiplicity": _multiplicity(*counts),
        "include_snapshots": int(include_snapshots),
    }
    if len(tested):
        settings["tests"] = f"p-values adjusted by Holm for {len(tested)} tests"
    if law is None:
        settings["draws"] = "; ".join(
            f"{variable}: {reference.independent.describe()}"
            for variable, reference in stated.items()
        )
    survival = _survival(endpoints)
    return Comparison(
        f"endpoints against {name}",
        margin,
        confidence,
        table,
        functools.partial(distances, seen.samples, stated, seed),
        settings | survival,
        tested,
        endpoints=independent,
        tail=_tails(confidence, *counts)[0],
        doubt=_doubt(independent, stated),
        stationarity=stationarity(
            endpoints,
            law,
            margin=margin,
            confidence=confidence,
            include_snapshots=include_snapshots,
        ),
        notes=_notes(survival),
    )


class _Seen(NamedTuple):
    """What is compared, in the ways in which it is looked at."""

    samples: dict[str, Clusters]
    stated: dict[str, Reference]
    along: list[Along]
    whole: Whole
    heavy: bool
    """Whether quantiles take the place of moments."""


def _table(
    seen: _Seen,
    law: Law | None,
    wells: Any,
    effects: Sequence[Effect],
    confidence: float,
    seed: int,
) -> tuple[pd.DataFrame, tuple[int, int]]:
    """All rows without verdicts, and the numbers of intervals along directions and of the whole."""
    split = places = None
    if wells is not None and "params" in seen.samples:
        places = np.asarray(finite_array("wells", wells, ndim=2), dtype=np.float64)
    else:
        split = most_wells([one for one in seen.along if one.variable == "params"])
    number = len(places) if places is not None else split.wells if split else 0
    size = seen.samples["params"].shape[2] if "params" in seen.samples else 0
    if effects and not size:
        raise ValueError("effects are of params, and the draws hold none")
    # Half of the endpoints find a direction, and half measure it.
    several = seen.whole.measured.shape[2] > 1 and len(seen.whole.measured) >= 4
    off = seen.whole.off_support.shape[2] > 0
    directional = _PER_DIRECTION * sum(len(one.index) for one in seen.along) + number
    directional += sum(effect.quantities(size) for effect in effects)
    of_whole = 3 * several + off
    tail, whole_tail = _tails(confidence, directional, of_whole)
    tables = []
    for one in seen.along:
        if not len(one.index):
            continue
        tables.append(location_rows(one, tail, seen.heavy))
        if one.reference.has_covariance:
            tables.append(variance_rows(one, tail, seen.heavy))
        if seen.heavy:
            tables.append(deviation_rows(one, tail, SPREAD, "median deviation ratio", 0.5))
        tables.append(shape_rows(one, tail))
    if several:
        tables += [joint_rows(seen.whole, whole_tail), sliced_row(seen.whole, whole_tail, seed)]
    if off:
        tables.append(off_support_row(seen.whole, whole_tail))
    if split is not None:
        tables.append(share_rows_along(split, tail))
    if places is not None:
        scattered = seen.stated["params"].independent.values
        tables.append(share_rows_at(places, seen.samples["params"], scattered, tail))
    for effect in effects:
        reference = seen.stated["params"]
        draws = reference.draws if law is not None else reference.independent.values[:, None]
        rows = effect.rows(Sides(seen.samples["params"], draws, law), tail)
        tables.append(rows.assign(variable="params", direction="effect", part=effect.part))
    table = pd.concat(tables, ignore_index=True)
    return table.fillna({"reason": ""}), (directional, of_whole)


def _tails(confidence: float, directional: int, of_whole: int) -> tuple[float, float]:
    """Error on either side of an interval along a direction, and of one of the whole.

    Half of the error is for the whole, if anything is compared of it: what holds over all
    directions takes more endpoints than what holds along one.
    """
    error = (1 - confidence) / 2
    shared = error / 2 if of_whole else error
    return shared / max(directional, 1), shared / max(of_whole, 1)


def _multiplicity(directional: int, of_whole: int) -> str:
    if not of_whole:
        return f"Bonferroni over {directional} intervals"
    return (
        f"Bonferroni: half of the error over {directional} intervals along directions, half over "
        f"{of_whole} of the whole"
    )


def _require_kinds(endpoints: Any, law_or_draws: Any) -> None:
    call = "compare(endpoints, law_or_draws, …)"
    arrays = (np.ndarray, jax.Array, list)
    said = "a DataTree of simulate or statsgd.ensemble, or an array (n, d)"
    instance("endpoints", endpoints, (xr.DataTree, *arrays), said, call=call)
    said = "a Law, a DataTree of draws from statsgd.sample, or an array (m, d) of draws"
    instance("law_or_draws", law_or_draws, (Law, xr.DataTree, *arrays[:2]), said, call=call)


def _array(value: Any) -> Any:
    """Tensors of PyTorch, which is never imported here, as NumPy arrays; all else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _samples(endpoints: Any, **options: bool) -> dict[str, Clusters]:
    if isinstance(endpoints, xr.DataTree):
        return read_ensemble(endpoints, **options)
    points = np.asarray(finite_array("endpoints", endpoints, ndim=2), dtype=np.float64)
    return {"params": points[:, None]}


def _started_in(draws: Any) -> Any:
    """The wells that the chains of `sample` were started in, if several."""
    known = draws.attrs.get("wells") if isinstance(draws, xr.DataTree) else None
    found = None if known is None else np.asarray(json.loads(known), dtype=np.float64)
    return found if found is not None and len(found) > 1 else None


def _chosen(
    samples: dict[str, Clusters], variables: Sequence[str] | None, endpoints: Any
) -> dict[str, Clusters]:
    """The variables to compare."""
    if variables is None:
        return {
            name: values
            for name, values in samples.items()
            if name == "params" or rate_and_momentum(endpoints)[1] != 0
        }
    if isinstance(variables, str):
        raise ValueError(
            f"variables must be a sequence of names, got {variables!r}: write [{variables!r}]"
        )
    missing = [name for name in variables if name not in samples]
    if missing or not variables:
        raise ValueError(f"variables must be among {sorted(samples)}, got {list(variables)!r}")
    return {name: samples[name] for name in samples if name in variables}


def _heavy(reference: Reference) -> bool:
    if not reference.has_covariance:
        return True
    return bool(np.min(tail_index(reference.independent.values), initial=np.inf) < FOR_VARIANCE)


def _doubt(independent: int, stated: dict[str, Reference]) -> str:
    """Why nothing can be decided, if so."""
    if independent < FEWEST_ENDPOINTS:
        return f"{independent} endpoints are fewer than the {FEWEST_ENDPOINTS} that intervals need"
    for variable, reference in stated.items():
        if reference.chains is None:
            continue
        rhat, column = largest_rhat(reference.chains)
        if rhat > LARGEST_RHAT:
            return (
                f"the draws have not mixed: R-hat of {variable}[{column}] is {rhat:.3g}, above "
                f"{LARGEST_RHAT}"
            )
    return ""


def _survival(endpoints: Any) -> dict[str, Any]:
    alive = surviving(endpoints) if isinstance(endpoints, xr.DataTree) else None
    return {} if alive is None else {"diverged": int((~alive).sum()), "replicas": int(alive.size)}


def _notes(survival: dict[str, Any]) -> tuple[str, ...]:
    if not survival.get("diverged"):
        return ()
    return (
        f"{survival['diverged']} of {survival['replicas']} replicas diverged and were left out: "
        "the comparison is conditional on survival",
    )
