"""Particles under a quadratic functional, where every error of mean-field theory is known."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.comparison.statistics import cluster_mean
from statsgd.estimate import Estimate
from statsgd.kernels import MeanFieldFunctional, MeanFieldLangevin
from statsgd.laws import QuadraticMeanField
from statsgd.laws.mean_field import shared_minibatch_variance
from statsgd.reports import Chart, Series

#: F = (a/2)E x² + (b/2)(E x − y)² at temperature τ.
DECAY, STRENGTH, TARGET, TEMPERATURE = 1.0, 4.0, 2.0, 0.5
STEPS = np.array([0.05, 0.1, 0.2, 0.3])
#: The regression of the minibatches: fifty examples, weight decay, temperature, step, batch.
EXAMPLES, REGRESSION = 50, (0.5, 0.2)
STEP, BATCH, REFRESH = 0.05, 2, 25
#: Steps from draw to draw: about the time in which the cloud forgets.
THINNING = 16


class Particles(NamedTuple):
    """Moments of N particles: about the known mean, and of the cloud about its own centre."""

    centre: Estimate
    """Var X̄."""
    within: Estimate
    """Variance within the cloud, normalised by N."""
    marginal: Estimate
    """Var X_i = the sum of both."""


def law(number: int, learning_rate: float = 0.0) -> QuadraticMeanField:
    """The exact law of the particles."""
    return QuadraticMeanField.scalar(
        DECAY, STRENGTH, TARGET, TEMPERATURE, number, float(learning_rate)
    )


def moments(x: Float[Any, "chain draw n"], mean: float) -> Particles:
    """From particles of independent chains."""
    centre, within = (x.mean(axis=2) - mean) ** 2, x.var(axis=2)
    return Particles(*(cluster_mean(v[..., None]) for v in (centre, within, centre + within)))


def run(
    kernel: MeanFieldLangevin, start: Any, draws: int, chains: int, seed: int, **settings: Any
) -> Float[Any, "..."]:
    """Particles of every chain and draw, started at their mean."""
    tree = statsgd.sample(
        None, kernel, warmup=100, draws=draws, chains=chains, seed=seed, thinning=THINNING,
        starts={"x": start}, diagnose=False, devices=jax.devices(), **settings,
    )  # fmt: skip
    return tree["posterior"].to_dataset()["x"].values.astype(float)[..., 0]


def errors(
    numbers: Sequence[int], draws: int, chains: int, seed: int, progress: bool
) -> dict[int, list[Particles]]:
    """Moments for every number of particles and step size."""
    found = {}
    for index, number in enumerate(numbers):
        target = law(number)
        mean = float(target.particle_mean()[0])
        kernel = MeanFieldLangevin.on_law(target, learning_rate=STEPS[0])
        x = run(
            kernel, np.full((1, number, 1), mean), draws, chains, seed + index,
            grid={"step_size": STEPS}, progress=progress,
        )  # fmt: skip
        found[number] = [moments(cell, mean) for cell in x]
    return found


def claims(
    numbers: Sequence[int], draws: int, chains: int, margin: float, seed: int, progress: bool
) -> Mapping[str, xr.DataTree]:
    """What is claimed of finitely many particles and finite steps."""
    found = errors(numbers, draws, chains, seed, progress)
    return {
        "finitely many particles": chaos(found, margin).to_datatree(chaos_chart(found)),
        "finite steps": finite_steps(found, margin).to_datatree(step_chart(found)),
        "minibatches": minibatches(draws, chains, margin, seed + 50, progress),
    }


def particle_error(found: Mapping[int, Sequence[Particles]], step: int) -> tuple[Any, Any, Any]:
    """Marginal variance less that of infinitely many particles at the same step, and the law's."""
    infinite = TEMPERATURE / DECAY / (1 - STEPS[step] * DECAY / 2)
    value = [found[n][step].marginal.value[0] - infinite for n in found]
    error = [found[n][step].marginal.standard_error[0] for n in found]
    exact = [law(n, STEPS[step]).particle_covariance()[0, 0] - infinite for n in found]
    return np.array(value), np.array(error), np.array(exact)


def chaos(found: Mapping[int, Sequence[Particles]], margin: float) -> Claim:
    """The error of N particles is of order 1/N."""
    value, error, exact = particle_error(found, 0)
    number = np.array(list(found), dtype=float)
    return Claim(
        "A particle among N is off the mean-field law by O(1/N), uniformly in time.",
        "Suzuki, Wu, Nitanda (2023), arXiv:2306.07221 (propagation of chaos)",
        [
            *(
                Quantity(f"N × error of the variance, N = {n:g}", n * v, n * e, n * x, "=", margin)
                for n, v, e, x in zip(number, value, error, exact, strict=True)
            ),
            *(
                Quantity(f"N Var X̄, N = {n}", n * one[0].centre.value[0],
                         n * one[0].centre.standard_error[0],
                         n * law(n, STEPS[0]).center_covariance()[0, 0], "=", margin)
                for n, one in found.items()
            ),
        ],
        f"F = (a/2)E x² + (b/2)(E x − y)² with a = {DECAY:g}, b = {STRENGTH:g}, at τ = "
        f"{TEMPERATURE:g} and step {STEPS[0]:g}: stationary, so for all times. The variance of a "
        "particle lacks bτ/(a(a+b)N), because the particles see their own centre.",
        origin="source",
        place="propagation of chaos, uniform in time",
        data_sets=0,
        unit="chains",
    )  # fmt: skip


def finite_steps(found: Mapping[int, Sequence[Particles]], margin: float) -> Claim:
    """The bias of a step η is of order η, and known."""
    number = max(found)
    limit = law(number)
    quantities = []
    for i, eta in enumerate(STEPS):
        exact, one = law(number, eta), found[number][i]
        for name, part, matrix in (
            ("Var X̄", one.centre, exact.center_covariance()),
            ("cloud", one.within, (1 - 1 / number) * exact.cloud_covariance()),
        ):
            scale = matrix[0, 0]
            quantities.append(
                Quantity(f"{name}, η = {eta:g}", part.value[0] / scale,
                         part.standard_error[0] / scale, 1.0, "=", margin)
            )  # fmt: skip
    rise = law(number, STEPS[-1]).center_covariance() / limit.center_covariance() - 1
    return Claim(
        "A step η adds a bias of order η: Var X̄ is divided by 1 − η(a+b)/2, the cloud's variance "
        "by 1 − ηa/2.",
        "Suzuki, Wu, Nitanda (2023), arXiv:2306.07221, for the order; the factors are derived",
        quantities,
        f"Measured over predicted variance, N = {number}. At η = {STEPS[-1]:g} the centre varies "
        f"{100 * rise[0, 0]:.0f} % more than in continuous time.",
        origin="extension",
        place="the order of the bias; the factors are derived",
        data_sets=0,
        unit="chains",
    )


def minibatches(draws: int, chains: int, margin: float, seed: int, progress: bool) -> xr.DataTree:
    """The noise of minibatches that all particles share."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=EXAMPLES)
    targets = 2 * inputs + rng.normal(size=EXAMPLES)
    decay, temperature = REGRESSION
    functional = MeanFieldFunctional(
        lambda x, example: example["z"] * x[0],
        lambda output, example: 0.5 * (output - example["y"]) ** 2,
        {"z": inputs, "y": targets},
        decay,
    )
    curvature = decay + np.mean(inputs**2)
    mean = float(np.mean(inputs * targets) / curvature)
    numbers = (8, 64)
    full = [
        temperature / (n * curvature) / (1 - STEP * curvature / 2) for n in numbers
    ]  # Var X̄ with full gradients
    shared = [
        shared_minibatch_variance(inputs, targets, decay, temperature, n, STEP, BATCH)
        for n in numbers
    ]
    measured = {}
    for index, (number, gradient) in enumerate(
        [(numbers[0], "minibatch"), (numbers[1], "minibatch"), (numbers[1], "svrg")]
    ):
        every: dict[str, Any] = {"refresh_every": REFRESH} if gradient == "svrg" else {}
        kernel = MeanFieldLangevin(
            functional=functional, step_size=STEP, temperature=temperature, gradient=gradient,
            batch_size=BATCH, **every,
        )  # fmt: skip
        # A step with SVRG is a whole round, which forgets as much as the steps in it.
        length = max(draws // 16, 2) if gradient == "svrg" else draws
        start = np.full((1, number, 1), mean)
        x = run(kernel, start, length, chains, seed + index, progress=progress)
        measured[number, gradient] = moments(x, mean).centre
    few, many, reduced = (
        (float(one.value[0]), float(one.standard_error[0])) for one in measured.values()
    )
    fall = few[0] / many[0]
    error = fall * np.hypot(few[1] / few[0], many[1] / many[0])
    claim = Claim(
        "More neurons average the noise out: Var X̄ falls like 1/N, with minibatches as without.",
        "mean-field intuition, e.g. Mei, Montanari, Nguyen (2018), arXiv:1804.06561",
        [
            Quantity("Var X̄ at N = 8 over N = 64", fall, error, 8.0, "=", margin),
            Quantity("Var X̄ against the law, N = 64", many[0], many[1], shared[1], "=", margin),
            Quantity("SVRG over full gradients", reduced[0] / full[1], reduced[1] / full[1], 1.0,
                     "=", margin),
        ],
        f"All particles see the same batch of {BATCH} of {EXAMPLES} examples. The law of it falls "
        f"from {shared[0]:.4f} to {shared[1]:.4f}, where the injected noise alone would give "
        f"{full[0]:.4f} and {full[1]:.4f}: the gradient noise is common to the particles and no "
        f"number of them removes it. Variance-reduced gradients do ({reduced[0]:.4f}).",
        origin="reading",
        place="averages over neurons, read for noise of minibatches",
        data_sets=1,
        unit="chains",
    )  # fmt: skip
    width = np.geomspace(5, 300, 40)
    curves = [
        shared_minibatch_variance(inputs, targets, decay, temperature, int(n), STEP, BATCH)
        for n in width
    ]
    lone = temperature / (width * curvature) / (1 - STEP * curvature / 2)
    chart = Chart(
        "Variance of the mean particle",
        "number of particles N",
        "Var X̄ (params²)",
        (
            Series("minibatches", np.array(numbers), [few[0], many[0]], [few[1], many[1]]),
            Series("", np.trunc(width), curves, look="line", group="minibatches"),
            Series("SVRG", np.array([64.0]), [reduced[0]], [reduced[1]]),
            Series("full gradients (law)", width, lone, look="line"),
        ),
        "xy",
    )
    return claim.to_datatree(chart)


def chaos_chart(found: Mapping[int, Sequence[Particles]]) -> Chart:
    """Size of the error against N."""
    value, error, _ = particle_error(found, 0)
    number = np.array(list(found), dtype=float)
    fine = np.unique(np.geomspace(number.min(), number.max(), 30).astype(int))
    infinite = TEMPERATURE / DECAY / (1 - STEPS[0] * DECAY / 2)
    exact = [infinite - law(int(n), STEPS[0]).particle_covariance()[0, 0] for n in fine]
    series = (
        Series("particles", number, -value, error),
        Series("law", fine, exact, look="line", group="particles"),
    )
    title = "What the variance of a particle lacks"
    return Chart(title, "number of particles N", "τ/a − Var x (params²)", series, "xy")


def step_chart(found: Mapping[int, Sequence[Particles]]) -> Chart:
    """Variance of the centre against the step."""
    fine = np.linspace(0, STEPS.max(), 40)
    series = []
    for number, cells in found.items():
        value, error = (
            number * np.array([part[0] for part in parts])
            for parts in (
                [one.centre.value for one in cells],
                [one.centre.standard_error for one in cells],
            )
        )
        series.append(Series(f"N = {number}", STEPS, value, error))
    number = max(found)
    exact = [number * law(number, eta).center_covariance()[0, 0] for eta in fine]
    series.append(Series("law, any N", fine, exact, look="line"))
    title = "Variance of the mean particle and the step"
    return Chart(title, "step η", "N Var X̄ (params²)", tuple(series))
