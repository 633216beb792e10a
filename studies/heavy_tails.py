"""Are the tails of SGD heavy: its gradient noise, its iterates, and the jumps out of wells?

A literature that follows Şimşekli, Sagun and Gürbüzbalaban (2019) takes the gradient noise of
networks for α-stable, SGD's iterates for power laws whose index falls with η/S, and escape from
minima for single jumps. Here the noise of a network on digits is put to tests that tell stable
noise from noise that is merely not normal; iterates of regression are held against exact exponents;
and exits under stable noise, and under the network's own, against one jump and against Kramers.
"""

import dataclasses
import os
from typing import Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.findings import findings
from studies.tails import exits, gradients, iterates


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    num_examples: int = 1500
    """Training images of the network."""
    hidden: int = 12
    """Hidden units."""
    learning_rate: float = 0.5
    """Learning rate η of its training."""
    batch_size: int = 16
    """Examples per step S of its training."""
    training: tuple[int, ...] = (1, 300, 3000)
    """Steps of training at which noise is recorded."""
    draws: int = 20_000
    """Batches of every size that are drawn at each of them."""
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128)
    """Batch sizes at which noise is tested for normality."""
    replicas: int = 1_000_000
    """Runs of regression."""
    steps: int = 300
    """Steps of each."""
    data_sets: int = 400
    """Finite data sets of regression."""
    exit_replicas: int = 10_000
    """Runs out of each well."""
    margin: float = 0.05
    """Relative difference that counts as agreement; three times that for Hill's estimates, twice
    for recorded noise and for differences of kurtosis."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "heavy_tails")
    """Folder for the report."""
    progress: bool = True
    """Say what is being computed."""

    @classmethod
    def quick(cls) -> Self:
        """Settings that take a minute or two."""
        return cls(
            num_examples=600,
            hidden=6,
            training=(1, 100, 1000),
            draws=4000,
            replicas=20_000,
            steps=150,
            data_sets=100,
            exit_replicas=600,
            margin=0.1,
        )


def run(config: Config) -> xr.DataTree:
    """The claims on gradients, iterates and exits, for `statsgd.report`."""
    if list(config.training) != sorted(set(config.training)) or len(config.training) < 2:
        raise ValueError(f"training must increase over two steps or more, got {config.training}")
    margin = float(positive("margin", config.margin))
    of_gradients = gradients.GradientSettings(
        count("num_examples", config.num_examples, at_least=100),
        config.hidden,
        config.learning_rate,
        config.batch_size,
        tuple(config.training),
        count("draws", config.draws, at_least=100),
        tuple(config.batch_sizes),
        margin,
        config.seed,
    )
    of_iterates = iterates.IterateSettings(
        count("replicas", config.replicas, at_least=1000),
        config.steps,
        count("data_sets", config.data_sets),
        margin,
        config.seed,
    )
    of_exits = exits.ExitSettings(
        count("exit_replicas", config.exit_replicas, at_least=2), margin, config.seed
    )
    _say(config, "gradient noise of a network")
    found = gradients.record(of_gradients)
    parts = dict(gradients.parts(of_gradients, found))
    _say(config, "iterates of regression")
    parts |= iterates.parts(of_iterates)
    _say(config, "exits from wells")
    leading = found[-1].examples @ found[-1].directions[:, 0]
    parts |= exits.parts(of_exits, leading)
    return findings(
        "Heavy tails of SGD",
        "Is the gradient noise of a network α-stable, do iterates have power laws, and does SGD "
        f"jump out of wells? Digits network of {config.hidden} hidden units, N = "
        f"{config.num_examples}, η = {config.learning_rate:g}, S = {config.batch_size}; regression "
        "on Gaussian data; wells of one parameter.",
        parts,
    )


def _say(config: Config, what: str) -> None:
    if config.progress:
        print(what, flush=True)
