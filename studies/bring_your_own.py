"""Diagnosis of one's own model: noise, curvature, stability, stationarity and flatness.

A classifier written in Equinox and in Flax, on scikit-learn's digits or on images that the user
has (MNIST, CIFAR-10 and others), is trained by SGD over a small grid of learning rates and batch
sizes. The same measures are then taken of every cell: what anyone with a JAX model can do. The
claims that the literature makes of such measures are judged on the way.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.arguments import count, one_of, positive
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.measures import (
    first_fluctuation_relation,
    full_gradients,
    jackknife,
    mean_over_clusters,
    noise_alignment,
    over_endpoints,
    top_eigenpairs,
    trajectories,
)
from statsgd.problems import EmpiricalRisk
from studies.findings import findings
from studies.measured import claimed, over_data_sets, ratio, unit
from studies.own_charts import grid_map, ratio_chart, threshold_chart
from studies.own_models import DATASETS, MODELS, images


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    models: Sequence[str] = ("equinox", "flax")
    """Libraries in which the classifier is written."""
    dataset: str = "digits"
    """Images: scikit-learn's digits, or mnist, fashion_mnist, cifar10 or svhn from your files."""
    data_dir: str = ""
    """Folder with the files of that data set; nothing is downloaded."""
    examples: int = 1000
    """Images to train on, drawn at random."""
    width: int = 8
    """Hidden neurons."""
    learning_rates: Sequence[float] = (0.1, 0.2, 0.4, 0.8)
    """Learning rates η, ascending, each twice the one before."""
    batch_sizes: Sequence[int] = (4, 8, 16, 32)
    """Batch sizes S, ascending, each twice the one before."""
    weight_decay: float = 0.01
    """Weight decay λ: without it cross-entropy has no minimum, and SGD no stationary law."""
    steps: int = 40_000
    """Steps of training."""
    splits: int = 8
    """Draws of the images, each with a network of its own start."""
    replicas: int = 8
    """Independent runs of each cell on each of them."""
    looks: int = 40
    """Looks at each run, over the second half of it, for the test of stationarity."""
    samples: int = 16
    """Random vectors for each trace."""
    margin: float = 0.05
    """Relative difference that counts as agreement."""
    gap: float = 0.1
    """Relative gap of the fluctuation–dissipation relation that counts as none."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "bring_your_own")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        count("the number of models", len(self.models))
        for name in self.models:
            one_of("models", name, MODELS)
        if (one_of("dataset", self.dataset, DATASETS) == "digits") != (not self.data_dir):
            raise ValueError(
                "data_dir must be the folder with the files of the dataset, and empty for digits, "
                f"got {self.data_dir!r} for {self.dataset!r}"
            )
        for name in ("learning_rates", "batch_sizes"):
            values = getattr(self, name)
            if len(values) < 2 or any(b != 2 * a for a, b in pairwise(values)):
                raise ValueError(
                    f"{name} must be two values or more, each twice the one before, got {values}"
                )
            positive(name, values)
        count("splits", self.splits)
        for name in ("examples", "width", "looks", "samples"):
            count(name, getattr(self, name), at_least=2)
        count("replicas", self.replicas, at_least=8)  # fewer give no error of the stationarity test
        count("steps", self.steps, at_least=4 * self.looks)
        positive("weight_decay", self.weight_decay)
        for name in ("margin", "gap"):
            positive(name, getattr(self, name))
        count("seed", self.seed, at_least=0)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            examples=300,
            width=4,
            learning_rates=(0.3, 0.6),
            batch_sizes=(8, 16),
            splits=1,
            replicas=32,
            steps=5000,
            looks=20,
            samples=8,
            margin=0.1,
            gap=0.2,
        )


class Diagnosis(NamedTuple):
    """What is measured of a model: means over runs, arrays `(learning rate, batch size)`."""

    loss: Estimate
    sharpness: Estimate
    """h_max, the largest eigenvalue of the Hessian."""
    curvature: Estimate
    """Tr H."""
    noise: Estimate
    """Tr C of a batch."""
    alignment: Estimate
    """d Tr(HC)/(Tr H Tr C)."""
    imbalance: Estimate
    """Relative gap between the sides of the first fluctuation–dissipation relation."""
    shared: Estimate
    """Share of the square norm in common, arrays `(learning rate, batch size, 2)`: at the first
    and at the last look."""


def run(config: Config) -> xr.DataTree:
    """Train, measure and judge; returns the tree that `statsgd.report` reads."""
    parts: dict[str, xr.DataTree] = {}
    for name in config.models:
        found = []
        for index in range(config.splits):
            own = dataclasses.replace(config, seed=config.seed + index)
            data = images(own.dataset, own.data_dir, own.examples, own.seed)
            found.append(diagnose(MODELS[name](data, own.width, own.seed), own))
        for title, part in claims(name, found, config).items():
            parts[f"{name}: {title}"] = part
    return findings(
        "Bring your own model: a diagnosis over learning rate and batch size",
        "What is the gradient noise of this model like, is training stationary, is it near the "
        "edge of stability, and how does flatness depend on learning rate and batch size? "
        f"{config.width} hidden neurons, {config.examples} images of {config.dataset}.",
        parts,
    )


def diagnose(problem: EmpiricalRisk, config: Config) -> Diagnosis:
    """Train and measure one model on the whole grid."""
    ensembles = [train(problem, size, config) for size in config.batch_sizes]
    looked = [_looked(problem, ensembles, config), _imbalance(problem, ensembles, config)]
    return Diagnosis(**{name: found for one in looked for name, found in one.items()})


def train(problem: EmpiricalRisk, size: int, config: Config) -> xr.DataTree:
    """Runs of one batch size at every learning rate."""
    sgd = statsgd.SGD(
        config.learning_rates[0],
        statsgd.noise.Minibatch(size),
        weight_decay=config.weight_decay,
    )
    spacing = config.steps // (2 * config.looks)
    return statsgd.simulate(
        problem,
        statsgd.grid(sgd, learning_rate=config.learning_rates),
        steps=config.steps,
        replicas=config.replicas,
        seed=config.seed,
        keep=[config.steps - i * spacing for i in reversed(range(config.looks))],
        progress=config.progress,
        devices=jax.devices(),
    )


class _Look(NamedTuple):
    """Measures of one endpoint."""

    sharpness: Any
    curvature: Any
    noise: Any
    alignment: Any


def _looked(
    problem: EmpiricalRisk, ensembles: Sequence[xr.DataTree], config: Config
) -> dict[str, Estimate]:
    """What is measured at the endpoints of all cells: one compilation."""
    depth = min(20, problem.dimension)

    def look(problem: EmpiricalRisk, params: Any, seed: Any) -> _Look:
        # The noise of single examples, whose covariance is S times that of a batch.
        one = statsgd.noise.Minibatch(1)
        aligned = noise_alignment(problem, params, one, samples=config.samples, seed=seed)
        top = top_eigenpairs(problem, params, 1, depth=depth, seed=seed)
        return _Look(top.values[0], aligned.curvature_trace, aligned.noise_trace, aligned.ratio)

    ends = xr.concat([one["endpoints"].to_dataset() for one in ensembles], "batch_size")
    tree = xr.DataTree.from_dict({"endpoints": ends})
    found = over_endpoints(look, problem, tree, seed=config.seed)
    loss = xr.concat([one["run"].to_dataset()["loss"] for one in ensembles], "batch_size")
    values = {name: found[name] for name in _Look._fields} | {"loss": loss}
    values["noise"] = values["noise"] / xr.DataArray(list(config.batch_sizes), dims="batch_size")
    return {name: over_runs(array) for name, array in values.items()}


def over_runs(values: xr.DataArray) -> Estimate:
    """Mean over replicas, as an array `(learning rate, batch size)`."""
    array = values.transpose("replica", "learning_rate", "batch_size").values.astype(float)
    return mean_over_clusters(array)


def _imbalance(
    problem: EmpiricalRisk, ensembles: Sequence[xr.DataTree], config: Config
) -> dict[str, Any]:
    """The first fluctuation–dissipation relation over the looks at every cell."""
    value, error = np.zeros((2, len(config.learning_rates), len(config.batch_sizes)))
    shared = Estimate(np.zeros((*value.shape, 2)), np.zeros((*value.shape, 2)), config.replicas)
    for j, ensemble in enumerate(ensembles):
        for i, rate in enumerate(config.learning_rates):
            looks = trajectories(ensemble.isel(learning_rate=i), problem.names)
            force = full_gradients(problem, looks.params, config.weight_decay)
            first = first_fluctuation_relation(looks.params, force, looks.momentum_buffer, rate)
            side = (first.left.value + first.right.value) / 2
            value[i, j] = first.gap.value / side
            error[i, j] = first.gap.standard_error / side
            for end in (0, -1):
                found = in_common(looks.params[:, end])
                shared.value[i, j, end], shared.standard_error[i, j, end] = found[:2]
    return {"imbalance": Estimate(value, error, config.replicas), "shared": shared}


def in_common(params: Float[Any, "replica d"]) -> Estimate:
    """|E θ|²/E|θ|²: one for equal runs, zero for independent ones of mean zero."""
    points = np.asarray(params, dtype=np.float64)
    columns = np.column_stack([points, np.sum(points**2, axis=1)])
    return jackknife(lambda mean: np.sum(mean[:-1] ** 2) / mean[-1], columns)


def over_splits(found: Sequence[Diagnosis]) -> Diagnosis:
    """Means over splits, with the spread between them as their errors."""
    return Diagnosis(*map(over_data_sets, zip(*found, strict=True)))


def claims(model: str, splits: Sequence[Diagnosis], config: Config) -> Mapping[str, xr.DataTree]:
    """What the literature says of the numbers of one model."""
    found = over_splits(splits)
    return {
        "noise": aligned_noise(model, found, config).to_datatree(
            grid_map("Alignment of noise and curvature", "ratio", found.alignment, config),
            grid_map("Noise of a batch, Tr C", "loss²/params²", found.noise, config),
        ),
        "stability": stable(model, found, config).to_datatree(
            threshold_chart(found.sharpness, config)
        ),
        "stationarity": stationary(model, found, config).to_datatree(
            grid_map("Gap of the first relation", "relative", found.imbalance, config, 0.0)
        ),
        "flatness": flatter(model, splits, config).to_datatree(
            grid_map("Curvature at the end, Tr H", "loss/params²", found.curvature, config),
            grid_map("Loss at the end", "loss", found.loss, config),
        ),
        "ratio": only_the_ratio(model, splits, config).to_datatree(
            ratio_chart(found.curvature, config)
        ),
    }


def aligned_noise(model: str, found: Diagnosis, config: Config) -> Claim:
    """Noise is stronger along curved directions."""
    return Claim(
        "Gradient noise is aligned with curvature: it climbs faster than isotropic noise of the "
        f"same strength ({model}).",
        "Zhu et al. (2019), arXiv:1803.00195",
        corners(found.alignment, config, 1.0, ">"),
        "d Tr(HC)/(Tr H Tr C) at the end of training, one for isotropic noise.",
        origin="reading",
        place="the alignment of noise and curvature, read at the end of training",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def stable(model: str, found: Diagnosis, config: Config) -> Claim:
    """SGD ends where full-batch steps of its size would be stable."""
    half = np.asarray(config.learning_rates)[:, None] / 2
    threshold = 2 / found.sharpness.value
    steepness = found.sharpness._replace(
        value=half * found.sharpness.value, standard_error=half * found.sharpness.standard_error
    )
    return Claim(
        f"SGD ends at points where its learning rate is below the threshold 2/h_max ({model}).",
        "Wu, Ma, E (2018), NeurIPS; Cohen et al. (2021), arXiv:2103.00065",
        corners(steepness, config, 1.0, "<"),
        "η h_max/2, with the largest curvature at the end of training: at one full-batch steps "
        f"sit at the edge of stability. The threshold is {threshold[0, 0]:.2g} where the learning "
        f"rate is {config.learning_rates[0]:g} and {threshold[-1, 0]:.2g} where it is "
        f"{config.learning_rates[-1]:g} (S = {config.batch_sizes[0]}): training moves it.",
        origin="reading",
        place="linear stability, read for the end of training",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def stationary(model: str, found: Diagnosis, config: Config) -> Claim:
    """The first fluctuation–dissipation relation."""
    slowest, fastest = (
        1 / (rate * config.weight_decay)
        for rate in (config.learning_rates[0], config.learning_rates[-1])
    )
    quiet, noisy = (
        [
            f"{value:.3f} ± {error:.2g}"
            for value, error in zip(
                found.shared.value[place], found.shared.standard_error[place], strict=True
            )
        ]
        for place in ((0, -1), (-1, 0))
    )
    return Claim(
        f"Over the second half of training the runs are stationary: ⟨θ·∇⟩ = (η/2)⟨|m|²⟩ ({model}).",
        "Yaida (2018), arXiv:1810.00004",
        corners(found.imbalance, config, 0.0, "=", config.gap),
        f"Relative gap of the two sides, over {config.looks} looks at {config.replicas} runs on "
        "each data set. Directions that only weight decay bends forget their start in 1/(ηλ) "
        f"steps, {slowest:.0f} at the smallest learning rate and {fastest:.0f} at the largest, and "
        f"training takes {config.steps}. Directions that hardly anything bends take longer: the "
        f"runs, which start at one point, have {quiet[0]} of their square norm in common at the "
        f"first look and {quiet[1]} at the last where η/S is smallest, {noisy[0]} and {noisy[1]} "
        "where it is largest. While that share falls they still drift apart.",
        origin="reading",
        place="the first relation, read as a test of this training",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def flatter(model: str, splits: Sequence[Diagnosis], config: Config) -> Claim:
    """Larger η/S ends at flatter points."""
    found = over_splits(splits)
    flatter_by = _ratio([one.curvature for one in splits], (-1, 0), (0, -1))
    noisy, calm = found.loss.value[-1, 0], found.loss.value[0, -1]
    return Claim(
        f"A larger ratio of learning rate to batch size ends at a flatter point ({model}).",
        "Keskar et al. (2017), arXiv:1609.04836; Jastrzębski et al. (2017), arXiv:1711.04623",
        [claimed("Tr H, largest over smallest η/S", flatter_by, "<", 1.0)],
        "Tr H where training ends, which is above the minimum that weight decay gives the loss: "
        f"the loss is {noisy:.3g} at the largest η/S and {calm:.3g} at the smallest.",
        origin="source",
        place="abstracts",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def only_the_ratio(model: str, splits: Sequence[Diagnosis], config: Config) -> Claim:
    """Cells of equal η/S, as far apart as the grid has them."""
    rates, sizes = config.learning_rates, config.batch_sizes
    first = -min(len(rates), len(sizes))
    factor = sizes[-1] // sizes[first]
    quantities = []
    for name, field in (("h_max", "sharpness"), ("Tr H", "curvature"), ("loss", "loss")):
        cells = [getattr(one, field) for one in splits]
        title = f"{name}, ({factor}η, {factor}S) over (η, S)"
        found = _ratio(cells, (-1, -1), (first, first))
        quantities.append(claimed(title, found, "=", 1.0, config.margin))
    sharpness = over_splits(splits).sharpness
    edge = [rates[i] / 2 * sharpness.value[i, i] for i in (first, -1)]
    return Claim(
        f"Only the ratio of learning rate to batch size matters ({model}).",
        "Jastrzębski et al. (2017), arXiv:1711.04623; Smith, Le (2018), arXiv:1710.06451",
        quantities,
        f"η = {rates[first]:g}, S = {sizes[first]} against {factor} times both, after equally many "
        "steps. To leading order in η the ratio is all that matters, but larger learning rates "
        f"also drive training from sharp places: η h_max/2 is {edge[0]:.2g} at the smaller, and "
        f"{edge[1]:.2g} at the larger, where steps of full batches become unstable at one.",
        origin="reading",
        place="the ratio that sets the noise, read as all that matters at these steps",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def _ratio(cells: Sequence[Estimate], one: tuple[int, int], other: tuple[int, int]) -> Estimate:
    """One cell over another, on every split."""
    return over_data_sets([ratio(cell(found, one), cell(found, other)) for found in cells])


def cell(found: Estimate, place: tuple[int, int]) -> Estimate:
    """The number in one cell of the grid."""
    return Estimate(found.value[place], found.standard_error[place], found.clusters)


def corners(
    found: Estimate, config: Config, predicted: float, relation: str, margin: float = 0.0
) -> list[Quantity]:
    """The four corners of the grid."""
    return [
        claimed(
            f"η = {config.learning_rates[i]:g}, S = {config.batch_sizes[j]}",
            cell(found, (i, j)),
            relation,
            predicted,
            margin,
        )
        for i in (0, -1)
        for j in (0, -1)
    ]
