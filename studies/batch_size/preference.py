"""Claims on two wells of one parameter: which one SGD is found in, and how soon."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import (
    EffectivePotentialGibbs,
    equal_weight_batch_size,
    kramers_escape_time,
    well_weights,
)
from statsgd.measures import escape_rate, survival_curve
from statsgd.problems import Landscape, landscape, landscapes
from statsgd.reports import Chart, Series
from studies.batch_size.wells import (
    ASYMMETRY,
    SHARP,
    Course,
    Exact,
    QuieterWhereSharp,
    RaisedWells,
    courses,
    minima,
    saddle,
)

DAI = "Dai, Zhu (2018), arXiv:1812.00542; (2021), arXiv:2112.00987"
HEIGHT = 0.02


class Wells(NamedTuple):
    """How the wells are studied."""

    learning_rate: float
    example_variance: float
    """Variance v₁ of one example's gradient."""
    batch_sizes: tuple[int, ...]
    """Those that are run."""
    computed: tuple[int, ...]
    """Those solved on a grid too."""
    steps: int
    spacing: int
    replicas: int
    margin: float
    seed: int
    progress: bool

    def sgd(self, size: int) -> statsgd.SGD:
        """SGD with isotropic noise v₁/S."""
        noise = statsgd.noise.Isotropic(self.example_variance / size)
        return statsgd.SGD(self.learning_rate, noise)

    def follow(self, problem: Any, sgd: statsgd.SGD) -> list[Course]:
        """Runs at every batch size from the sharp minimum."""
        values = {size: self.example_variance / size for size in self.batch_sizes}
        return courses(
            problem, sgd, values, steps=self.steps, spacing=self.spacing,
            replicas=self.replicas, seed=self.seed, progress=self.progress,
        )  # fmt: skip

    @property
    def sizes(self) -> tuple[int, ...]:
        """All batch sizes."""
        return (*self.batch_sizes, *self.computed)


def well_claims(wells: Wells) -> dict[str, xr.DataTree]:
    """All claims on two wells."""
    problem = landscapes.smooth_wells(ASYMMETRY)
    runs = wells.follow(problem, wells.sgd(wells.batch_sizes[0]))
    exact = {size: Exact.of(problem, wells.sgd(size)) for size in wells.sizes}
    return {
        "flat well in the long run": preference_claim(wells, runs, exact),
        "flat well whatever the noise": noise_claim(wells),
        "flat well whatever the heights": height_claim(wells),
        "convergence time": time_claim(wells, problem, runs, exact),
        "Kramers": kramers_claim(wells, problem, runs, exact),
        "fixed budget": budget_claim(wells, runs, exact),
        "learning rate over batch size": ratio_claim(wells, problem),
    }


def share(run: Course, name: str, predicted: float, relation: str = "=", margin: float = 0.0):
    """The share of runs in the flat well at the end as a quantity."""
    return Quantity(name, float(run.flat[-1]), float(run.error[-1]), predicted, relation, margin)


def shares_chart(
    title: str, sizes: tuple[int, ...], exact: Any, runs: list[Course], limit: float
) -> Chart:
    """Share of the flat well against the batch size."""
    ends = [run.flat[-1] for run in runs], [run.error[-1] for run in runs]
    return Chart(
        title, "batch size S", "share in the flat well",
        (Series("chain, exact and stationary", sizes, exact, look="line"),
         Series("SGD at the end of the runs", [run.batch_size for run in runs], *ends)),
        level=limit,
    )  # fmt: skip


def preference_claim(wells: Wells, runs: list[Course], exact: dict[int, Exact]) -> xr.DataTree:
    """Equal heights, constant noise."""
    curvatures, _ = minima(landscapes.smooth_wells(ASYMMETRY))
    hessians = [np.array([[h]]) for h in curvatures]
    limit = float(well_weights(hessians, [0.0, 0.0], 1.0)[0])
    flat = [exact[size].flat() for size in wells.sizes]
    claim = Claim(
        "Of two equally deep wells SGD with constant isotropic noise prefers the flatter one, in "
        "the long run and regardless of the batch size",
        DAI,
        [share(run, f"share in the flat well, S = {run.batch_size}", limit, margin=wells.margin)
         for run in runs],
        f"√h_sharp : √h_flat gives the flat well {limit:.3f} of the mass at low temperature. The "
        f"exact chain has {min(flat):.3f} to {max(flat):.3f} for S = {wells.sizes[0]} to "
        f"{wells.sizes[-1]}: a finite learning rate favours the flat well a little more.",
    )  # fmt: skip
    chart = shares_chart("Equal heights, constant noise", wells.sizes, flat, runs, limit)
    return claim.to_datatree(chart)


def noise_claim(wells: Wells) -> xr.DataTree:
    """Noise that is weaker in the sharp well."""
    problem = landscapes.smooth_wells(ASYMMETRY)

    def sgd(size: int) -> statsgd.SGD:
        noise = QuieterWhereSharp(wells.example_variance / size)
        return statsgd.SGD(wells.learning_rate, noise)

    runs = wells.follow(problem, sgd(wells.batch_sizes[0]))
    flat = [Exact.of(problem, sgd(size)).flat() for size in wells.sizes]
    edge = saddle(problem)
    law = EffectivePotentialGibbs.from_sgd(problem, sgd(wells.batch_sizes[-1]))
    published = float(np.ravel(law.cdf(np.array([edge])))[0])
    claim = Claim(
        "SGD prefers the flatter of two equally deep wells regardless of the batch size, whatever "
        "its noise",
        DAI,
        [share(run, f"share in the flat well is above a half, S = {run.batch_size}", 0.5, ">")
         for run in runs],
        "The noise here is about half as strong in the sharp well. What counts is then not L but "
        "Φ with ∇Φ = ∇L/v₁, in which the wells are not equally deep, and that difference is "
        "multiplied by the batch size: the share of the flat well of the exact chain falls from "
        f"{flat[0]:.3f} at S = {wells.sizes[0]} to {flat[-1]:.3f} at S = {wells.sizes[-1]}. The "
        f"published law, with Φ, gives {published:.3f} at S = {wells.batch_sizes[-1]}; the "
        "statement needs noise that is constant or a function of the loss.",
    )  # fmt: skip
    chart = shares_chart("Weaker noise in the sharp well", wells.sizes, flat, runs, 0.5)
    return claim.to_datatree(chart)


def height_claim(wells: Wells) -> xr.DataTree:
    """A flat well that is less deep."""
    problem = raised_wells()
    runs = wells.follow(problem, wells.sgd(wells.batch_sizes[0]))
    flat = np.array([Exact.of(problem, wells.sgd(size)).flat() for size in wells.sizes])
    (h_flat, h_sharp), heights = minima(problem)
    predicted = equal_weight_batch_size(
        [[h_flat]], [[h_sharp]], heights[0] - heights[1], wells.learning_rate,
        wells.example_variance,
    )  # fmt: skip
    logit = np.log(flat / (1 - flat))
    crossing = float(np.interp(0.0, -logit, wells.sizes))
    claim = Claim(
        "SGD prefers the flatter of two wells at every batch size, where it is less deep too",
        f"derived from {DAI}",
        [
            *[share(run, f"share in the flat well is above a half, S = {run.batch_size}", 0.5, ">")
              for run in runs],
            Quantity("batch size at which both weigh the same, exact chain", crossing, 0.0,
                     predicted, margin=2 * wells.margin),
        ],
        f"The flat minimum is {heights[0] - heights[1]:.3f} higher. Curvature weighs the same at "
        "every temperature, height the more the colder it is: above the batch size "
        f"ηv₁ log(h_sharp/h_flat)/(4Δ) = {predicted:.2f} (exact chain {crossing:.2f}) the deeper "
        "well wins.",
    )  # fmt: skip
    chart = shares_chart("Flat well less deep", wells.sizes, flat, runs, 0.5)
    return claim.to_datatree(chart)


def raised_wells() -> Landscape:
    """The wells with the flat one higher."""
    return landscape(RaisedWells(HEIGHT), np.array([SHARP]))


def log_slope(sizes: Any, times: Any, errors: Any) -> tuple[float, float]:
    """Slope of log time on batch size by weighted least squares, with its error."""
    x, y = np.asarray(sizes, dtype=float), np.log(times)
    weight = (np.asarray(times) / np.asarray(errors)) ** 2
    centred = x - np.average(x, weights=weight)
    scale = float(np.sum(weight * centred**2))
    return float(np.sum(weight * centred * y) / scale), scale**-0.5


def time_claim(
    wells: Wells, problem: Any, runs: list[Course], exact: dict[int, Exact]
) -> xr.DataTree:
    """Arrival in the flat well, against the batch size."""
    edge = saddle(problem)
    rates = [escape_rate(run.exits) for run in runs]
    times = np.array([rate.mean_time for rate in rates])
    errors = np.array([time * rate.standard_error / rate.value
                       for time, rate in zip(times, rates, strict=True)])  # fmt: skip
    sizes = np.array([run.batch_size for run in runs])
    slope, error = log_slope(sizes, times, errors)
    barrier = loss_at(problem, edge) - loss_at(problem, SHARP)
    predicted = 2 * barrier / (wells.learning_rate * wells.example_variance)
    arrivals = np.array([exact[size].arrival() for size in wells.sizes])
    far = np.polyfit(wells.sizes[-2:], np.log(arrivals[-2:]), 1)[0]
    claim = Claim(
        "The time that SGD takes to its long-run law grows exponentially with the batch size, "
        "like exp(2SΔL/(ηv₁))",
        DAI,
        [
            Quantity("slope of log mean arrival time on batch size", slope, error, predicted,
                     margin=2 * wells.margin),
            *[Quantity(f"mean arrival time, S = {run.batch_size}, over that of the exact chain",
                       float(time / exact[run.batch_size].arrival()),
                       float(deviation / exact[run.batch_size].arrival()), 1.0,
                       margin=2 * wells.margin)
              for run, time, deviation in zip(runs, times, errors, strict=True)],
        ],
        f"Arrival in the flat well from the sharp minimum, by maximum likelihood from "
        f"{wells.replicas} runs with those that never left as censored. The exact slope between "
        f"S = {wells.sizes[-2]} and {wells.sizes[-1]} is {far:.4f}.",
    )  # fmt: skip
    curves = []
    for run, rate in zip(runs, rates, strict=True):
        curve = survival_curve(run.exits)
        some = np.unique(np.linspace(0, len(curve.time) - 1, 60).astype(int))
        name = f"S = {run.batch_size}"
        curves += [
            Series(name, curve.time[some], curve.survival[some], curve.standard_error[some],
                   look="steps", group=name),
            Series("", curve.time[some], np.exp(-rate.value * curve.time[some]), look="line",
                   group=name),
        ]  # fmt: skip
    return claim.to_datatree(
        Chart("Mean arrival time in the flat well", "batch size S", "steps",
              (Series("SGD", sizes, times, errors),
               Series("chain, exact", wells.sizes, arrivals, look="line")), log="y"),
        Chart("Runs not yet in the flat well (Kaplan–Meier)", "steps", "share", tuple(curves),
              log="x"),
    )  # fmt: skip


def kramers_claim(
    wells: Wells, problem: Any, runs: list[Course], exact: dict[int, Exact]
) -> xr.DataTree:
    """Absolute escape times against the formula."""
    edge = saddle(problem)
    barrier = loss_at(problem, edge) - loss_at(problem, SHARP)
    deep = [
        run
        for run in runs
        if barrier > 2.5 * wells.learning_rate * wells.example_variance / (2 * run.batch_size)
    ]

    def formula(size: int) -> float:
        temperature = wells.learning_rate * wells.example_variance / (2 * size)
        return kramers_escape_time(
            problem, np.array([SHARP]), np.array([edge]), temperature,
            learning_rate=wells.learning_rate,
        ) / wells.learning_rate  # fmt: skip

    ratios = [exact[size].arrival() / formula(size) for size in wells.sizes if size > 2]
    quantities = []
    for run in deep:
        rate, predicted = escape_rate(run.exits), formula(run.batch_size)
        quantities.append(
            Quantity(f"mean arrival time over Kramers', S = {run.batch_size}",
                     rate.mean_time / predicted,
                     rate.mean_time * rate.standard_error / rate.value / predicted, 1.0,
                     margin=2 * wells.margin)
        )  # fmt: skip
    claim = Claim(
        "The mean escape time in steps is Kramers' (2π/(η√(h_a|h_s|))) exp(ΔL/τ), τ = ηv₁/(2S)",
        DAI,
        quantities,
        "The formula is asymptotic: its error is of the order of the temperature. The exact time "
        f"of the chain is {ratios[0]:.3f} of it at S = {next(s for s in wells.sizes if s > 2)} and "
        f"{ratios[-1]:.3f} at S = {wells.sizes[-1]}.",
    )  # fmt: skip
    sizes = [size for size in wells.sizes if size > 2]
    chart = Chart("Exact arrival time over Kramers' formula", "batch size S", "ratio",
                  (Series("chain, exact", sizes, ratios, look="line"),
                   Series("SGD", [run.batch_size for run in deep],
                          [q.measured for q in quantities],
                          [q.standard_error for q in quantities])), level=1)  # fmt: skip
    return claim.to_datatree(chart)


def budget_claim(wells: Wells, runs: list[Course], exact: dict[int, Exact]) -> xr.DataTree:
    """At a fixed number of steps."""
    small, large = runs[0], runs[-1]
    budget = int(np.searchsorted(small.steps, 3 / exact[small.batch_size].law.relaxation_rate()))
    steps = int(small.steps[budget])
    claim = Claim(
        "At a fixed number of steps small batches are found in the flat minimum and large ones "
        "still in the sharp one where they started",
        DAI,
        [
            Quantity(f"share in the flat well after {steps} steps, S = {small.batch_size}",
                     float(small.flat[budget]), float(small.error[budget]), 0.5, ">"),
            Quantity(f"the same, S = {large.batch_size}", float(large.flat[budget]),
                     float(large.error[budget]), 0.5, "<"),
        ],
        "Both have the same limit; the larger batch is not there yet. What a fixed budget shows "
        "is the time course and not the preference.",
    )  # fmt: skip
    series = []
    for run in runs:
        some = np.unique(np.geomspace(1, len(run.steps), 25).astype(int)) - 1
        name = f"S = {run.batch_size}"
        predicted = exact[run.batch_size].course(run.steps[some])
        series += [
            Series(name, run.steps[some], run.flat[some], run.error[some], group=name),
            Series("", run.steps[some], predicted, look="line", group=name),
        ]
    chart = Chart("From the sharp minimum (lines: chain, exact)", "steps",
                  "share in the flat well", tuple(series), log="x")  # fmt: skip
    return claim.to_datatree(chart)


def ratio_claim(wells: Wells, problem: Any) -> xr.DataTree:
    """Learning rate and batch size together, by the exact chain."""
    size = wells.batch_sizes[-1]
    base = wells.learning_rate / 4
    factors = np.array([1, 2, 4, 8])
    arrivals, flat = [], []
    for factor in factors:
        variance = wells.example_variance / (factor * size / 4)
        noise = statsgd.noise.Isotropic(variance)
        chain = Exact.of(problem, statsgd.SGD(base * factor, noise))
        arrivals.append(chain.arrival() * base * factor)
        flat.append(chain.flat())
    ratios = np.array(arrivals) / arrivals[0]
    claim = Claim(
        "Only the ratio of learning rate to batch size counts: scaled together, they leave the "
        "long-run law and the course in time ηk as they are",
        DAI,
        [
            *[Quantity(f"mean arrival time ηk at {factor} times both, over the first",
                       float(ratio), 0.0, 1.0, margin=2 * wells.margin)
              for factor, ratio in zip(factors[1:], ratios[1:], strict=True)],
            Quantity(f"share in the flat well at {factors[-1]} times both", flat[-1], 0.0, flat[0],
                     margin=2 * wells.margin),
        ],
        f"Computed from the exact chain at η = {base:g} to {base * factors[-1]:g}. It is true of "
        "the diffusion limit; at larger steps the chain escapes from the sharp well sooner, "
        "since ηh there is no longer small.",
    )  # fmt: skip
    chart = Chart(
        "Arrival time at fixed η/S",
        "learning rate η",
        "ηk, relative to the first",
        (Series("chain, exact", base * factors, ratios),),
        log="x",
        level=1,
    )
    return claim.to_datatree(chart)


def loss_at(problem: Any, x: float) -> float:
    """The loss at one place."""
    return float(problem.loss(np.array([x])))
