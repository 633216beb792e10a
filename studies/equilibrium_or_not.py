"""Minibatch sampling: equilibrium or not, with and without replacement, in SGD and in SGLD.

What the drawing of minibatches does to the stationary state: its variance by direction under five
schemes, the loss on whose minimum its mean sits, the currents that flow in it, and the bias of
posteriors sampled by Langevin dynamics with minibatches (SGLD, and SGWORLD without replacement).
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Self

import xarray as xr

from statsgd.arguments import count, one_of, positive
from studies.findings import findings
from studies.out_of_equilibrium import currents, effective_loss, posterior, schemes


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    replicas: int = 16384
    """Independent runs of SGD under each scheme."""
    mean_replicas: int = 65536
    """Independent runs whose mean is held against the minimum."""
    looks: int = 100
    """Pairs of successive steps of each run at which currents are measured."""
    posteriors: Sequence[str] = tuple(posterior.TARGETS)
    """Posteriors to sample: the mean of a Gaussian, a regression on data of diabetes patients."""
    chains: int = 2048
    """Chains of the Langevin samplers."""
    chain_steps: int = 4000
    """Minibatches that each of them uses after burn-in."""
    margin: float = 0.05
    """Relative difference that counts as agreement."""
    shift_margin: float = 0.15
    """The same for shifts of the mean, whose prediction is right to first order in η."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "equilibrium_or_not")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        for name in ("replicas", "mean_replicas", "looks", "chains"):
            count(name, getattr(self, name), at_least=2)
        count("chain_steps", self.chain_steps, at_least=40)
        for name in ("margin", "shift_margin"):
            positive(name, getattr(self, name))
        count("the number of posteriors", len(self.posteriors))
        for name in self.posteriors:
            one_of("posteriors", name, posterior.TARGETS)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            replicas=2048,
            mean_replicas=16384,
            looks=60,
            posteriors=("mean of a Gaussian",),
            chains=1024,
            chain_steps=1500,
            margin=0.1,
        )


def run(config: Config) -> xr.DataTree:
    """Simulate, sample and judge; returns the tree that `statsgd.report` reads."""
    seed, progress = config.seed, config.progress
    parts = {
        **schemes.claims(config.replicas, config.margin, seed, progress),
        **effective_loss.claims(config.mean_replicas, config.shift_margin, seed + 100, progress),
        **currents.claims(config.replicas, config.looks, config.margin, seed + 200, progress),
        **posterior.claims(
            config.posteriors,
            config.chain_steps,
            config.chains,
            config.margin,
            seed + 300,
            progress,
        ),
    }
    return findings(
        "Minibatch sampling: equilibrium or not",
        "What does it matter to the stationary state of SGD how minibatches are drawn, is that "
        "state one of equilibrium, and does drawing without replacement make better posteriors?",
        parts,
    )
