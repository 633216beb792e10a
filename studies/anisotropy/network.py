"""What is claimed of SGD and its surrogates on a network: climbing, leaving, flatness, accuracy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.measures import mean_over_clusters, restricted_mean, survival_curve
from statsgd.reports import Chart, Series
from studies.anisotropy.branches import (
    DESCENT,
    INDICATOR_RATE,
    SGD,
    Branches,
    NetworkSettings,
)
from studies.anisotropy.plane import SOURCE

DRAWS = 4000  # of one step, of every noise; of SGD eight times as many


def over_splits(values: list[Any]) -> tuple[float, float]:
    """Mean over data sets of means over replicas, and its standard error over replicas."""
    measured = [mean_over_clusters(np.asarray(one, dtype=float)) for one in values]
    errors = np.array([one.standard_error for one in measured])
    mean = np.mean([one.value for one in measured])
    return float(mean), float(np.sqrt(np.sum(errors**2)) / len(errors))


def parts(settings: NetworkSettings) -> Mapping[str, xr.DataTree]:
    """The claims about the network."""
    branches = [Branches(settings, index) for index in range(settings.splits)]
    return {
        "network, alignment": _alignment(branches),
        "network, first step": _first_step(branches[0], settings),
        "network, climbing": _climbing(branches, settings),
        "network, leaving": _leaving(branches, settings),
        "network, flatness": _flatness(branches),
        "network, accuracy": _accuracy(branches),
    }


def _alignment(branches: list[Branches]) -> xr.DataTree:
    ratios = [branch.indicator(SGD) for branch in branches]
    claim = Claim(
        "The noise of SGD is aligned with curvature: Tr(HC) is several times that of isotropic "
        "noise of the same trace",
        SOURCE,
        [
            Quantity(f"Tr(HC) over isotropic, data set {i}", ratio, 0.0, 2.0, ">")
            for i, ratio in enumerate(ratios)
        ],
        why="Exact Hessian and noise covariance at the full-batch iterate where the runs start.",
    )
    return claim.to_datatree()


def _first_step(branch: Branches, settings: NetworkSettings) -> xr.DataTree:
    found = branch.first_step(DRAWS)
    names = list(found)
    lowest, highest = (end(e for _, e in found.values()) for end in (min, max))
    claim = Claim(
        "Right after branching off, noise raises the loss by ½η² Tr(HC) a step",
        SOURCE,
        [
            Quantity(
                f"rise over ½η² Tr(HC), {name}",
                float(one.value),
                float(one.standard_error),
                1.0,
                margin=settings.margin,
            )
            for name, (one, _) in found.items()
        ],
        why=(
            f"One step of η = {INDICATOR_RATE:g} from the full-batch iterate, {DRAWS} draws of "
            f"each noise, against exact H and C. It ranges from {lowest:.2g} "
            f"to {highest:.2g} though all traces are equal."
        ),
    )
    expected = [found[name][1] for name in names]
    rise = [float(found[name][0].value) * found[name][1] for name in names]
    error = [float(found[name][0].standard_error) * found[name][1] for name in names]
    series = tuple(
        Series(name, [e], [r], [s])
        for name, e, r, s in zip(names, expected, rise, error, strict=True)
    )
    line = Series("equal", np.sort(expected), np.sort(expected), look="line")
    chart = Chart(
        "Rise of the training loss in one step",
        "½η² Tr(HC) (loss)",
        "mean rise (loss)",
        (*series, line),
        log="xy",
    )
    return claim.to_datatree(chart)


def _climbing(branches: list[Branches], settings: NetworkSettings) -> xr.DataTree:
    def mean_time(name: str) -> tuple[float, float]:
        times = [restricted_mean(b.exits[name], settings.steps) for b in branches]
        error = np.sqrt(sum(time.standard_error**2 for time in times)) / len(times)
        return float(np.mean([time.value for time in times])), float(error)

    times = {name: mean_time(name) for name in branches[0].noises}
    isotropic = times["isotropic"]
    others = [name for name in times if name not in (DESCENT, "isotropic")]
    claim = Claim(
        "At equal trace, noise that follows curvature or gradients climbs out of a minimum sooner "
        "than isotropic noise, SGD too",
        SOURCE,
        [
            Quantity(
                f"steps to climb, {name}",
                *times[name],
                isotropic[0],
                "<",
                predicted_error=isotropic[1],
            )
            for name in others
        ],
        why=(
            f"Mean number of steps until the training loss is {settings.climb:g} above that of the "
            f"start, counting at most {settings.steps}: SGD {times[SGD][0]:.1f}, isotropic noise "
            f"{isotropic[0]:.1f}, its Gaussian surrogate by leading eigenvectors "
            f"{times['leading'][0]:.1f}."
        ),
    )
    steps = np.arange(settings.steps + 1)

    def curve(name: str) -> Series:
        found = [survival_curve(b.exits[name]) for b in branches]
        stayed = np.mean([one.at(steps) for one in found], axis=0)
        errors = np.array([one.standard_error_at(steps) for one in found])
        return Series(name, steps, stayed, np.sqrt(np.sum(errors**2, 0)) / len(found), "line")

    chart = Chart(
        f"Share of runs whose loss never rose by {settings.climb:g}",
        "steps since branching off",
        "share",
        tuple(curve(name) for name in branches[0].noises if name != DESCENT),
    )
    return claim.to_datatree(chart)


def _leaving(branches: list[Branches], settings: NetworkSettings) -> xr.DataTree:
    share = {name: over_splits([b.moved[name] for b in branches]) for name in branches[0].noises}
    size = settings.replicas * settings.splits
    quantity = Quantity(
        "share that left, SGD",
        share[SGD][0],
        _never_zero(share[SGD][0], size),
        share["isotropic"][0],
        ">",
        predicted_error=_never_zero(share["isotropic"][0], size),
    )
    claim = Claim(
        "SGD leaves for another minimum more often than isotropic noise of the same trace",
        SOURCE,
        [quantity],
        why=(
            f"A run has left if full-batch descent from its end ({settings.relaxation} steps) "
            "predicts otherwise than descent alone, by more than "
            f"{settings.moved:g} of the probability on average over training images. Left: "
            + ", ".join(f"{name} {value:.2f}" for name, (value, _) in share.items())
            + ". To climb is not to leave: many runs that rose fall back."
        ),
    )
    return claim.to_datatree()


def _never_zero(share: float, size: int) -> float:
    smoothed = (share * size + 1) / (size + 2)
    return float(np.sqrt(smoothed * (1 - smoothed) / size))


def _flatness(branches: list[Branches]) -> xr.DataTree:
    trace = {
        name: over_splits([b.sharpness[name] for b in branches]) for name in branches[0].noises
    }
    indicator = {name: np.mean([b.indicator(name) for b in branches]) for name in trace}
    claim = Claim(
        "SGD ends in a flatter place than full-batch descent and than isotropic noise of the same "
        "trace",
        SOURCE,
        [
            Quantity(
                f"Tr H at the end, SGD below {name}",
                *trace[SGD],
                trace[name][0],
                "<",
                predicted_error=trace[name][1],
            )
            for name in (DESCENT, "isotropic")
        ],
        why=(
            "Trace of the Hessian after full-batch descent from the ends of the runs, so that what "
            "is compared is where they have got to and not how high they are: "
            + ", ".join(
                f"{name} {value:.2f} ± {error:.2f}" for name, (value, error) in trace.items()
            )
            + "."
        ),
    )
    chart = Chart(
        "Sharpness of where the runs end against the indicator at the start (line: full batch)",
        "Tr(HC) over that of isotropic noise, at the start",
        "Tr H after descent (loss/params²)",
        tuple(
            Series(n, [indicator[n]], [trace[n][0]], [trace[n][1]]) for n in trace if n != DESCENT
        ),
        level=trace[DESCENT][0],
    )
    return claim.to_datatree(chart)


def _accuracy(branches: list[Branches]) -> xr.DataTree:
    share = {name: over_splits([b.accuracy[name] for b in branches]) for name in branches[0].noises}
    claim = Claim(
        "SGD ends in a place that generalises better than those of full-batch descent and of "
        "isotropic noise of the same trace",
        SOURCE,
        [
            Quantity(
                f"test accuracy, SGD above {name}",
                *share[SGD],
                share[name][0],
                ">",
                predicted_error=share[name][1],
            )
            for name in (DESCENT, "isotropic")
        ],
        why=(
            "Accuracy on unseen images after full-batch descent from the ends of the runs: "
            + ", ".join(
                f"{name} {value:.3f} ± {error:.3f}" for name, (value, error) in share.items()
            )
            + f". {branches[0].settings.corrupted:.0%} of the training labels are wrong."
        ),
    )
    return claim.to_datatree()
