"""Claims on how SGD moves in phase space near a minimum: oscillation and equipartition."""

import numpy as np
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws.minimum import PhaseSpaceTransition
from statsgd.measures import jackknife
from statsgd.reports import Chart, Series
from studies.phase_space.followed import (
    Followed,
    Theory,
    run_in_phase_space,
    stationary_starts,
    variances,
)

KUNIN = "Kunin et al. (2021), arXiv:2107.09133"


def path_claim(case: Followed) -> xr.DataTree:
    """The mean path from rest against the damped oscillator."""
    theory, main = case.theory, case.main
    model = PhaseSpaceTransition.of(theory.continuous)
    chain = PhaseSpaceTransition.of(theory.exact)
    start = -theory.exact.modes().vectors.T @ theory.exact.location
    period = model.period()[case.sharpest]
    quantities, planes, ways = [], [], []
    steps = [int(k) for k in main.path_steps]
    moves = np.array([model.propagator(k)[:, :, 0] for k in steps])
    gap = np.abs(moves - [chain.propagator(k)[:, :, 0] for k in steps])[:, :, 0]
    for name, mode in case.modes.items():
        share = main.path[0, :, mode] / start[mode]
        error = np.abs(main.path_error[0, :, mode] / start[mode])
        for step in (round(period / 2), round(period)):
            i = int(np.flatnonzero(main.path_steps == step)[0])
            quantities.append(
                Quantity(
                    f"{name}: left after {step} steps, less the model's",
                    float(share[i] - moves[i, mode, 0]),
                    float(error[i]),
                    0.0,
                    margin=case.margin,
                )
            )
        ways += [
            Series(name, main.path_steps, share, error, group=name),
            Series("", main.path_steps, moves[:, mode, 0], look="line", group=name),
        ]
    sharp = case.sharpest
    scale = theory.continuous.frequencies()[sharp]
    for name, x, v, look in (
        ("SGD, mean over runs", *(main.path[:, :, sharp] / start[sharp]), "points"),
        ("the model", moves[:, sharp, 0], moves[:, sharp, 1], "line"),
    ):
        planes.append(Series(name, x, v / scale, look=look, group=name))
    claim = Claim(
        "From rest SGD with momentum reaches the minimum as a damped oscillator in every "
        "eigenmode of the Hessian, with friction 2(1−β)/(η(1+β)) and frequency √(2h/(η(1+β)))",
        KUNIN,
        quantities,
        f"Mean over {len(main.position)} runs from rest at the origin. "
        f"{int(model.oscillates().sum())} of {len(gap[0])} modes oscillate in the model and "
        f"{int(chain.oscillates().sum())} in the chain; the sharpest turns once in "
        f"{period:.1f} steps in the model and {chain.period()[sharp]:.1f} in the chain. Whatever "
        f"the noise, the mean path of the model differs from that of the chain by at most "
        f"{gap.max():.3f} of the start, over all modes.",
        origin="source",
        place="the exact solution of the underdamped model",
        data_sets=1,
        unit="runs",
    )
    return claim.to_datatree(
        Chart("Mean path of the sharpest mode in phase space", "position / start",
              "velocity / (ω · start)", tuple(planes)),
        Chart("Mean position on the way from rest (lines: model)", "steps",
              "position / start", tuple(ways), level=0),
    )  # fmt: skip


def correlation_claim(case: Followed) -> xr.DataTree:
    """The stationary autocorrelation against that of the model."""
    main, model = case.main, PhaseSpaceTransition.of(case.theory.continuous)
    period = model.period()[case.sharpest]
    near = range(1, 37)
    judged = [round(period / 2), round(period)]
    quantities, series = [], []
    for name, mode in case.modes.items():
        measured = main.correlation(near, mode)
        predicted = np.array([model.correlation(lag)[mode] for lag in near])
        series += [
            Series(name, near, measured.value, measured.standard_error, group=name),
            Series("", near, predicted, look="line", group=name),
        ]
        for lag in judged:
            i = near.index(lag)
            quantities.append(
                Quantity(
                    f"{name}: correlation at lag {lag}, less the model's",
                    float(measured.value[i] - predicted[i]),
                    float(measured.standard_error[i]),
                    0.0,
                    margin=case.margin,
                )
            )
    claim = Claim(
        "At stationarity the parameters keep oscillating: their autocorrelation is that of the "
        "underdamped Langevin model",
        KUNIN,
        quantities,
        "The mean of a step is linear in position and velocity, and stationarity fixes their "
        "ratio; so the noise of minibatches, which is neither constant nor Gaussian, does not "
        "change correlations.",
        origin="source",
        place="the exact solution of the underdamped model",
        data_sets=1,
        unit="runs",
    )
    chart = Chart("Autocorrelation of position at stationarity (lines: model)", "lag in steps",
                  "correlation", tuple(series), level=0)  # fmt: skip
    return claim.to_datatree(chart)


def no_momentum_claim(case: Followed) -> xr.DataTree:
    """Without momentum the model oscillates, and SGD does not."""
    replicas = len(case.main.position)
    h = float(case.theory.exact.modes().curvatures[-1])
    rate = 0.8 / h
    sgd = case.sgd_with(learning_rate=rate, momentum=0.0, batch_size=4 * case.batch_size)
    theory = Theory.of(case.problem, sgd)
    model, chain = PhaseSpaceTransition.of(theory.continuous), PhaseSpaceTransition.of(theory.exact)
    half = max(1, round(float(model.period()[-1]) / 2))
    lags = list(range(1, 2 * half + 1))
    runs = run_in_phase_space(
        case.problem, sgd, theory.exact, burn_in=50, steps=[0, *lags], replicas=replicas,
        seed=case.seed, start=stationary_starts(theory.exact, replicas, case.seed + 1),
    )  # fmt: skip
    measured = runs.correlation(lags, -1)
    curves = {n: np.array([t.correlation(k)[-1] for k in lags])
              for n, t in (("the model", model), ("the chain, exact", chain))}  # fmt: skip
    claim = Claim(
        "The second-order model holds without momentum too: modes with ηh > 1/2 oscillate",
        f"derived from {KUNIN}",
        [
            Quantity(
                f"sharpest mode: correlation at lag {lag}, less the model's",
                float(measured.value[lag - 1] - curves["the model"][lag - 1]),
                float(measured.standard_error[lag - 1]),
                0.0,
                margin=case.margin,
            )
            for lag in (1, half)
        ],
        f"At β = 0 and ηh = {rate * h:.2f} the model turns once in {model.period()[-1]:.1f} "
        f"steps. The chain multiplies position by 1 − ηh = {1 - rate * h:.2f} a step: it never "
        "oscillates. The second-order term of the model is an expansion in η, which such a "
        "step is too large for; with momentum the chain has a second order of its own.",
        origin="extension",
        place="the underdamped model, extended to no momentum",
        data_sets=1,
        unit="runs",
    )
    series = [Series("SGD", lags, measured.value, measured.standard_error)]
    series += [Series(name, lags, y, look="line") for name, y in curves.items()]
    chart = Chart("Autocorrelation without momentum, sharpest mode", "lag in steps",
                  "correlation", tuple(series), level=0)  # fmt: skip
    return claim.to_datatree(chart)


def energy_ratio(case: Followed) -> Estimate:
    """ω²⟨x²⟩/⟨v²⟩ of every mode, and last their mean."""
    main, omega = case.main, case.theory.continuous.frequencies()
    squares = np.stack([(main.position**2).mean(1), (main.velocity**2).mean(1)], axis=1)

    def ratios(mean):
        each = omega**2 * mean[0] / mean[1]
        return np.append(each, each.mean())

    return jackknife(ratios, squares)


def equipartition_claim(case: Followed) -> xr.DataTree:
    """Potential and kinetic part of the modified loss are equal in every mode."""
    theory, main, ratio = case.theory, case.main, energy_ratio(case)
    named = {**case.modes, "mean over all modes": -1}
    claim = Claim(
        "In every mode the modified loss is shared equally between position and velocity: "
        "ω²⟨x²⟩ = ⟨v²⟩, whatever the noise",
        KUNIN,
        [
            Quantity(name, float(ratio.value[i]), float(ratio.standard_error[i]), 1.0,
                     margin=case.margin)
            for name, i in named.items()
        ],
        "It is an identity of stationarity, for the chain as for the model: a mode forgets "
        "through friction what its noise puts in.",
        origin="source",
        place="the modified loss",
        data_sets=1,
        unit="runs",
    )  # fmt: skip
    h = theory.exact.modes().curvatures
    rng = np.random.default_rng(case.seed)
    some = rng.choice(len(main.position), min(120, len(main.position)), replace=False)
    mode = case.sharpest
    x, v = main.position[some, 0, mode], main.velocity[some, 0, mode]
    turn = np.linspace(0, 2 * np.pi, 200)
    radius = np.sqrt(2 * variances(theory.continuous, "params")[mode])
    speed = np.sqrt(2 * variances(theory.continuous, "momentum_buffer")[mode])
    return claim.to_datatree(
        Chart("Potential over kinetic part, mode by mode", "curvature h", "ω²⟨x²⟩ / ⟨v²⟩",
              (Series("", h, ratio.value[:-1], ratio.standard_error[:-1]),), log="x", level=1),
        Chart("Sharpest mode in phase space, and a level of the modified loss", "position x",
              "velocity v", (Series("runs", x, v),
              Series("κΨ = 1 in this mode", radius * np.cos(turn), speed * np.sin(turn),
                     look="line"))),
    )  # fmt: skip
