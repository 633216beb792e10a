"""SGD whose noise scales with the loss: when it collapses, and what it prefers when it does not.

An over-parametrised model that fits its data has no gradient noise left at zero loss. Noise of
covariance C = σL I models this; its stationary law is a power of the loss where there is one. The
study holds against simulated SGD

- the critical noise ησ = 4/(q−2) at several codimensions q, the speed of collapse below it, and
  the stationary law above it;
- which of two strata of the zero-loss set wins, and in which sense flat minima are preferred, side
  by side with constant noise;
- real minibatches: regression with noisy labels in one dimension, without label noise in five, and
  the noise on a real data set.
"""

import dataclasses
import os
from typing import Any, Self

import xarray as xr

from statsgd.arguments import count, positive
from studies.findings import findings
from studies.loss_noise import collapse, flatness, regression


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    replicas: int = 8192
    """Independent runs of each setting; long runs take a quarter."""
    collapse_time: float = 16.0
    """Time ηk over which growth rates are measured."""
    stationary_time: float = 100.0
    """Time ηk given to stationary laws; the second half is looked at."""
    tube: float = 0.25
    """Distance from the zero-loss set within which preferences are compared."""
    margin: float = 0.05
    """Relative difference that counts as agreement; a few times that for rates and tubes."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "machine_learning_noise")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        for name in ("collapse_time", "stationary_time", "tube", "margin"):
            positive(name, getattr(self, name))
        count("replicas", self.replicas, at_least=256)

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            replicas=2048, collapse_time=8.0, stationary_time=60.0, tube=0.3, margin=0.1,
        )  # fmt: skip


def run(config: Config) -> xr.DataTree:
    """All claims; returns the tree that `statsgd.report` reads."""
    shared: dict[str, Any] = {
        "seed": config.seed, "margin": config.margin, "progress": config.progress,
    }  # fmt: skip
    many = {**shared, "replicas": config.replicas}
    some = {**shared, "replicas": config.replicas // 2}
    parts = collapse.threshold_claims(**some, time=config.collapse_time)
    parts["speed of collapse"] = collapse.speed_claim(**many, time=config.collapse_time)
    parts["law above the critical noise"] = collapse.ergodic_claim(
        **some, time=config.stationary_time
    )
    parts |= collapse.strata_claims(**some, time=config.stationary_time)
    parts |= flatness.flatness_claims(**some, time=config.stationary_time, tube=config.tube)
    parts |= regression.label_noise_claims(**{**shared, "replicas": 2 * config.replicas})
    parts |= regression.isotropy_claims(**many)
    return findings(
        "SGD whose noise scales with the loss",
        "When does noise that vanishes with the loss collapse SGD onto the zero-loss set, which "
        "minima does it prefer otherwise, and does it describe real minibatches?",
        parts,
    )
