"""What is claimed of SGD and its surrogates on a network: climbing, leaving, flatness, accuracy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from statsgd.comparison import Claim
from statsgd.estimate import Estimate
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
from studies.measured import claimed, difference, over_data_sets, unit


def over_splits(values: list[Any]) -> Estimate:
    """Mean over data sets of means over runs."""
    return over_data_sets([_over_runs(one) for one in values])


def excess(found: Mapping[str, list[Any]], name: str) -> Estimate:
    """By how much SGD exceeds another dynamics on the same data sets, as `over_splits`."""
    return over_data_sets(
        [
            difference(_over_runs(one), _over_runs(other))
            for one, other in zip(found[SGD], found[name], strict=True)
        ]
    )


def _over_runs(one: Any) -> Estimate:
    runs = np.asarray(one, dtype=float)
    if np.asarray(one).dtype == bool:  # one more of each kind, so that it is never zero
        share = (runs.sum() + 1) / (len(runs) + 2)
        return Estimate(runs.mean(), np.sqrt(share * (1 - share) / len(runs)), len(runs))
    return mean_over_clusters(runs)


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
            claimed(f"Tr(HC) over isotropic, data set {i}", Estimate(ratio, 0.0), ">", 2.0)
            for i, ratio in enumerate(ratios)
        ],
        why=(
            "Exact Hessian and noise covariance at the full-batch iterate where the runs start: it "
            "is claimed of each of the data sets."
        ),
        origin="source",
        place="the alignment of noise and curvature, measured on networks",
        data_sets=len(branches),
        unit=unit(len(branches)),
    )
    return claim.to_datatree()


def _first_step(branch: Branches, settings: NetworkSettings) -> xr.DataTree:
    found = branch.first_step(settings.draws)
    names = list(found)
    lowest, highest = (end(e for _, e in found.values()) for end in (min, max))
    claim = Claim(
        "Right after branching off, noise raises the loss by ½η² Tr(HC) a step",
        SOURCE,
        [
            claimed(f"rise over ½η² Tr(HC), {name}", one, "=", 1.0, settings.margin)
            for name, (one, _) in found.items()
        ],
        why=(
            f"One step of η = {INDICATOR_RATE:g} from the full-batch iterate, "
            f"{settings.draws} draws of each noise, against exact H and C. It ranges from "
            f"{lowest:.2g} to {highest:.2g} though all traces are equal."
        ),
        origin="reading",
        place="the indicator Tr(HC), read as the rise of one step",
        data_sets=1,
        unit="draws of the noise",
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
    found = {
        name: [restricted_mean(b.exits[name], settings.steps) for b in branches]
        for name in branches[0].noises
    }

    times = {name: over_data_sets(each) for name, each in found.items()}
    sooner = {
        name: over_data_sets(
            [difference(*pair) for pair in zip(each, found["isotropic"], strict=True)]
        )
        for name, each in found.items()
    }
    isotropic = times["isotropic"]
    others = [name for name in times if name not in (DESCENT, "isotropic")]
    claim = Claim(
        "At equal trace, noise that follows curvature or gradients climbs out of a minimum sooner "
        "than isotropic noise, SGD too",
        SOURCE,
        [
            claimed(f"steps to climb, {name} less isotropic", sooner[name], "<", 0.0)
            for name in others
        ],
        why=(
            f"Mean number of steps until the training loss is {settings.climb:g} above that of the "
            f"start, counting at most {settings.steps}: SGD {times[SGD].value:.1f}, isotropic "
            f"noise {isotropic.value:.1f}, its Gaussian surrogate by leading eigenvectors "
            f"{times['leading'].value:.1f}."
        ),
        origin="source",
        place="the experiments on networks, branched off from full-batch descent",
        data_sets=len(branches),
        unit=unit(len(branches)),
    )
    steps = np.arange(settings.steps + 1)

    def curve(name: str) -> Series:
        found = [survival_curve(b.exits[name]).at(steps) for b in branches]
        stayed = np.mean([one.value for one in found], axis=0)
        errors = np.array([one.standard_error for one in found])
        return Series(name, steps, stayed, np.sqrt(np.sum(errors**2, 0)) / len(found), "line")

    chart = Chart(
        f"Share of runs whose loss never rose by {settings.climb:g}",
        "steps since branching off",
        "share",
        tuple(curve(name) for name in branches[0].noises if name != DESCENT),
    )
    return claim.to_datatree(chart)


def _leaving(branches: list[Branches], settings: NetworkSettings) -> xr.DataTree:
    found = {name: [b.moved[name] for b in branches] for name in branches[0].noises}
    claim = Claim(
        "SGD leaves for another minimum more often than isotropic noise of the same trace",
        SOURCE,
        [claimed("share that left, SGD less isotropic", excess(found, "isotropic"), ">", 0.0)],
        why=(
            f"A run has left if full-batch descent from its end ({settings.relaxation} steps) "
            "predicts otherwise than descent alone, by more than "
            f"{settings.moved:g} of the probability on average over training images. Left: "
            + ", ".join(f"{name} {over_splits(one).value:.2f}" for name, one in found.items())
            + ". To climb is not to leave: many runs that rose fall back."
        ),
        origin="reading",
        place="escape, read as ending where descent leads elsewhere",
        data_sets=len(branches),
        unit=unit(len(branches)),
    )
    return claim.to_datatree()


def _flatness(branches: list[Branches]) -> xr.DataTree:
    found = {name: [b.sharpness[name] for b in branches] for name in branches[0].noises}
    trace = {name: over_splits(one) for name, one in found.items()}
    indicator = {name: np.mean([b.indicator(name) for b in branches]) for name in trace}
    claim = Claim(
        "SGD ends in a flatter place than full-batch descent and than isotropic noise of the same "
        "trace",
        SOURCE,
        [
            claimed(f"Tr H at the end, SGD less {name}", excess(found, name), "<", 0.0)
            for name in (DESCENT, "isotropic")
        ],
        why=(
            "Trace of the Hessian after full-batch descent from the ends of the runs, so that what "
            "is compared is where they have got to and not how high they are: "
            + ", ".join(
                f"{name} {one.value:.2f} ± {one.standard_error:.2f}" for name, one in trace.items()
            )
            + "."
        ),
        origin="source",
        place="the experiments on networks; flatness is Tr H after descent here",
        data_sets=len(branches),
        unit=unit(len(branches)),
    )
    chart = Chart(
        "Sharpness of where the runs end against the indicator at the start (line: full batch)",
        "Tr(HC) over that of isotropic noise, at the start",
        "Tr H after descent (loss/params²)",
        tuple(
            Series(n, [indicator[n]], [trace[n].value], [trace[n].standard_error])
            for n in trace
            if n != DESCENT
        ),
        level=float(trace[DESCENT].value),
    )
    return claim.to_datatree(chart)


def _accuracy(branches: list[Branches]) -> xr.DataTree:
    found = {name: [b.accuracy[name] for b in branches] for name in branches[0].noises}
    share = {name: over_splits(one) for name, one in found.items()}
    gains = [
        float(np.mean(sgd) - np.mean(descent))
        for sgd, descent in zip(found[SGD], found[DESCENT], strict=True)
    ]
    claim = Claim(
        "SGD ends in a place that generalises better than those of full-batch descent and of "
        "isotropic noise of the same trace",
        SOURCE,
        [
            claimed(f"test accuracy, SGD less {name}", excess(found, name), ">", 0.0)
            for name in (DESCENT, "isotropic")
        ],
        why=(
            "Accuracy on unseen images after full-batch descent from the ends of the runs: "
            + ", ".join(
                f"{name} {one.value:.3f} ± {one.standard_error:.3f}" for name, one in share.items()
            )
            + f". {branches[0].settings.corrupted:.0%} of the training labels are wrong. SGD less "
            "full batch, by data set: " + ", ".join(f"{gain:+.3f}" for gain in gains) + "."
        ),
        origin="source",
        place="the experiments on networks",
        data_sets=len(branches),
        unit=unit(len(branches)),
    )
    return claim.to_datatree()
