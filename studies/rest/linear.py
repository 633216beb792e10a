"""Linear optimisers: what averages remove, when momentum is a rate, where Nesterov is stable."""

import functools
from typing import Any

import numpy as np
from scipy.optimize import brentq

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.laws import LinearOptimiserGaussian
from statsgd.laws.minimum import LinearOptimiser
from statsgd.problems import Problem
from statsgd.reports import Chart, Series
from studies.measured import claimed, variance_over_runs

CURVATURES = np.array([1.0, 0.1])
KICKS = noise.Isotropic(1.0)
OPTIMISERS = {
    "SGD": SGD(0.1, KICKS),
    "heavy ball": SGD(0.1, KICKS, 0.9),
    "Nesterov": SGD(0.1, KICKS, 0.9, nesterov=True),
}
#: Learning rate and momentum of optimisers with one and the same η/(1−β).
SLOW = {"SGD": (0.1, 0.0), "heavy ball": (0.01, 0.9), "Nesterov": (0.01, 0.9)}
SLOW_CURVATURE = 0.1


@functools.cache
def two_modes() -> Problem:
    """A steep and a flat mode; made when it is needed, since it starts JAX."""
    return statsgd.problems.quadratic(np.diag(CURVATURES))


def averages(length: int, replicas: int, margin: float, seed: int, progress: bool) -> Claim:
    """What a tail average of `length` iterates leaves in a steep mode."""
    quantities = []
    for name, sgd in OPTIMISERS.items():
        law = LinearOptimiserGaussian.from_dynamics(two_modes(), sgd)
        run = statsgd.simulate(
            two_modes(), sgd, steps=400 + length, replicas=replicas, seed=seed, progress=progress,
            keep=list(range(401, 401 + length)),
        )  # fmt: skip
        mean = run["snapshots"].params.mean("step").values[:, :1]
        exact = law.average(length=length).covariance()[0, 0]
        # What the long average tends to, for every optimiser: c/(h²L).
        quantities += [
            claimed(f"variance, {name}", variance_over_runs(mean), "=", exact, margin),
            claimed(
                f"variance over its limit, {name}",
                variance_over_runs(np.sqrt(length) * mean), "=", 1.0, 2 * margin,
            ),
        ]  # fmt: skip
    return Claim(
        "A long average of iterates has the variance H⁻¹CH⁻¹/L, whatever optimiser made them.",
        "Polyak, Juditsky (1992)",
        quantities,
        why="Optimisers differ only in the length from which on it holds: 2R(1−β)/(ηh) iterates "
        "remove a factor R from slow modes.",
        origin="source",
        place="theorem on averages",
        data_sets=0,
        unit="runs",
    )


def in_slow_mode(name: str) -> LinearOptimiserGaussian:
    """The law of one slow mode, c = 1."""
    rate, beta = SLOW[name]
    optimiser = LinearOptimiser.sgd(rate, beta, nesterov=name == "Nesterov")
    return LinearOptimiserGaussian([[SLOW_CURVATURE]], [[1.0]], optimiser)


def chart_of_lengths() -> Chart:
    """What averages leave of the variance of the slow mode, by their length."""
    lengths = np.unique(np.geomspace(1, 20_000, 60).astype(int))
    series = []
    for name in SLOW:
        law = in_slow_mode(name)
        whole = law.covariance()[0, 0]
        left = [law.average(length=int(n)).covariance()[0, 0] / whole for n in lengths]
        series.append(Series(name, lengths, left, look="line"))
    return Chart(
        "Variance of the mean of L iterates over that of one",
        f"length L (iterates), at curvature {SLOW_CURVATURE:g}",
        "share of the variance",
        tuple(series),
        log="xy",
        level=0.1,
    )


def length_of_averages() -> Claim:
    """How long averages must be to leave a tenth of the variance of a slow mode."""
    factor, quantities = 10, []
    for name, (rate, beta) in SLOW.items():
        law = in_slow_mode(name)
        goal = float(law.covariance()[0, 0]) / factor

        def left(logarithm: float, law: Any = law, goal: float = goal) -> float:
            length = round(np.exp(logarithm))
            return float(law.average(length=length).covariance()[0, 0]) / goal - 1

        def kept(logarithm: float, law: Any = law, goal: float = goal) -> float:
            decay = 1 - np.exp(-logarithm)
            return float(law.average(decay=decay).covariance()[0, 0]) / goal - 1

        slow = (1 - beta) / (rate * SLOW_CURVATURE)
        for kind, excess, estimate in (
            ("iterates", left, 2 * factor * slow),
            ("window of the exponential average", kept, (factor - 1) * slow),
        ):
            needed = np.exp(brentq(excess, 0.0, np.log(100 * estimate), xtol=1e-4))
            quantities.append(Quantity(f"{kind}, {name}", float(needed), 0.0, estimate, "=", 0.1))
    return Claim(
        "To remove a factor R from the variance of a slow mode takes the mean of 2R(1−β)/(ηh) "
        "iterates, or an exponential average over (R−1)(1−β)/(ηh).",
        "derived",
        quantities,
        why="R = 10 at h = 0.1, with the same rate η/(1−β) for all: the mode forgets in "
        "(1−β)/(ηh) steps, and averages count what it forgets.",
        origin="derived",
        data_sets=0,
        unit="computed",
    )


def momentum_as_a_rate(replicas: int, margin: float, seed: int, progress: bool) -> Claim:
    """The stationary variance with momentum against that of SGD at the rate η/(1−β)."""
    sgd = OPTIMISERS["heavy ball"]
    run = statsgd.simulate(
        two_modes(), sgd, steps=600, replicas=replicas, seed=seed + 1, progress=progress
    )
    ends = run["endpoints"].params.values
    quantities = []
    for i, h in enumerate(CURVATURES):
        rate = 0.1 / (1 - 0.9)
        plain = rate / (h * (2 - rate * h))
        found = variance_over_runs(ends[:, i : i + 1])
        quantities.append(claimed(f"variance at ηh = {0.1 * h:g}", found, "=", plain, margin))
    return Claim(
        "Momentum β is a learning rate η/(1−β): the stationary variances are the same.",
        "common reading of Mandt, Hoffman, Blei (2017), arXiv:1704.04289",
        quantities,
        why="To leading order in ηh/(1−β) alone: heavy ball has ηc/(2h(1−β)) times "
        "(1+β)/(1+β−ηh/2), and SGD at the other rate twice what is left at ηh = 1−β.",
        origin="reading",
        place="the stationary law at leading order",
        data_sets=0,
        unit="runs",
    )


def nesterov_at_finite_batch() -> Claim:
    """The largest learning rate with a finite variance, over that of a stable mean."""
    quantities = []
    for batch_size in (4, 16, 64):

        def gain(rate: float, batch_size: int = batch_size) -> float:
            optimiser = LinearOptimiser.sgd(rate, 0.9, nesterov=True)
            law = LinearOptimiserGaussian.gaussian_inputs(
                np.diag([2.0, 1.0, 0.5]), 1.0, batch_size, optimiser
            )
            return float(law.feedback_gain) - 1

        mean = 2 * 1.9 / (2.8 * 2.0)
        reach = (1 - 1e-9) * mean
        largest = reach if gain(reach) < 0 else float(brentq(gain, 1e-3, reach, xtol=1e-6))
        quantities.append(
            Quantity(f"largest rate over mean's, S = {batch_size}", largest / mean, 0.0, 0.95, ">")
        )
    return Claim(
        "Nesterov momentum is stable at finite batch up to the learning rate of its mean, "
        "2(1+β)/((1+2β)h).",
        "textbook, for the mean; with fresh Gaussian inputs derived",
        quantities,
        why="Noise that grows away from the minimum feeds itself, and the variance is infinite "
        "long before the mean is unstable where batches are small.",
        origin="extension",
        place="stability of the mean",
        data_sets=0,
        unit="computed",
    )
