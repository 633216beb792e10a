"""Batch size, flat minima and escape times: where SGD ends up, and how soon.

Two wells of one parameter, where the chain that SGD runs can be solved exactly, hold the claims of
Dai and Zhu (2018, 2021) on Gibbs-like laws: a preference for flat minima that does not depend on
the batch size, and a time to reach it that does, exponentially. Escape with momentum and with
noise shaped by the curvature follows; then a network on digits, trained with small and large
batches.
"""

import dataclasses
import os
from typing import Self

import xarray as xr

from statsgd.arguments import count
from statsgd.problems import landscapes
from studies.batch_size.escape import curvature_claim, momentum_claims
from studies.batch_size.network import GapSettings, network_gap_claims
from studies.batch_size.preference import preference_claims
from studies.batch_size.times import time_claims
from studies.batch_size.wells import ASYMMETRY, Wells
from studies.findings import findings


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    learning_rate: float = 0.04
    """Learning rate η in the wells."""
    example_variance: float = 4.0
    """Variance v₁ of the gradient of one example there."""
    batch_sizes: tuple[int, ...] = (2, 3, 4, 5)
    """Batch sizes S that are run there, in increasing order."""
    computed: tuple[int, ...] = (6, 8)
    """Larger batch sizes, for which the exact chain is solved alone."""
    steps: int = 40000
    """Steps of each run there."""
    spacing: int = 20
    """Steps between looks."""
    replicas: int = 4000
    """Independent runs there."""
    momentum_replicas: int = 60000
    """Independent runs with momentum."""
    network_splits: int = 8
    """Splits of the digits for the network, each with labels and starts of its own."""
    network_replicas: int = 8
    """Independent runs of the network on each split."""
    network_batch_sizes: tuple[int, int] = (4, 48)
    """A small and a large batch for the network."""
    network_learning_rates: tuple[float, ...] = (0.1, 0.3)
    """Learning rates of the network with the small batch."""
    epochs: int = 60
    """Epochs of the network, with the small batch."""
    descent: int = 2000
    """Steps of full-batch descent from where it ended."""
    margin: float = 0.05
    """Relative difference that counts as agreement; twice that for escape times."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "large_batch")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            batch_sizes=(2, 3, 4),
            computed=(5, 6, 8),
            steps=12000,
            replicas=1000,
            momentum_replicas=20000,
            network_splits=1,
            network_replicas=16,
            epochs=40,
            descent=800,
            margin=0.1,
        )


def run(config: Config) -> xr.DataTree:
    """Run SGD in the wells and on the network, and judge what the papers claim."""
    if list(config.batch_sizes) != sorted(set(config.batch_sizes)):
        raise ValueError(f"batch_sizes must increase, got {config.batch_sizes}")
    wells = Wells(
        config.learning_rate,
        config.example_variance,
        tuple(config.batch_sizes),
        tuple(config.computed),
        config.steps,
        config.spacing,
        config.replicas,
        config.margin,
        config.seed,
        config.progress,
    )
    case = wells.case(landscapes.smooth_wells(ASYMMETRY))
    parts = {
        **preference_claims(wells, case),
        **time_claims(wells, case),
        **momentum_claims(
            replicas=config.momentum_replicas,
            margin=config.margin,
            seed=config.seed,
            progress=config.progress,
        ),
        "curvature noise": curvature_claim(config.margin),
        **network_gap_claims(
            GapSettings(
                splits=count("network_splits", config.network_splits),
                replicas=count("network_replicas", config.network_replicas, at_least=2),
                epochs=config.epochs,
                batch_sizes=config.network_batch_sizes,
                learning_rates=tuple(config.network_learning_rates),
                descent=config.descent,
                margin=config.margin,
                seed=config.seed,
                progress=config.progress,
            )
        ),
    }
    return findings(
        "Batch size, flat minima and escape",
        "Does SGD prefer flat minima at every batch size, and how long does it take to get there? "
        f"Two wells of one parameter with η = {config.learning_rate:g}, "
        f"v₁ = {config.example_variance:g}; then a network on digits.",
        parts,
    )
