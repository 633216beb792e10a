"""Claims on the gradient noise of a network: is it stable, or does it become normal?"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim
from statsgd.estimate import Estimate
from statsgd.measures import (
    batch_gaussianity,
    gradient_noise,
    mean_over_clusters,
    noise_excess_kurtosis,
    tail_index,
)
from statsgd.noise import Minibatch
from statsgd.problems import EmpiricalRisk
from statsgd.reports import Chart, Series
from studies.digits_network import digits_network
from studies.measured import claimed, points

SIMSEKLI = "Şimşekli, Sagun, Gürbüzbalaban (2019), arXiv:1901.06053"
_LEADING = 4
_RANDOM = 12
_BLOCKS = (4, 16, 64, 256)


class GradientSettings(NamedTuple):
    """How the network is trained and its noise recorded."""

    num_examples: int
    hidden: int
    learning_rate: float
    batch_size: int
    steps: tuple[int, ...]
    """When noise is recorded, from 0 on."""
    draws: int
    batch_sizes: tuple[int, ...]
    """Of the batches whose noise is looked at."""
    margin: float
    seed: int


class Recorded(NamedTuple):
    """Noise at one time of training."""

    step: int
    examples: Float[np.ndarray, "N d"]
    """Of every example."""
    directions: Float[np.ndarray, "d k"]
    """The leading eigenvectors of its covariance, then random ones."""
    batches: Mapping[int, Float[np.ndarray, "n k"]]
    """Along these directions, by batch size."""
    pooled: Float[np.ndarray, "n d"]
    """Of batches as SGD takes them, all coordinates."""


def record(settings: GradientSettings) -> list[Recorded]:
    """Train the network and record its noise on the way."""
    problem = digits_network(settings.num_examples, settings.hidden, 0.0, settings.seed).problem
    rng = np.random.default_rng(settings.seed)
    sgd = statsgd.SGD(settings.learning_rate, Minibatch(settings.batch_size))
    found = []
    run = statsgd.simulate(
        problem, sgd, steps=settings.steps[-1], replicas=1, seed=settings.seed, progress=False,
        keep=list(settings.steps),
    )  # fmt: skip
    params = statsgd.ensembles.trajectories(run, problem.names).params[0]
    for step, flat in zip(settings.steps, params, strict=True):
        found.append(_recorded(problem, flat, step, settings, rng))
    return found


def _recorded(
    problem: EmpiricalRisk,
    flat: Float[np.ndarray, " d"],
    step: int,
    settings: GradientSettings,
    rng: np.random.Generator,
) -> Recorded:
    at = problem.unflatten(flat)
    examples = gradient_noise(problem, at)
    leading = np.linalg.svd(examples, full_matrices=False)[2][:_LEADING].T
    others = rng.normal(size=(examples.shape[1], _RANDOM))
    directions = np.concatenate([leading, others / np.linalg.norm(others, axis=0)], axis=1)
    along = examples @ directions
    batches = {
        size: along[rng.integers(0, len(along), (settings.draws, size))].mean(axis=1)
        for size in settings.batch_sizes
    }
    pooled = gradient_noise(problem, at, Minibatch(settings.batch_size), draws=400, seed=step)
    return Recorded(step, examples, directions, batches, pooled)


def parts(settings: GradientSettings, found: list[Recorded]) -> dict[str, xr.DataTree]:
    """The claims on the noise of the network."""
    rng = np.random.default_rng(settings.seed + 1)
    return {
        "gradients, published estimate": _published(found),
        "gradients, normal noise": _surrogate(found, rng, settings.margin),
        "gradients, block size": _blocks(found, rng, settings.margin),
        "gradients, batches": _batches(found, settings.margin),
        "gradients, central limit": _central_limit(found, settings.margin),
        "gradients, over training": _training(found),
    }


def _pooled_index(noise: Float[np.ndarray, "n d"]) -> Estimate:
    """The published estimate, gradient by gradient; the error is that over groups of gradients."""
    groups = np.array_split(noise, 10)
    return mean_over_clusters(
        np.array([tail_index(group.ravel(), "block", location=0.0).value for group in groups])
    )


def _published(found: list[Recorded]) -> xr.DataTree:
    return Claim(
        "The gradient noise of a network has a tail index below 2, as α-stable noise has",
        SIMSEKLI,
        [
            claimed(f"block estimate, all coordinates, step {one.step}", _pooled_index(one.pooled),
                    "<", 2.0)
            for one in found
        ],
        why="The estimate of the source: blocks of neighbouring entries of all coordinates of "
        "minibatch gradients less their mean. What it is worth, the next claims say.",
        origin="source", place="abstract", data_sets=1, unit="batches",
    ).to_datatree()  # fmt: skip


def _surrogate(found: list[Recorded], rng: np.random.Generator, margin: float) -> xr.DataTree:
    quantities = []
    for one in found:
        # Normal numbers times a root of the covariance: independent gradients, none of them heavy.
        mixed = rng.normal(size=(len(one.pooled), len(one.examples))) @ one.examples
        quantities.append(
            claimed(f"block estimate, normal noise of equal covariance, step {one.step}",
                    _pooled_index(mixed), "=", 2.0, margin)
        )  # fmt: skip
    return Claim(
        "Noise that is exactly normal, of the same covariance, has the estimate 2",
        "derived",
        quantities,
        why="Coordinates of unequal variance in one pool are a scale mixture, and neighbours in a "
        "block are correlated: both lower the estimate, whatever the tails.",
        origin="derived",
        data_sets=1,
        unit="batches",
    ).to_datatree()


def _standardised(one: Recorded) -> Float[np.ndarray, "N k"]:
    along = one.examples @ one.directions
    return along / along.std(axis=0)


def _blocks(found: list[Recorded], rng: np.random.Generator, margin: float) -> xr.DataTree:
    series, quantities = [], []
    for one in found:
        values = _standardised(one)
        # Examples drawn again, so that long blocks are many: along each direction by itself.
        again = values[rng.integers(0, len(values), 100 * _BLOCKS[-1])]
        rows = [
            mean_over_clusters(tail_index(again, "block", block=block).value) for block in _BLOCKS
        ]
        series.append(points(f"step {one.step}", _BLOCKS, rows))
        ratio = tail_index(again, "block", block=_BLOCKS[-1]).value
        ratio = ratio / tail_index(again, "block", block=_BLOCKS[0]).value
        quantities.append(
            claimed(f"estimate from blocks of {_BLOCKS[-1]} over {_BLOCKS[0]}, step {one.step}",
                    mean_over_clusters(ratio), "=", 1.0, margin)
        )  # fmt: skip
    stable = statsgd.laws.heavy_tails.SymmetricStable(1.5)
    draws = np.asarray(stable.sample(statsgd.running.stream_key(0), (100 * _BLOCKS[-1], 16)))
    rows = [mean_over_clusters(tail_index(draws, "block", block=b).value) for b in _BLOCKS]
    series.append(points("stable, α = 1.5", _BLOCKS, rows))
    claim = Claim(
        "Block estimates from single examples do not depend on the block, as those of stable noise",
        SIMSEKLI,
        quantities,
        why="Along one direction at a time, so that nothing is pooled; means over the directions. "
        "Below 2 and rising with the block is what every finite variance with a sharp peak gives.",
        origin="reading",
        place="the assumption of stable noise",
        data_sets=1,
        unit="directions",
    )
    chart = Chart("Block estimate of the noise of single examples", "values in a block",
                  "block estimate of α", tuple(series), log="x", level=2.0)  # fmt: skip
    return claim.to_datatree(chart)


def _directions(one: Recorded, of: str) -> Estimate:
    """Mean over directions of what their batches give."""
    number = one.directions.shape[1]
    found = [
        batch_gaussianity({size: rows[:, i] for size, rows in one.batches.items()})
        for i in range(number)
    ]
    if of == "index":
        return mean_over_clusters(np.array([row.stable_index.value for row in found]))
    last = np.array([row.excess_kurtosis.value[-1] for row in found])
    return mean_over_clusters(last)


def _batches(found: list[Recorded], margin: float) -> xr.DataTree:
    quantities, series = [], []
    for one in found:
        single = mean_over_clusters(tail_index(_standardised(one), "block", block=10).value)
        quantities.append(
            claimed(f"α from the spread of batches, step {one.step}, over that of single examples",
                    _directions(one, "index"), "=", single, margin)
        )  # fmt: skip
        sizes = np.array(sorted(one.batches))
        spread = np.array([
            np.subtract(*np.quantile(one.batches[s], [0.75, 0.25], axis=0)) for s in sizes
        ])  # fmt: skip
        relative = np.exp(np.log(spread / spread[0]).mean(axis=1))
        series.append(Series(f"step {one.step}", sizes, relative))
    sizes = np.array(sorted(found[0].batches))
    for label, power in (("finite variance, S^(−1/2)", -0.5), ("α = 1.5, S^(−1/3)", -1 / 3)):
        series.append(Series(label, sizes, (sizes / sizes[0]) ** power, look="line"))
    claim = Claim(
        "The spread of minibatch noise falls with the batch size as that of stable noise of the "
        "index of single examples, S^(1/α−1)",
        SIMSEKLI,
        quantities,
        why="Interquartile ranges along leading and random directions, batches drawn with "
        "replacement. The central limit theorem has S^(−1/2), that is α = 2, and it is slow where "
        "single examples are heavy.",
        origin="reading",
        place="the assumption of stable noise, of single examples",
        data_sets=1,
        unit="directions",
    )
    chart = Chart("Spread of minibatch noise", "batch size S", "interquartile range, relative",
                  tuple(series), log="xy")  # fmt: skip
    return claim.to_datatree(chart)


def _central_limit(found: list[Recorded], margin: float) -> xr.DataTree:
    quantities = []
    for one in found:
        size = max(one.batches)
        exact = noise_excess_kurtosis(one.examples @ one.directions, size).mean()
        quantities.append(
            claimed(f"excess kurtosis at S = {size}, step {one.step}, less γ₂/S",
                    _shifted(_directions(one, "kurtosis"), exact), "=", 0.0, 2 * margin)
        )  # fmt: skip
    return Claim(
        "Minibatch noise becomes normal: its excess kurtosis is that of single examples over S",
        "derived (central limit theorem)",
        quantities,
        why="Finite data have every moment; the mean excess kurtosis of single examples along the "
        "directions is "
        + ", ".join(f"{_gamma(one):.1f} at step {one.step}" for one in found) + ".",
        origin="derived", data_sets=1, unit="directions",
    ).to_datatree()  # fmt: skip


def _shifted(one: Estimate, by: float) -> Estimate:
    return Estimate(one.value - by, one.standard_error)


def _gamma(one: Recorded) -> float:
    return float(noise_excess_kurtosis(one.examples @ one.directions, 1).mean())


def _training(found: list[Recorded]) -> xr.DataTree:
    def excess(one: Recorded) -> Float[np.ndarray, " k"]:
        return noise_excess_kurtosis(one.examples @ one.directions[:, _LEADING:], 1)

    first, last = found[0], found[-1]
    series = [
        points("", [one.step for one in found],
               [mean_over_clusters(excess(one)) for one in found])
    ]  # fmt: skip
    claim = Claim(
        "The noise of single examples is heavier at the end of training than at the start",
        "derived; asked by Şimşekli, Sagun, Gürbüzbalaban (2019), arXiv:1901.06053",
        [
            claimed(f"excess kurtosis, step {last.step} above step {first.step}",
                    mean_over_clusters(excess(last)), ">", mean_over_clusters(excess(first)))
        ],
        why="As examples are learnt most gradients become small and a few stay large.",
        origin="derived", data_sets=1, unit="directions",
    )  # fmt: skip
    chart = Chart("Excess kurtosis of single examples along random directions", "step of training",
                  "excess kurtosis", tuple(series))  # fmt: skip
    return claim.to_datatree(chart)
