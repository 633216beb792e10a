"""Claims on two wells of one parameter: how soon SGD is in the flat one."""

from typing import Any

import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws.gibbs import kramers_escape_time, mean_first_passage_1d
from statsgd.measures import escape_rate, survival_curve
from statsgd.reports import Chart, Series
from studies.batch_size.wells import ARRIVED, DAI, SHARP, Case, Course, Exact, Wells


def time_claims(wells: Wells, case: Case) -> dict[str, xr.DataTree]:
    """All claims on times; `case` has wells of one height and constant noise."""
    times = {run.batch_size: mean_time(run, wells.spacing) for run in case.runs}
    return {
        "convergence time": growth_claim(wells, case, times),
        "Kramers": kramers_claim(wells, case, times),
        "passage integral": passage_claim(wells, case, times),
        "fixed budget": budget_claim(wells, case),
        "learning rate over batch size": ratio_claim(wells, case),
    }


def mean_time(run: Course, spacing: int) -> Estimate:
    """Mean steps to the flat well, from all runs with those that never left as censored.

    Runs are looked at every `spacing` steps, half of which an arrival is seen too late.
    """
    rate = escape_rate(run.exits)
    mean = 1 / rate.value
    return Estimate(mean - spacing / 2, mean * rate.standard_error / rate.value)


def log_slope(sizes: Any, times: Any, errors: Any) -> tuple[float, float]:
    """Slope of log time on batch size by weighted least squares, with its error."""
    x, y = np.asarray(sizes, dtype=float), np.log(times)
    weight = (np.asarray(times) / np.asarray(errors)) ** 2
    centred = x - np.average(x, weights=weight)
    scale = float(np.sum(weight * centred**2))
    return float(np.sum(weight * centred * y) / scale), scale**-0.5


def over(name: str, time: Estimate, predicted: float, margin: float) -> Quantity:
    """A time over its prediction."""
    value, error = float(time.value), float(time.standard_error)
    return Quantity(name, value / predicted, error / predicted, 1.0, margin=margin)


def growth_claim(wells: Wells, case: Case, times: dict[int, Estimate]) -> xr.DataTree:
    """Arrival in the flat well, against the batch size."""
    means = np.array([float(time.value) for time in times.values()])
    errors = np.array([float(time.standard_error) for time in times.values()])
    slope, error = log_slope(list(times), means, errors)
    predicted = 2 * case.barrier / (wells.learning_rate * wells.example_variance)
    arrivals = np.array([chain.arrival() for chain in case.exact.values()])
    slopes = np.diff(np.log(arrivals)) / np.diff(wells.sizes)
    claim = Claim(
        "The time that SGD takes to its long-run law grows exponentially with the batch size, "
        "like exp(2SΔL/(ηv₁))",
        DAI,
        [
            Quantity("slope of log mean arrival time on batch size", slope, error, predicted,
                     margin=2 * wells.margin),
            *[over(f"mean arrival time over that of the exact chain, S = {size}", time,
                   case.exact[size].arrival(), 2 * wells.margin) for size, time in times.items()],
        ],
        f"Arrival in the flat well from the sharp minimum, by maximum likelihood from "
        f"{wells.replicas} runs with those that never left as censored. The exact slope is "
        f"{slopes[0]:.3f} between S = {wells.sizes[0]} and {wells.sizes[1]} and {slopes[-1]:.3f} "
        f"between S = {wells.sizes[-2]} and {wells.sizes[-1]}.",
        origin="source",
        place="abstract: the time may be exponential; its rate is Kramers'",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    curves = []
    for run, mean in zip(case.runs, means, strict=True):
        curve = survival_curve(run.exits)
        some = np.unique(np.linspace(0, len(curve.time) - 1, 60).astype(int))
        name = f"S = {run.batch_size}"
        curves += [
            Series(name, curve.time[some], curve.survival[some], curve.standard_error[some],
                   look="steps", group=name),
            Series("", curve.time[some], np.exp(-curve.time[some] / mean), look="line",
                   group=name),
        ]  # fmt: skip
    return claim.to_datatree(
        Chart("Mean arrival time in the flat well", "batch size S", "steps",
              (Series("SGD", list(times), means, errors),
               Series("chain, exact", wells.sizes, arrivals, look="line")), log="y"),
        Chart("Runs not yet in the flat well (lines: exponential)", "steps", "share",
              tuple(curves), log="x"),
    )  # fmt: skip


def kramers_claim(wells: Wells, case: Case, times: dict[int, Estimate]) -> xr.DataTree:
    """Absolute escape times against the asymptotic formula."""
    place, top = np.array([SHARP]), np.array([case.edge])
    formula = {
        size: kramers_escape_time(case.problem, place, top, wells.temperature(size))
        / wells.learning_rate
        for size in wells.sizes
    }
    ratios = [chain.arrival() / formula[size] for size, chain in case.exact.items()]
    measured = [
        over(f"SGD's mean arrival time over Kramers', S = {size}", time, formula[size],
             2 * wells.margin)
        for size, time in times.items()
    ]  # fmt: skip
    first, last = wells.sizes[0], wells.sizes[-1]
    claim = Claim(
        "The mean escape time in steps is Kramers' (2π/(η√(h_a|h_s|))) exp(ΔL/τ), τ = ηv₁/(2S), "
        "wherever the barrier exceeds two temperatures",
        DAI,
        [
            *measured,
            Quantity(f"that of the exact chain over Kramers', S = {first}", ratios[0], 0.0, 1.0,
                     margin=2 * wells.margin),
            Quantity(f"that of the exact chain over Kramers', S = {last}", ratios[-1], 0.0, 1.0,
                     margin=2 * wells.margin),
        ],
        f"The formula is asymptotic: ΔL/τ is {case.barrier / wells.temperature(first):.1f} at "
        f"S = {first}, where the exact time is {ratios[0]:.3f} of the formula's, and "
        f"{case.barrier / wells.temperature(last):.1f} at S = {last}, where it is "
        f"{ratios[-1]:.3f}; finite steps shorten it.",
        origin="reading",
        place="the escape time, read for barriers of two temperatures and more",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    chart = Chart(
        "Arrival time over Kramers' formula", "batch size S", "ratio",
        (Series("SGD", list(times), [q.measured for q in measured],
                [q.standard_error for q in measured]),
         Series("chain, exact", wells.sizes, ratios, look="line")), level=1,
    )  # fmt: skip
    return claim.to_datatree(chart)


def passage_claim(wells: Wells, case: Case, times: dict[int, Estimate]) -> xr.DataTree:
    """Absolute arrival times against the passage integral with the correction for steps."""
    place, top = np.array([SHARP]), np.array([case.edge])
    predicted = {}
    for size in wells.sizes:
        tau = wells.temperature(size)
        integral = mean_first_passage_1d(case.problem, tau, SHARP, ARRIVED) / wells.learning_rate
        corrected = kramers_escape_time(
            case.problem, place, top, tau, learning_rate=wells.learning_rate
        )
        step = corrected / kramers_escape_time(case.problem, place, top, tau)
        predicted[size] = integral * step
    ratios = np.array([chain.arrival() / predicted[size] for size, chain in case.exact.items()])
    claim = Claim(
        "With the passage integral in place of its asymptotic form, and the first-order factor "
        "1 + (η/4)(h_s + 2|h_s| − h_a) for finite steps, escape times are right at any temperature",
        f"derived from {DAI}",
        [
            over(f"mean arrival time over the integral's, S = {size}", time, predicted[size],
                 2 * wells.margin)
            for size, time in times.items()
        ],
        f"The factor is {step:.3f} here. The time of the exact chain is {ratios.min():.3f} to "
        f"{ratios.max():.3f} of the prediction over S = {wells.sizes[0]} to {wells.sizes[-1]}.",
        origin="derived",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    return claim.to_datatree()


def budget_claim(wells: Wells, case: Case) -> xr.DataTree:
    """At a fixed number of steps."""
    small, large = case.runs[0], case.runs[-1]
    relaxation = 1 / case.exact[small.batch_size].law.relaxation_rate()
    budget = min(int(np.searchsorted(small.steps, 3 * relaxation)), len(small.steps) - 1)
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
        origin="source",
        place="abstract: the convergence rate depends on the batch size",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    series = []
    for run in case.runs:
        some = np.unique(np.geomspace(1, len(run.steps), 25).astype(int)) - 1
        name = f"S = {run.batch_size}"
        predicted = case.exact[run.batch_size].course(run.steps[some])
        series += [
            Series(name, run.steps[some], run.flat[some], run.error[some], group=name),
            Series("", run.steps[some], predicted, look="line", group=name),
        ]
    chart = Chart("From the sharp minimum (lines: chain, exact)", "steps",
                  "share in the flat well", tuple(series), log="x")  # fmt: skip
    return claim.to_datatree(chart)


def ratio_claim(wells: Wells, case: Case) -> xr.DataTree:
    """Learning rate and batch size together, by the exact chain."""
    base, factors = wells.learning_rate / 4, np.array([1, 2, 4, 8])
    variance = 4 * wells.example_variance / wells.batch_sizes[-1]
    arrivals, flat = [], []
    for factor in factors:
        noise = statsgd.noise.Isotropic(variance / factor)
        chain = Exact.of(case.problem, float(base * factor), noise)
        arrivals.append(chain.arrival() * base * factor)
        flat.append(chain.flat())
    ratios = np.array(arrivals) / arrivals[0]
    claim = Claim(
        "Only the ratio of learning rate to batch size counts: scaled together, they leave the "
        "long-run law and the course in time ηk as they are",
        DAI,
        [
            *[Quantity(f"arrival time ηk at {factor} times both, over the first",
                       float(ratio), 0.0, 1.0, margin=2 * wells.margin)
              for factor, ratio in zip(factors[1:], ratios[1:], strict=True)],
            Quantity(f"share in the flat well at {factors[-1]} times both", flat[-1], 0.0, flat[0],
                     margin=2 * wells.margin),
        ],
        f"Computed from the exact chain at η = {base:g} to {base * factors[-1]:g}. It is true of "
        "the diffusion limit; at larger steps the chain escapes from the sharp well sooner, "
        "since ηh there is no longer small.",
        origin="reading",
        place="the diffusion limit, read at finite steps",
        data_sets=0,
        unit="computed",
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
