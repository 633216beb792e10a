"""Which shape of gradient noise leaves sharp minima: SGD against surrogates of the same trace.

Zhu, Wu, Yu, Wu and Ma (2019), arXiv:1803.00195, hold that SGD leaves sharp, poor minima because its
noise is aligned with curvature, and not because it is strong. Here SGD runs beside Gaussian noise
of five shapes (`statsgd.noise.TraceMatched`), all with the trace of its own noise at every step:

- in the plane, from a sharp basin beside a flat one, where exact probabilities are known;
- on a two-layer network for digits with wrong labels among the training data, from one iterate of
  full-batch descent. Descent from the end of each run says whether it left or only climbed.
"""

import dataclasses
import os
from typing import Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.anisotropy import network, plane
from studies.anisotropy.branches import NetworkSettings
from studies.findings import findings


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    plane_trace: float = 0.01
    """Trace of the noise added at every step in the plane (params²)."""
    plane_steps: int = 500
    """Steps in the plane."""
    plane_replicas: int = 500
    """Runs of each dynamics on each data set of the plane."""
    plane_data_sets: int = 16
    """Data sets of the plane."""
    plane_margin: float = 0.02
    """Difference of probabilities that counts as none."""
    num_examples: int = 200
    """Training images of the network."""
    hidden: int = 5
    """Hidden units."""
    corrupted: float = 0.2
    """Share of training labels that are wrong."""
    splits: int = 8
    """Splits of the digits, each with labels and a start of its own."""
    pretraining: int = 4000
    """Steps of full-batch descent to the iterate where runs branch off."""
    learning_rate: float = 1.0
    """Learning rate η of the runs on the network."""
    batch_size: int = 4
    """Examples per step S, on the network."""
    steps: int = 100
    """Steps of the runs on the network."""
    replicas: int = 12
    """Runs of each dynamics from each iterate."""
    draws: int = 40_000
    """Draws of one step of each noise, right after branching off; of SGD eight times as many."""
    relaxation: int = 2000
    """Steps of full-batch descent from the end of each run."""
    climb: float = 0.5
    """Rise of the training loss that counts as climbing out."""
    moved: float = 0.1
    """Difference in predicted probability that counts as another minimum."""
    margin: float = 0.05
    """Relative difference that counts as agreement with ½η² Tr(HC)."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "anisotropic_escape")
    """Folder for the report."""
    progress: bool = True
    """Say what is being computed."""

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            plane_replicas=300,
            plane_data_sets=1,
            plane_margin=0.1,
            splits=1,
            steps=60,
            draws=4000,
            relaxation=500,
            margin=0.1,
        )


def run(config: Config) -> xr.DataTree:
    """The claims in the plane and on the network, for `statsgd.report`."""
    in_plane = plane.PlaneSettings(
        trace=float(positive("plane_trace", config.plane_trace)),
        steps=count("plane_steps", config.plane_steps, at_least=2),
        replicas=count("plane_replicas", config.plane_replicas, at_least=2),
        data_sets=count("plane_data_sets", config.plane_data_sets),
        margin=float(positive("plane_margin", config.plane_margin)),
        seed=count("seed", config.seed, at_least=0),
    )
    shared = {field.name for field in dataclasses.fields(NetworkSettings)}
    values = {name: value for name, value in vars(config).items() if name in shared}
    count("replicas", config.replicas, at_least=2)
    count("splits", config.splits)
    count("draws", config.draws, at_least=2)
    on_network = NetworkSettings(**values)
    _say(config, "plane: sharp and flat basin")
    parts = dict(plane.parts(in_plane))
    _say(config, "network: branches from a full-batch iterate")
    parts |= network.parts(on_network)
    return findings(
        "SGD against noise of other shapes and the same trace",
        "Does SGD leave sharp minima because of the shape of its noise? Plane: η = "
        f"{plane.LEARNING_RATE:g}, trace {config.plane_trace:g} a step. Digits: "
        f"N = {config.num_examples}, {config.hidden} hidden units, "
        f"{config.corrupted:.0%} wrong labels, η = {config.learning_rate:g}, "
        f"S = {config.batch_size}, {config.steps} steps.",
        parts,
    )


def _say(config: Config, what: str) -> None:
    if config.progress:
        print(what, flush=True)
