"""Diagnosis of one's own model: noise, curvature, stability, stationarity and flatness.

A classifier written in Equinox and in Flax, on scikit-learn's digits or on images that the user
has (MNIST, CIFAR-10 and others), is trained by SGD over a small grid of learning rates and batch
sizes. Every cell is then handed to `statsgd.diagnose`, as anyone with a JAX model can do. The
claims that the literature makes of such numbers are judged on the way.
"""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.arguments import count, one_of, positive
from statsgd.diagnosis import CheckpointWarning
from statsgd.ensembles import trajectories
from statsgd.estimate import Estimate
from statsgd.measures import (
    first_fluctuation_relation,
    full_gradients,
    jackknife,
    mean_over_clusters,
)
from statsgd.problems import EmpiricalRisk
from studies.findings import diagnosis_parts, findings
from studies.own_claims import Cells, claims
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
    diagnosed: int = 1
    """Runs of each cell, on each draw of the images, whose end is diagnosed."""
    modes: int = 8
    """Leading modes of a diagnosis."""
    leaving: int = 32
    """Replicas that leave the checkpoint in a diagnosis."""
    leaving_steps: int = 400
    """Their steps."""
    margin: float = 0.05
    """Relative difference that counts as agreement."""
    gap: float = 0.1
    """Relative gap of the fluctuation–dissipation relation, and of the law, that counts as none."""
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
        for name in ("examples", "width", "looks"):
            count(name, getattr(self, name), at_least=2)
        count("replicas", self.replicas, at_least=8)  # fewer give no error of the stationarity test
        fewest = 2 if self.splits == 1 else 1  # the errors of a single split are those of runs
        count("diagnosed", self.diagnosed, at_least=fewest, at_most=self.replicas)
        for name in ("modes", "leaving_steps"):
            count(name, getattr(self, name))
        count("leaving", self.leaving, at_least=8)
        count("steps", self.steps, at_least=4 * self.looks)
        positive("weight_decay", self.weight_decay)
        for name in ("margin", "gap"):
            positive(name, getattr(self, name))
        count("seed", self.seed, at_least=0)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take about a minute."""
        return cls(
            examples=300,
            width=4,
            learning_rates=(0.15, 0.3),
            batch_sizes=(8, 16),
            splits=1,
            replicas=32,
            steps=5000,
            looks=20,
            diagnosed=4,
            leaving_steps=200,
            margin=0.1,
            gap=0.2,
        )


def run(config: Config) -> xr.DataTree:
    """Train, diagnose and judge; returns the tree that `statsgd.report` reads."""
    parts: dict[str, xr.DataTree] = {}
    shown: dict[str, xr.DataTree] = {}
    for name in config.models:
        found = []
        for index in range(config.splits):
            own = dataclasses.replace(config, seed=config.seed + index)
            data = images(own.dataset, own.data_dir, own.examples, own.seed)
            cells, last = measured(MODELS[name](data, own.width, own.seed), own)
            found.append(cells)
        for title, part in claims(name, found, config).items():
            parts[f"{name}: {title}"] = part
        where = f"{name}, η = {config.learning_rates[-1]:g}, S = {config.batch_sizes[-1]}"
        shown |= diagnosis_parts(last, name, where)
    return findings(
        "Bring your own model: a diagnosis over learning rate and batch size",
        "What is the gradient noise of this model like, is training stationary, is it near the "
        "edge of stability, does the law say how replicas spread, and how does flatness depend on "
        f"learning rate and batch size? {config.width} hidden neurons, {config.examples} images of "
        f"{config.dataset}.",
        parts | shown,
    )


def measured(problem: EmpiricalRisk, config: Config) -> tuple[Cells, xr.DataTree]:
    """Numbers of one model on the whole grid, and the last of its diagnoses."""
    shape = len(config.learning_rates), len(config.batch_sizes)
    numbers = np.zeros((config.diagnosed, len(_NUMBERS), *shape))
    value, error = np.zeros((2, *shape))
    shared = Estimate(np.zeros((*shape, 2)), np.zeros((*shape, 2)), config.replicas)
    for j, size in enumerate(config.batch_sizes):
        ensemble = train(problem, size, config)
        for i, rate in enumerate(config.learning_rates):
            looks = trajectories(ensemble.isel(learning_rate=i), problem.names)
            sgd = setting(rate, size, config)
            for replica, point in enumerate(looks.params[: config.diagnosed, -1]):
                tree = diagnosis(problem, point, sgd, config)
                numbers[replica, :, i, j] = list(read(tree, problem.dimension).values())
            gap = imbalance(problem, looks, sgd)
            value[i, j], error[i, j] = gap[:2]
            for end in (0, -1):
                found = in_common(looks.params[:, end])
                shared.value[i, j, end], shared.standard_error[i, j, end] = found[:2]
    return (
        Cells(
            **{name: over_runs(numbers[:, i]) for i, name in enumerate(_NUMBERS)},
            imbalance=Estimate(value, error, config.replicas),
            shared=shared,
        ),
        tree,
    )


def diagnosis(
    problem: EmpiricalRisk, point: Float[Any, " d"], sgd: statsgd.SGD, config: Config
) -> xr.DataTree:
    """`statsgd.diagnose` at the end of one run."""
    with warnings.catch_warnings():
        # At large learning rates the gradient exceeds the noise of a batch: the claims are of that.
        warnings.simplefilter("ignore", CheckpointWarning)
        return statsgd.diagnose(
            problem,
            problem.unflatten(jnp.asarray(point)),
            sgd,
            modes=config.modes,
            replicas=config.leaving,
            steps=config.leaving_steps,
            seed=config.seed + 1,
            learning_coefficient=False,
            progress=False,
        )


def setting(rate: float, size: int, config: Config) -> statsgd.SGD:
    """The SGD of one cell."""
    return statsgd.SGD(rate, statsgd.noise.Minibatch(size), weight_decay=config.weight_decay)


def train(problem: EmpiricalRisk, size: int, config: Config) -> xr.DataTree:
    """Runs of one batch size at every learning rate."""
    spacing = config.steps // (2 * config.looks)
    return statsgd.simulate(
        problem,
        statsgd.grid(
            setting(config.learning_rates[0], size, config), learning_rate=config.learning_rates
        ),
        steps=config.steps,
        replicas=config.replicas,
        seed=config.seed,
        keep=[config.steps - i * spacing for i in reversed(range(config.looks))],
        progress=config.progress,
        devices=jax.devices(),
    )


#: What is read off a diagnosis.
_NUMBERS = ("loss", "sharpness", "curvature", "noise", "alignment", "spread", "corrected")


def read(tree: xr.DataTree, dimension: int) -> dict[str, float]:
    """The numbers of one diagnosis that the claims are about."""
    at, whole, spread = (tree[part].to_dataset() for part in ("standing", "curvature", "spread"))
    trace = whole["hessian_trace"]
    last = spread.isel(step=-1)
    found = (
        at["loss"],
        whole["curvature"].max(),
        trace,
        at["noise_trace"],
        dimension * whole["curvature_of_noise"] / trace,
        (last["variance"] / last["predicted_variance"]).mean(),
        (last["variance"] / last["corrected_variance"]).mean(),
    )
    return dict(zip(_NUMBERS, map(float, found), strict=True))


def over_runs(values: Float[Any, "run i j"]) -> Estimate:
    """Mean over runs; of a single one no error is known, nor asked for."""
    if len(values) == 1:
        return Estimate(values[0], np.zeros(values.shape[1:]))
    return mean_over_clusters(values)


def imbalance(problem: EmpiricalRisk, looks: Any, sgd: statsgd.SGD) -> Estimate:
    """Relative gap of the first fluctuation–dissipation relation over all looks and runs."""
    force = full_gradients(problem, looks.params, sgd.weight_decay)
    first = first_fluctuation_relation(
        looks.params, force, looks.momentum_buffer, sgd.learning_rate
    )
    side = (first.left.value + first.right.value) / 2
    return Estimate(first.gap.value / side, first.gap.standard_error / side)


def in_common(params: Float[Any, "replica d"]) -> Estimate:
    """|E θ|²/E|θ|²: one for equal runs, zero for independent ones of mean zero."""
    points = np.asarray(params, dtype=np.float64)
    columns = np.column_stack([points, np.sum(points**2, axis=1)])
    return jackknife(lambda mean: np.sum(mean[:-1] ** 2) / mean[-1], columns)
