"""Which optimiser rests where: averages of weights, Nesterov, momentum as a rate, Adam.

Exact laws of linear optimisers and the frozen law of Adam against ensembles on quadratics, on
scikit-learn's digits and along a valley of equal minima.
"""

import dataclasses
import os
from typing import Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.findings import findings
from studies.rest import adaptive, linear


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    replicas: int = 20_000
    """Independent runs on quadratics and along the valley."""
    digits_replicas: int = 2000
    """Independent runs on the digits."""
    length: int = 400
    """Iterates in a tail average."""
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
        positive("margin", self.margin)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than two minutes."""
        return cls(replicas=3000, digits_replicas=400, length=200, margin=0.15)


def run(config: Config) -> xr.DataTree:
    """Simulate and judge; returns the tree that `statsgd.report` reads."""
    shared = config.margin, config.seed, config.progress
    parts = {
        "averages": linear.averages(config.length, config.replicas, *shared),
        "momentum as a rate": linear.momentum_as_a_rate(config.replicas, *shared),
        "nesterov at finite batch": linear.nesterov_at_finite_batch(),
        "adam on digits": adaptive.on_digits(config.digits_replicas, *shared),
        "adam along a valley": adaptive.along_a_valley(config.replicas, *shared),
    }
    return findings(
        "Which optimiser rests where",
        "What do averages of weights, Nesterov, momentum and Adam change about the law that "
        "training with a constant learning rate settles into?",
        {name: claim.to_datatree() for name, claim in parts.items()},
    )
