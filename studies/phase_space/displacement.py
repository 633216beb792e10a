"""Claims on the distance that SGD travels around a minimum: its speed and its exponent."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws.minimum import local_displacement, mean_squared_displacement
from statsgd.measures import mean_over_clusters, mean_square_step
from statsgd.reports import Chart, Series
from studies.measured import claimed, difference, over_data_sets, points, ratio, unit
from studies.phase_space.followed import (
    FORGET,
    Followed,
    Predicted,
    Theory,
    Wandering,
    batch_size_of,
    run_in_phase_space,
    stationary_starts,
    wandering,
)
from studies.phase_space.motion import KUNIN


class Journey(NamedTuple):
    """How fast and how far SGD went at one setting, and what laws say."""

    speed: Estimate
    """E|θ_{k+1} − θ_k|²."""
    predicted_speed: float
    """By the published law, η² σ² Tr H/(S(1−β²))."""
    wandering: Wandering
    model: Predicted
    """By the published law."""
    chain: Predicted
    """By the law of the chain, with the noise that it has."""


#: What happened at every setting, by name: one journey to a data set.
type Journeys = Mapping[str, Sequence[Journey]]


def displacement_claims(case: Followed, lags: Sequence[int]) -> dict[str, xr.DataTree]:
    """Speed, displacement and exponent at several settings."""
    window = [lag for lag in lags if lag * (1 - float(case.sgd.momentum)) >= 1]
    journeys = {setting_name(case.sgd): [journey(case, case.theory, case.main, window)]}
    for changed in (
        {"learning_rate": case.sgd.learning_rate / 5},
        {"momentum": 0.0},
        {"batch_size": 4 * case.batch_size},
    ):
        sgd = case.sgd_with(**changed)
        theory = Theory.of(case.problem, sgd)
        replicas = len(case.main.position)
        runs = run_in_phase_space(
            case.problem, sgd, theory.exact, burn_in=FORGET, steps=[*range(9), *window],
            replicas=replicas, seed=case.seed,
            start=stationary_starts(theory.exact, replicas, case.seed + 3),
        )  # fmt: skip
        journeys[setting_name(sgd)] = [journey(case, theory, runs, window)]
    span = f"{window[0]} to {window[-1]}"
    return {
        "speed": speed_claim(
            journeys,
            case.margin,
            why="Noise grows as it moves SGD away from the minimum, which the formula does not "
            f"know: at the first setting {100 * case.theory.gain:.1f} % of all noise comes of "
            "noise, and less at smaller steps and larger batches.",
        ),
        "anomalous diffusion": diffusion_claim(case, lags, span),
        "exponent": exponent_claim(
            journeys,
            case.margin,
            f"The exponent with which SGD travels over {span} steps follows from learning rate, "
            "momentum and the spectrum of the Hessian, and not from the batch size",
            more=[batch_size_quantity(journeys, case.margin)],
        ),
    }


def setting_name(sgd: Any) -> str:
    """A setting in words."""
    return (
        f"η = {float(sgd.learning_rate):g}, β = {float(sgd.momentum):g}, S = {batch_size_of(sgd)}"
    )


def journey(case: Followed, theory: Theory, runs: Any, window: Sequence[int]) -> Journey:
    """What was measured at one setting, next to theory."""
    return Journey(
        mean_square_step(runs.consecutive()[0]),
        local_displacement(theory.model),
        wandering(runs.displacement(window), window),
        Predicted.of(theory.model, window),
        Predicted.of(theory.exact, window),
    )


def speed_claim(
    journeys: Journeys, margin: float, *, where: str = "", why: str = ""
) -> xr.DataTree:
    """The scaling law of the local displacement."""
    sets = _data_sets(journeys)
    over = {
        name: over_data_sets([ratio(one.speed, _exact(one.predicted_speed)) for one in each])
        for name, each in journeys.items()
    }
    claim = Claim(
        f"The speed of SGD{where} is set by the trace of the Hessian: E|θ_{{k+1}} − θ_k|² = "
        "η²σ² Tr H/(S(1−β²))",
        KUNIN,
        [
            claimed(f"{name}: speed² over the formula", one, "=", 1.0, margin)
            for name, one in over.items()
        ],
        f"σ² Tr H/S is the trace of the noise covariance at the minimum. {why}".strip(),
        origin="source",
        place="the local displacement",
        data_sets=sets,
        unit=unit(sets),
    )
    predicted = np.array([each[0].predicted_speed for each in journeys.values()])
    order = np.sort(predicted)
    chart = Chart(
        f"Mean square step at several η, β and S{_first_of(sets)}",
        "η²σ² Tr H / (S(1−β²)) (params²)",
        "measured (params²)",
        (
            points("SGD", predicted, [each[0].speed for each in journeys.values()]),
            Series("equal", order, order, look="line"),
        ),
        log="xy",
    )
    return claim.to_datatree(chart)


def _exact(value: float) -> Estimate:
    return Estimate(value, 0.0)


def _data_sets(journeys: Journeys) -> int:
    return len(next(iter(journeys.values())))


def _first_of(data_sets: int) -> str:
    return ", first data set" if data_sets > 1 else ""


def diffusion_claim(case: Followed, lags: Sequence[int], span: str) -> xr.DataTree:
    """The displacement over time, from single steps to saturation."""
    theory = case.theory
    moved = mean_over_clusters(case.main.displacement(lags))
    model, exact = (
        np.asarray(mean_squared_displacement(law, lags)) for law in (theory.model, theory.exact)
    )
    judged = [lags[0], lags[len(lags) // 2], lags[-1]]
    places = [list(lags).index(lag) for lag in judged]
    saturation = 2 * float(np.trace(theory.exact.covariance()))
    over_model = exact / model
    claim = Claim(
        "At stationarity SGD keeps travelling, and its mean squared displacement is that of the "
        "underdamped model at every lag",
        KUNIN,
        [
            Quantity(f"E|θ_k − θ_0|² at k = {lags[i]}, over the model's",
                     float(moved.value[i] / model[i]),
                     float(moved.standard_error[i] / model[i]), 1.0,
                     margin=case.margin)
            for i in places
        ],
        "The exact displacement of the chain, with noise that follows the state, is "
        f"{over_model.min():.3f} to {over_model.max():.3f} times that of the model, whose noise is "
        "that of the minimum and proportional to the Hessian.",
        origin="source",
        place="abstract: anomalous diffusion",
        data_sets=1,
        unit="runs",
    )  # fmt: skip
    steps = np.asarray(lags)
    chart = Chart(
        "Mean squared displacement at stationarity", "lag k in steps", "E|θ_k − θ_0|² (params²)",
        (Series("SGD", steps, moved.value, moved.standard_error),
         Series("chain, exact", steps, exact, look="line"),
         Series("model", steps, model, look="line"),
         Series("diffusion at the first slope", steps[:6], exact[0] * steps[:6],
                look="line")),
        log="xy", level=saturation,
    )  # fmt: skip
    return claim.to_datatree(chart)


def batch_size_quantity(journeys: Journeys, margin: float) -> Quantity:
    """The exponent at the largest batch size, the last setting, against that of the first."""
    first, *_, last = journeys.values()
    found = over_data_sets(
        [
            ratio(one.wandering.exponent, other.wandering.exponent)
            for one, other in zip(last, first, strict=True)
        ]
    )
    return claimed("exponent, the last over the first setting", found, "=", 1.0, margin)


def exponent_claim(
    journeys: Journeys,
    margin: float,
    statement: str,
    why: str = "",
    more: Sequence[Quantity] = (),
) -> xr.DataTree:
    """Measured exponents against predicted ones."""
    sets = _data_sets(journeys)
    measured = {
        name: over_data_sets([one.wandering.exponent for one in each])
        for name, each in journeys.items()
    }
    quantities = []
    for name, each in journeys.items():
        predicted = float(np.mean([one.model.exponent for one in each]))
        # Every data set has a prediction of its own: the error is of the difference.
        off = over_data_sets(
            [difference(one.wandering.exponent, _exact(one.model.exponent)) for one in each]
        )
        found = off._replace(value=off.value + predicted)
        quantities.append(claimed(f"{name}: exponent", found, "=", predicted, margin))
    first = next(iter(measured.values()))
    title = "the first exponent: below that of diffusion"
    quantities += [claimed(title, first, "<", 1.0), *more]
    chain = ", ".join(
        f"{np.mean([one.chain.exponent for one in each]):.3f}" for each in journeys.values()
    )
    one, *_ = next(iter(journeys.values()))
    slopes = np.diff(np.log(one.chain.moved)) / np.diff(np.log(one.wandering.lags))
    claim = Claim(
        statement,
        KUNIN,
        quantities,
        "Slope of log displacement on log lag over the window. "
        f"With the noise that SGD has, and finite steps, theory gives {chain} (in the order of "
        f"the table). It is no power law: at the first setting the slope falls from "
        f"{slopes[0]:.2f} to {slopes[-1]:.2f} over the window. {why}".strip(),
        origin="source",
        place="abstract: anomalous diffusion",
        data_sets=sets,
        unit=unit(sets),
    )
    curves = []
    for name, (one, *_) in journeys.items():
        scale = one.wandering.moved.value[0]
        curves += [
            Series(name, one.wandering.lags, one.wandering.moved.value / scale,
                   one.wandering.moved.standard_error / scale, group=name),
            Series("", one.wandering.lags, one.chain.moved / scale, look="line", group=name),
        ]  # fmt: skip
    return claim.to_datatree(
        Chart(f"Displacement over its first value (lines: chain){_first_of(sets)}",
              "lag k in steps", "E|θ_k − θ_0|², relative", tuple(curves), log="xy"),
    )  # fmt: skip
