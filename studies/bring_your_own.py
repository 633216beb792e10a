"""Diagnosis of one's own model: noise, curvature, stability, stationarity and flatness.

A classifier written in Equinox and in Flax, on scikit-learn's digits or on files in the format of
MNIST, is trained by SGD over a small grid of learning rates and batch sizes. The same measures are
then taken of every cell: what anyone with a JAX model can do. The claims that the literature makes
of such measures are judged on the way.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import xarray as xr

import statsgd
from statsgd.arguments import count, non_negative, one_of, positive
from statsgd.comparison import Claim, Quantity
from statsgd.measures import (
    fluctuation_dissipation,
    noise_alignment,
    over_endpoints,
    top_eigenpairs,
)
from statsgd.problems import EmpiricalRisk
from statsgd.reports import Chart, Map, Series
from studies.findings import findings
from studies.own_models import MODELS, images


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    models: Sequence[str] = ("equinox", "flax")
    """Libraries in which the classifier is written."""
    data_dir: str = ""
    """Folder with files in the format of MNIST; without it scikit-learn's digits."""
    examples: int = 1500
    """Images to train on."""
    width: int = 16
    """Hidden neurons."""
    learning_rates: Sequence[float] = (0.05, 0.1, 0.2)
    """Learning rates η, ascending, each twice the one before."""
    batch_sizes: Sequence[int] = (8, 16, 32)
    """Batch sizes S, ascending, each twice the one before."""
    weight_decay: float = 0.01
    """Weight decay λ: without it cross-entropy has no minimum, and SGD no stationary law."""
    steps: int = 8000
    """Steps of training."""
    replicas: int = 32
    """Independent runs of each cell."""
    looks: int = 40
    """Looks at each run, over the second half of it, for the test of stationarity."""
    samples: int = 32
    """Random vectors for each trace."""
    margin: float = 0.1
    """Relative difference that counts as agreement."""
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
        for name in ("learning_rates", "batch_sizes"):
            values = getattr(self, name)
            if len(values) < 2 or any(b != 2 * a for a, b in zip(values, values[1:], strict=False)):
                raise ValueError(
                    f"{name} must be two values or more, each twice the one before, got {values}"
                )
        for name in ("examples", "width", "replicas", "looks", "samples"):
            count(name, getattr(self, name), at_least=2)
        count("steps", self.steps, at_least=4 * self.looks)
        positive("weight_decay", self.weight_decay)
        positive("margin", self.margin)
        count("seed", self.seed, at_least=0)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            examples=300,
            width=4,
            learning_rates=(0.1, 0.2),
            batch_sizes=(8, 16),
            steps=2000,
            replicas=16,
            looks=20,
            samples=8,
            margin=0.15,
            output=os.path.join("results", "bring_your_own_quick"),
        )


class Cell(NamedTuple):
    """A mean over the runs of one cell, with its standard error."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, values: Any) -> "Cell":
        """From one value a run."""
        array = np.asarray(values, dtype=float)
        return cls(float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array))))


class Diagnosis(NamedTuple):
    """What is measured of a model in every cell of the grid, arrays `[learning rate][batch size]`."""

    loss: list[list[Cell]]
    sharpness: list[list[Cell]]
    """Largest eigenvalue of the Hessian."""
    curvature: list[list[Cell]]
    """Tr H."""
    noise: list[list[Cell]]
    """Tr C."""
    alignment: list[list[Cell]]
    """d Tr(HC)/(Tr H Tr C)."""
    imbalance: list[list[Cell]]
    """Relative gap between the sides of the first fluctuation–dissipation relation."""


def run(config: Config) -> xr.DataTree:
    """Train, measure and judge; returns the tree that `statsgd.report` reads."""
    data = images(config.data_dir, config.examples)
    found = {
        name: diagnose(MODELS[name](data, config.width, config.seed), config)
        for name in config.models
    }
    parts: dict[str, xr.DataTree] = {}
    for name, one in found.items():
        for title, part in claims(name, one, config).items():
            parts[f"{name}: {title}"] = part
    return findings(
        "Bring your own model: a diagnosis over learning rate and batch size",
        "What is the gradient noise of this model like, is training stationary, is it near the "
        "edge of stability, and how does flatness depend on learning rate and batch size? "
        f"{config.examples} images of "
        + (f"{config.data_dir}." if config.data_dir else "scikit-learn's digits."),
        parts,
    )


def diagnose(problem: EmpiricalRisk, config: Config) -> Diagnosis:
    """Train and measure one model on the whole grid."""
    columns = [_column(problem, size, config) for size in config.batch_sizes]
    rows = range(len(config.learning_rates))
    return Diagnosis(*([[c[name][i] for c in columns] for i in rows] for name in Diagnosis._fields))


def _column(problem: EmpiricalRisk, size: int, config: Config) -> dict[str, list[Cell]]:
    """One batch size at every learning rate."""
    sgd = statsgd.SGD(
        config.learning_rates[0],
        statsgd.noise.Minibatch(size),
        weight_decay=non_negative("weight_decay", config.weight_decay),
    )
    spacing = config.steps // (2 * config.looks)
    ensemble = statsgd.simulate(
        problem,
        statsgd.grid(sgd, learning_rate=config.learning_rates),
        steps=config.steps,
        replicas=config.replicas,
        seed=config.seed,
        keep=[config.steps - i * spacing for i in reversed(range(config.looks))],
        progress=config.progress,
        devices=jax.devices(),
    )
    # The noise of single examples, whose covariance is S times that of a batch: one compilation.
    aligned = over_endpoints(
        noise_alignment, problem, ensemble, noise=statsgd.noise.Minibatch(1),
        samples=config.samples, seed=config.seed,
    )  # fmt: skip
    top = over_endpoints(
        top_eigenpairs, problem, ensemble, number=1, depth=min(20, problem.dimension)
    )
    looked: dict[str, Any] = {
        "loss": ensemble["run"]["loss"],
        "sharpness": _variable(top, "values")[..., 0],
        "curvature": _variable(aligned, "curvature_trace"),
        "noise": _variable(aligned, "noise_trace") / size,
        "alignment": _variable(aligned, "ratio"),
    }
    cells = {name: [Cell.of(row) for row in np.asarray(values)] for name, values in looked.items()}
    cells["imbalance"] = []
    for i, rate in enumerate(config.learning_rates):
        settings = statsgd.SGD(rate, sgd.noise, weight_decay=config.weight_decay)
        first = fluctuation_dissipation(
            problem, settings, ensemble.isel(learning_rate=i), snapshots=True
        )["first"]
        scale = (first.left.value + first.right.value) / 2
        cells["imbalance"].append(
            Cell(float(first.gap.value / scale), float(first.gap.standard_error / scale))
        )
    return cells


def _variable(dataset: xr.Dataset, ending: str) -> Any:
    """The variable whose name ends so, as an array with the axes (learning rate, replica, …)."""
    (name,) = [str(n) for n in dataset.data_vars if str(n).rsplit(".", 1)[-1] == ending]
    return dataset[name].values


def claims(model: str, found: Diagnosis, config: Config) -> Mapping[str, xr.DataTree]:
    """What the literature says of the numbers of one model."""
    return {
        "noise": aligned_noise(model, found, config).to_datatree(
            grid_map("Alignment d Tr(HC)/(Tr H Tr C)", found.alignment, config),
            grid_map("Noise Tr C (loss²/params²)", found.noise, config),
        ),
        "stability": stable(model, found, config).to_datatree(
            grid_map("Largest curvature over 2/η", times_half_rate(found.sharpness, config), config)
        ),
        "stationarity": stationary(model, found, config).to_datatree(
            grid_map("Relative gap of the first relation", found.imbalance, config)
        ),
        "flatness": flatter(model, found).to_datatree(
            grid_map("Tr H at the end (loss/params²)", found.curvature, config)
        ),
        "ratio": only_the_ratio(model, found, config).to_datatree(ratio_chart(found, config)),
    }


def aligned_noise(model: str, found: Diagnosis, config: Config) -> Claim:
    """Noise is stronger along curved directions."""
    return Claim(
        f"Gradient noise is aligned with curvature: it climbs faster than isotropic noise of the "
        f"same strength ({model}).",
        "Zhu et al. (2019), arXiv:1803.00195",
        [
            Quantity(name, cell.value, cell.standard_error, 1.0, ">")
            for name, cell in corners(found.alignment, config).items()
        ],
        "d Tr(HC)/(Tr H Tr C), one for isotropic noise.",
    )


def stable(model: str, found: Diagnosis, config: Config) -> Claim:
    """SGD ends where full-batch steps of its size would be stable."""
    return Claim(
        f"SGD ends at points where the largest curvature is below 2/η ({model}).",
        "Wu, Ma, E (2018), NeurIPS; Cohen et al. (2021), arXiv:2103.00065",
        [
            Quantity(name, cell.value, cell.standard_error, 1.0, "<")
            for name, cell in corners(times_half_rate(found.sharpness, config), config).items()
        ],
        "η h_max/2: at one gradient descent sits at the edge of stability.",
    )


def stationary(model: str, found: Diagnosis, config: Config) -> Claim:
    """The first fluctuation–dissipation relation."""
    return Claim(
        f"Over the second half of training the runs are stationary: ⟨θ·∇⟩ = (η/2)⟨|m|²⟩ ({model}).",
        "Yaida (2018), arXiv:1810.00004",
        [
            Quantity(name, cell.value, cell.standard_error, 0.0, "=", config.margin)
            for name, cell in corners(found.imbalance, config).items()
        ],
        f"Relative gap of the two sides, over {config.looks} looks at {config.replicas} runs. A "
        "gap means that training is too short, or that noise depends on what went before.",
    )


def flatter(model: str, found: Diagnosis) -> Claim:
    """Larger η/S ends at flatter points."""
    noisy, calm = found.curvature[-1][0], found.curvature[0][-1]
    ratio = noisy.value / calm.value
    error = ratio * np.hypot(noisy.standard_error / noisy.value, calm.standard_error / calm.value)
    return Claim(
        f"A larger ratio of learning rate to batch size ends at a flatter point ({model}).",
        "Keskar et al. (2017), arXiv:1609.04836; Jastrzębski et al. (2017), arXiv:1711.04623",
        [Quantity("Tr H, largest over smallest η/S", ratio, error, 1.0, "<")],
        "Tr H at the end of training. With weight decay the loss has a minimum, and H is taken at "
        "points that noise holds above it: cross-entropy is steeper where it fits worse, so noise "
        f"also raises Tr H. The loss at the end is {found.loss[-1][0].value:.3g} at the largest "
        f"η/S and {found.loss[0][-1].value:.3g} at the smallest.",
    )


def only_the_ratio(model: str, found: Diagnosis, config: Config) -> Claim:
    """Cells of equal η/S."""
    quantities = []
    for name, cells in (("Tr H", found.curvature), ("loss", found.loss)):
        one, other = cells[1][1], cells[0][0]
        ratio = one.value / other.value
        error = ratio * np.hypot(one.standard_error / one.value, other.standard_error / other.value)
        quantities.append(Quantity(f"{name}, (2η, 2S) over (η, S)", ratio, error, 1.0, "=",
                                   config.margin))  # fmt: skip
    return Claim(
        f"Only the ratio of learning rate to batch size matters ({model}).",
        "Jastrzębski et al. (2017), arXiv:1711.04623; Smith, Le (2018), arXiv:1710.06451",
        quantities,
        f"η = {config.learning_rates[0]:g}, S = {config.batch_sizes[0]} against twice both, after "
        "equally many steps, that is after twice the time.",
    )


def times_half_rate(cells: Sequence[Sequence[Cell]], config: Config) -> list[list[Cell]]:
    """Each row times η/2."""
    return [
        [Cell(rate / 2 * cell.value, rate / 2 * cell.standard_error) for cell in row]
        for rate, row in zip(config.learning_rates, cells, strict=True)
    ]


def corners(cells: Sequence[Sequence[Cell]], config: Config) -> dict[str, Cell]:
    """The four corners of the grid by name."""
    return {
        f"η = {config.learning_rates[i]:g}, S = {config.batch_sizes[j]}": cells[i][j]
        for i in (0, -1)
        for j in (0, -1)
    }


def grid_map(title: str, cells: Sequence[Sequence[Cell]], config: Config) -> Map:
    """A number in every cell."""
    values = [[cell.value for cell in row] for row in cells]
    rates = [float(rate) for rate in config.learning_rates]
    return Map(title, "batch size S", "learning rate η", list(config.batch_sizes), rates, values)


def ratio_chart(found: Diagnosis, config: Config) -> Chart:
    """Curvature against η/S."""
    series = []
    for j, size in enumerate(config.batch_sizes):
        cells = [row[j] for row in found.curvature]
        ratio = np.asarray(config.learning_rates) / size
        values, errors = zip(*cells, strict=True)
        series.append(Series(f"S = {size}", ratio, values, errors))
    title = "Curvature at the end and the ratio η/S"
    return Chart(title, "η/S", "Tr H (loss/params²)", tuple(series), "x")
