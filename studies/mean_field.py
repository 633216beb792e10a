"""Mean-field Langevin dynamics: what finitely many particles and finite steps cost.

Interacting particles under a quadratic functional, where the errors of finite number, step and
minibatch are known exactly; the free energy of tanh networks by quadrature; and two-layer networks
of several widths on scikit-learn's diabetes data, sampled by `MeanFieldLangevin`.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.findings import findings
from studies.particles import network, quadratic


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    particles: Sequence[int] = (4, 8, 16, 32)
    """Numbers of particles under the quadratic functional, ascending."""
    chains: int = 1024
    """Independent systems of particles."""
    draws: int = 200
    """Looks at each of them."""
    widths: Sequence[int] = (8, 16, 32, 64)
    """Numbers of neurons on the diabetes data."""
    patients: int = 300
    """Patients to learn from, at most 300."""
    splits: int = 8
    """Splits of the patients into those to learn from and those to test on."""
    network_chains: int = 8
    """Independent networks of each width on each split."""
    network_draws: int = 40
    """Looks at each of them."""
    margin: float = 0.1
    """Relative difference that counts as agreement."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "mean_field")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        for name in ("particles", "widths"):
            numbers = getattr(self, name)
            if len(numbers) < 2 or len(set(numbers)) != len(numbers):
                raise ValueError(f"{name} must be at least two different numbers, got {numbers}")
            for number in numbers:
                count(name, number, at_least=2)
        for name in ("chains", "draws", "network_chains", "network_draws"):
            count(name, getattr(self, name), at_least=2)
        count("splits", self.splits)
        if count("patients", self.patients, at_least=10) > 300:
            raise ValueError(f"patients must be at most 300, got {self.patients}")
        positive("margin", self.margin)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            particles=(4, 8),
            chains=512,
            draws=60,
            widths=(8, 32),
            patients=100,
            splits=1,
            network_chains=32,
            network_draws=15,
            margin=0.15,
        )


def run(config: Config) -> xr.DataTree:
    """Sample and judge; returns the tree that `statsgd.report` reads."""
    parts = {
        **quadratic.claims(
            config.particles, config.draws, config.chains, config.margin, config.seed,
            config.progress,
        ),
        **network.claims(
            config.widths, config.patients, config.network_draws, config.network_chains,
            config.splits, config.margin, config.seed + 100, config.progress,
        ),
    }  # fmt: skip
    return findings(
        "Mean-field Langevin dynamics: particles and steps",
        "How far are N interacting particles, at a finite step and with minibatches, from the law "
        "of infinitely many in continuous time?",
        parts,
    )
