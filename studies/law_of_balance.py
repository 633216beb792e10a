"""SGD balances the parameters of symmetric networks, and what stationary laws follow from it.

A loss that does not change when one layer is scaled up and the next one down leaves gradient
descent free to keep any imbalance. The noise of minibatches is not free: it removes imbalance at
a known rate, which reduces diagonal linear networks of any depth to one number, whose stationary
law is known in closed form. The study holds against real SGD

- the exact one-step identities, the decay of imbalance, and the contrast with Langevin noise;
- the stationary density at depths 0, 1 and 3, the collapse at the critical noise, fluctuations
  that shrink again, and the regimes of learning;
- noise equilibria of linear and ReLU networks;
- the convergence of SGD to saddles and maxima that all examples share.
"""

import dataclasses
import os
from typing import Any, Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.balance import equilibria, maxima, pairs, slopes, transitions
from studies.findings import findings


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    signal: float = 0.05
    """Slope κ of the teacher of the diagonal networks, in standard deviations of the labels."""
    replicas: int = 16384
    """Independent runs for laws of the slope; other parts take a fixed share of them."""
    slope_time: float = 240.0
    """Time ηk that the slowest network of one hidden layer is given to forget its start."""
    equilibrium_steps: int = 200_000
    """Steps towards a noise equilibrium."""
    equilibrium_learning_rate: float = 0.005
    """Learning rate of the ReLU network; the linear one takes twice that."""
    splits: int = 8
    """Data sets of the ReLU network, each with a start of its own; they share its runs."""
    maximum_steps: int = 6000
    """Steps about a local maximum."""
    margin: float = 0.05
    """Relative difference that counts as agreement; twice that for variances."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "law_of_balance")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        for name in ("signal", "slope_time", "equilibrium_learning_rate", "margin"):
            positive(name, getattr(self, name))
        count("replicas", self.replicas, at_least=256)
        count("splits", self.splits)
        count("equilibrium_steps", self.equilibrium_steps, at_least=400)
        count("maximum_steps", self.maximum_steps)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            replicas=2048, slope_time=50.0, equilibrium_steps=50_000,
            equilibrium_learning_rate=0.01, splits=1, margin=0.1,
        )  # fmt: skip


def run(config: Config) -> xr.DataTree:
    """All claims; returns the tree that `statsgd.report` reads."""
    shared: dict[str, Any] = {
        "seed": config.seed, "margin": config.margin, "progress": config.progress,
    }  # fmt: skip
    parts = {"one-step identities": pairs.identities(config.seed)}
    parts |= pairs.pair_claims(**shared, learning_rate=0.01, time=8.0, replicas=config.replicas)
    parts |= slopes.slope_claims(
        **shared, signal=config.signal, time=config.slope_time, replicas=config.replicas
    )
    parts |= transitions.transition_claims(
        **shared, signal=config.signal, steps=1000, replicas=config.replicas // 2
    )
    parts["regimes of learning"] = transitions.regimes_claim()
    parts["noise equilibrium of a linear network"] = equilibria.linear_network_claim(
        **shared,
        learning_rate=2 * config.equilibrium_learning_rate,
        steps=config.equilibrium_steps,
        replicas=config.replicas // 64,
    )
    parts |= equilibria.relu_claims(
        **shared,
        learning_rate=config.equilibrium_learning_rate,
        steps=config.equilibrium_steps,
        splits=config.splits,
        replicas=max(config.replicas // (64 * config.splits), 4) // 2 * 2,
    )
    parts |= maxima.maxima_claims(
        **shared, steps=config.maximum_steps, replicas=config.replicas // 4
    )
    return findings(
        "SGD balances the parameters of symmetric networks",
        "Does the noise of SGD remove imbalance between layers, and do the stationary laws that "
        "follow from it describe real runs?",
        parts,
    )
