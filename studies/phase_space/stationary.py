"""Claims on the stationary law in phase space: the modified loss, and the currents on it."""

import numpy as np
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws import PhaseSpaceGaussian
from statsgd.laws.minimum import phase_plane_area, stochastic_area
from statsgd.measures import area_rate, jackknife, mean_over_clusters, phase_plane_area_rate
from statsgd.reports import Chart, Series
from studies.phase_space.followed import (
    FORGET,
    Ensemble,
    Followed,
    quadratic_with_noise,
    run_in_phase_space,
    stationary_starts,
    variances,
)
from studies.phase_space.motion import KUNIN

ADHIKARI = "Adhikari et al. (2023), arXiv:2306.03521"
_PAIRED = 16  # sharpest modes, of which all pairs are shown


def imposed_noise_claim(case: Followed) -> xr.DataTree:
    """The modified loss where the noise is what it assumes."""
    model = case.theory.model
    chain = type(case.theory.frozen)(
        model.hessian, model.noise_covariance, model.learning_rate, model.momentum,
        model.weight_decay, model.location,
    )  # fmt: skip
    problem, sgd = quadratic_with_noise(chain)
    replicas = len(case.main.position)
    runs = run_in_phase_space(
        problem, sgd, chain, burn_in=FORGET, steps=range(0, 320, 20), replicas=replicas,
        seed=case.seed, start=stationary_starts(chain, replicas, case.seed + 2),
    )  # fmt: skip
    largest = 1 / (
        1 - chain.learning_rate * chain.modes().curvatures[-1] / (2 + 2 * chain.momentum)
    )
    return spread_claim(
        "Where gradient noise is Gaussian with covariance σ²H/S, SGD has the stationary law "
        "exp(−κΨ) of the modified loss: almost the same spread of position in every mode, and a "
        "spread of velocity in proportion to curvature",
        case,
        runs,
        dict(case.modes),
        f"The noise of this claim is imposed: Gaussian, C = σ²H/S with the σ² of the data. What "
        f"is left is the finite step, which makes variances larger by up to "
        f"{100 * (largest - 1):.1f} %.",
        origin="source",
        place="the modified loss",
    )


def minibatch_claim(case: Followed) -> xr.DataTree:
    """The modified loss against real minibatches."""
    theory = case.theory
    shape = variances(theory.frozen) / variances(theory.model)
    growth = variances(theory.exact) / variances(theory.frozen)
    modes = {
        "sharpest mode": case.sharpest,
        "mode of most noise": int(np.argmax(shape)),
        "mode of least noise": int(np.argmin(shape)),
    }
    return spread_claim(
        "With real minibatches too, SGD has the stationary law of the modified loss, whose "
        "σ² is Tr Σ₁/Tr H",
        case,
        case.main,
        modes,
        "Computed from the data: the noise covariance of the digits is not proportional to the "
        f"Hessian, which changes mode variances by factors {shape.min():.2f} to "
        f"{shape.max():.2f}; and it grows away from the minimum, which adds factors "
        f"{growth.min():.2f} to {growth.max():.2f}.",
        origin="reading",
        place="the assumption C ∝ H, read for real minibatches",
    )


def spread_claim(
    statement: str,
    case: Followed,
    runs: Ensemble,
    modes: dict[str, int],
    why: str,
    *,
    origin: str,
    place: str,
) -> xr.DataTree:
    """Variances of position and velocity in `modes` against the modified loss."""
    model = case.theory.model
    position, velocity = second_moments(runs)
    predicted = variances(model), variances(model, "momentum_buffer")
    quantities = [
        Quantity(f"{name}: {what} variance", float(found.value[mode]),
                 float(found.standard_error[mode]), float(theory[mode]), margin=case.margin)
        for name, mode in modes.items()
        for what, found, theory in zip(("position", "velocity"), (position, velocity), predicted,
                                       strict=True)
    ]  # fmt: skip
    h = model.modes().curvatures
    series = []
    for what, found, theory in zip(
        ("position", "velocity"), (position, velocity), predicted, strict=True
    ):
        series += [
            Series(what, h, found.value, found.standard_error, group=what),
            Series("", h, theory, look="line", group=what),
        ]
    chart = Chart(
        "Variances by mode (lines: modified loss)", "curvature h (with weight decay)",
        "variance (params²; velocity per ηk)", tuple(series), log="xy",
    )  # fmt: skip
    claim = Claim(
        statement, KUNIN, quantities, why, origin=origin, place=place, data_sets=1, unit="runs"
    )
    return claim.to_datatree(chart)


def second_moments(runs: Ensemble) -> tuple[Estimate, Estimate]:
    """Mean squares of position and velocity of every mode over runs and steps."""
    return (
        mean_over_clusters((runs.position**2).mean(axis=1)),
        mean_over_clusters((runs.velocity**2).mean(axis=1)),
    )


def phase_current_claim(case: Followed) -> xr.DataTree:
    """Rotation in the plane of position and velocity of every mode."""
    theory, (x, v) = case.theory, case.main.consecutive()
    measured = phase_plane_area_rate(x, -v)
    model = phase_plane_area(theory.continuous)
    exact = phase_plane_area(theory.exact)
    shown = {**case.modes, "steepest tenth of modes, sum": None}
    steep = slice(-(len(model) // 10), None)
    total = jackknife(
        lambda mean: mean,
        np.stack([0.5 * np.sum(x[:, :-1, steep] * np.diff(v, axis=1)[..., steep]
                               - v[:, :-1, steep] * np.diff(x, axis=1)[..., steep],
                               axis=2).mean(1)], axis=1),
    )  # fmt: skip
    quantities = []
    for name, mode in shown.items():
        value, error, expected = (
            (total.value[0], total.standard_error[0], model[steep].sum())
            if mode is None
            else (measured.value[mode], measured.standard_error[mode], model[mode])
        )
        quantities.append(
            Quantity(f"{name}: area over the model's", float(value / expected),
                     float(abs(error / expected)), 1.0, margin=2 * case.margin)
        )  # fmt: skip
    claim = Claim(
        "Probability flows in circles at stationarity: every mode sweeps the area ηC/(1−β²) a "
        "step, clockwise, in the plane of position and velocity",
        KUNIN,
        quantities,
        "C is the mean noise in the mode over the stationary law. The chain itself sweeps "
        f"ηC/(2(1−β)), {float(np.mean(exact / model)):.3f} of the model's area at this momentum, "
        "at any curvature.",
        origin="source",
        place="abstract: oscillations in phase space",
        data_sets=1,
        unit="runs",
    )
    h = theory.exact.modes().curvatures
    chart = Chart(
        "Area swept per step in phase space, clockwise", "curvature h (with weight decay)",
        "area (position × velocity)",
        (Series("SGD", h, -measured.value, measured.standard_error),
         Series("model", h, -model, look="line"), Series("chain, exact", h, -exact, look="line")),
        log="xy",
    )  # fmt: skip
    return claim.to_datatree(chart)


def mode_current_claim(case: Followed) -> xr.DataTree:
    """Rotation between modes, which is what tells SGD from an equilibrium."""
    theory = case.theory
    x, _ = case.main.consecutive()
    q = theory.exact.modes().vectors
    predicted = q.T @ stochastic_area(theory.exact) @ q
    # An antisymmetric matrix sweeps most area in the plane of its first two singular vectors.
    left, _, right = np.linalg.svd(predicted)
    first = left[:, 0]
    second = right[0] - (right[0] @ first) * first
    plane = np.stack([first, second / np.linalg.norm(second)], axis=1)
    swept = area_rate(x, plane)
    expected = float(plane[:, 0] @ predicted @ plane[:, 1])
    steep = np.eye(len(predicted))[:, -_PAIRED:]
    everywhere = area_rate(x, steep)
    upper = np.triu_indices(_PAIRED, 1)
    sizes, found, errors = (
        part[upper]
        for part in (steep.T @ predicted @ steep, everywhere.value, everywhere.standard_error)
    )
    assumed = PhaseSpaceGaussian.hessian_noise(
        theory.exact.hessian, 1.0, 1, theory.exact.learning_rate, theory.exact.momentum
    )
    claim = Claim(
        "SGD is out of equilibrium even in the parameters alone: it circulates between modes of "
        "different curvature whose noise is correlated, by (η/2)(h_i−h_j)Cov(θ_i,θ_j)/(1−β) a step",
        ADHIKARI,
        [
            Quantity("area swept per step in the plane of most current", float(swept.value[0, 1]),
                     float(swept.standard_error[0, 1]), expected, margin=2 * case.margin),
            Quantity("its size", abs(float(swept.value[0, 1])),
                     float(swept.standard_error[0, 1]), 0.0, ">"),
        ],
        "The plane is chosen from theory. Noise with C ∝ H would give no such current: "
        f"{float(np.abs(stochastic_area(assumed)).max()):.1g} in every plane.",
        origin="reading",
        place="abstract: persistent currents; their size is derived",
        data_sets=1,
        unit="runs",
    )  # fmt: skip
    chart = Chart(
        f"Area swept per step between pairs of the {_PAIRED} sharpest modes", "predicted (params²)",
        "measured (params²)",
        (Series("pairs", sizes, found, errors),
         Series("equal", np.sort(sizes), np.sort(sizes), look="line")),
    )  # fmt: skip
    return claim.to_datatree(chart)
