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


def displacement_claims(case: Followed, lags: Sequence[int]) -> dict[str, xr.DataTree]:
    """Speed, displacement and exponent at several settings."""
    window = [lag for lag in lags if lag * (1 - float(case.sgd.momentum)) >= 1]
    journeys = {setting_name(case.sgd): journey(case, case.theory, case.main, window)}
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
        journeys[setting_name(sgd)] = journey(case, theory, runs, window)
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
    journeys: Mapping[str, Journey], margin: float, *, where: str = "", why: str = ""
) -> xr.DataTree:
    """The scaling law of the local displacement."""
    claim = Claim(
        f"The speed of SGD{where} is set by the trace of the Hessian: E|θ_{{k+1}} − θ_k|² = "
        "η²σ² Tr H/(S(1−β²))",
        KUNIN,
        [
            Quantity(f"{name}: speed² over the formula",
                     float(one.speed.value) / one.predicted_speed,
                     float(one.speed.standard_error) / one.predicted_speed, 1.0, margin=margin)
            for name, one in journeys.items()
        ],
        f"σ² Tr H/S is the trace of the noise covariance at the minimum. {why}".strip(),
    )  # fmt: skip
    predicted = np.array([one.predicted_speed for one in journeys.values()])
    measured = np.array([float(one.speed.value) for one in journeys.values()])
    error = np.array([float(one.speed.standard_error) for one in journeys.values()])
    order = np.sort(predicted)
    chart = Chart(
        "Mean square step at several η, β and S", "η²σ² Tr H / (S(1−β²)) (params²)",
        "measured (params²)",
        (Series("SGD", predicted, measured, error), Series("equal", order, order, look="line")),
        log="xy",
    )  # fmt: skip
    return claim.to_datatree(chart)


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
    ratio = exact / model
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
        f"{ratio.min():.3f} to {ratio.max():.3f} times that of the model, whose noise is that of "
        "the minimum and proportional to the Hessian.",
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


def batch_size_quantity(journeys: Mapping[str, Journey], margin: float) -> Quantity:
    """The exponent at the largest batch size, the last setting, against that of the first."""
    first, *_, last = (one.wandering.exponent for one in journeys.values())
    return Quantity(
        "exponent, the last over the first setting",
        float(last.value / first.value),
        float(np.hypot(last.standard_error, first.standard_error) / first.value),
        1.0,
        margin=margin,
    )


def exponent_claim(
    journeys: Mapping[str, Journey],
    margin: float,
    statement: str,
    why: str = "",
    more: Sequence[Quantity] = (),
) -> xr.DataTree:
    """Measured exponents against predicted ones."""
    first = next(iter(journeys.values()))
    quantities = [
        Quantity(f"{name}: exponent", float(one.wandering.exponent.value),
                 float(one.wandering.exponent.standard_error),
                 one.model.exponent, margin=margin)
        for name, one in journeys.items()
    ]  # fmt: skip
    quantities.append(
        Quantity("the first exponent: below that of diffusion",
                 float(first.wandering.exponent.value),
                 float(first.wandering.exponent.standard_error), 1.0, "<")
    )  # fmt: skip
    quantities += more
    exact = ", ".join(f"{one.chain.exponent:.3f}" for one in journeys.values())
    slopes = np.diff(np.log(first.chain.moved)) / np.diff(np.log(first.wandering.lags))
    claim = Claim(
        statement, KUNIN, quantities,
        f"Slope of log displacement on log lag over the window, with the error of resampled runs. "
        f"With the noise that SGD has, and finite steps, theory gives {exact} (in the order of "
        f"the table). It is no power law: at the first setting the slope falls from "
        f"{slopes[0]:.2f} to {slopes[-1]:.2f} over the window. {why}".strip(),
    )  # fmt: skip
    curves = []
    for name, one in journeys.items():
        scale = one.wandering.moved.value[0]
        curves += [
            Series(name, one.wandering.lags, one.wandering.moved.value / scale,
                   one.wandering.moved.standard_error / scale, group=name),
            Series("", one.wandering.lags, one.chain.moved / scale, look="line", group=name),
        ]  # fmt: skip
    return claim.to_datatree(
        Chart("Displacement over its first value (lines: chain)", "lag k in steps",
              "E|θ_k − θ_0|², relative", tuple(curves), log="xy"),
    )  # fmt: skip
