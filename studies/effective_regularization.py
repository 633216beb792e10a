"""Which minima SGD's noise prefers: valleys of equal minima, two valleys, and weight variance.

- Yang, Tang and Tu (2023), arXiv:2206.01246: anisotropic noise adds an effective loss that falls
  with flatness. Here on a ring of minima, level and tilted, with the reading of the noise, the time
  to reach the flat side and the bound beyond which training does not converge.
- Yang, Zhang, Ouyang, Tang and Tu, arXiv:2601.10962: the choice between two valleys freezes.
- Feng and Tu (2021), arXiv:2001.01678: weights vary less in flat directions. Here on a network for
  digits, with the same batches drawn independently and reshuffled.
"""

import dataclasses
import os
import warnings
from typing import Self

import xarray as xr

from statsgd.arguments import count, positive
from statsgd.laws.valleys import AdiabaticWarning
from studies.findings import findings
from studies.valleys import motion, pair, reading, ring, variance, variance_claims


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    ring_rate: float = 0.02
    """Learning rate η on the ring."""
    ring_diffusion: float = 0.1
    """Diffusion D_y across the ring (loss)."""
    ring_replicas: int = 4000
    """Runs on the ring, of each noise."""
    pair_along: float = 3.0
    """Place y along two valleys where runs are frozen."""
    pair_noise: float = 1e-3
    """Noise level ησ of frozen runs."""
    pair_rate: float = 0.002
    """Learning rate η of frozen runs."""
    pair_strength: float = 0.02
    """Noise strength σ of drifting runs, C = 2σH."""
    pair_rates: tuple[float, ...] = (0.02, 0.04, 0.06)
    """Learning rates η of drifting runs, in increasing order."""
    pair_steps: int = 4000
    """Steps of drifting runs."""
    pair_replicas: int = 2000
    """Runs in the two valleys, of each learning rate."""
    num_examples: int = 200
    """Training images of the network."""
    hidden: int = 3
    """Hidden units."""
    corrupted: float = 0.2
    """Share of training labels that are wrong."""
    weight_decay: float = 0.01
    """Weight decay λ, which makes a minimum of it."""
    learning_rate: float = 0.2
    """Learning rate η on the network."""
    batch_size: int = 10
    """Examples per step S; it divides `num_examples`."""
    splits: int = 8
    """Splits of the digits, each with labels and a network of its own start."""
    replicas: int = 64
    """Runs at the minimum of each network, with either kind of batches."""
    looks: int = 60
    """Steps past burn-in at which every run is looked at."""
    margin: float = 0.03
    """Difference that counts as agreement, relative but for numbers near zero."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "effective_regularization")
    """Folder for the report."""
    progress: bool = True
    """Say what is being computed."""

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            ring_rate=0.05,
            ring_diffusion=0.2,
            ring_replicas=1000,
            pair_rate=0.004,
            pair_steps=1000,
            pair_replicas=600,
            splits=1,
            replicas=40,
            looks=30,
            margin=0.05,
        )


def run(config: Config) -> xr.DataTree:
    """The claims about valleys and the variance of weights, for `statsgd.report`."""
    margin, seed = float(positive("margin", config.margin)), count("seed", config.seed, at_least=0)
    rates = tuple(float(rate) for rate in positive("pair_rates", config.pair_rates))
    if len(rates) < 2 or sorted(set(rates)) != list(rates):
        raise ValueError(f"pair_rates must be two or more and increase, got {config.pair_rates}")
    on_ring = ring.RingSettings(
        learning_rate=float(positive("ring_rate", config.ring_rate)),
        diffusion=float(positive("ring_diffusion", config.ring_diffusion)),
        replicas=count("ring_replicas", config.ring_replicas, at_least=2),
        margin=margin,
        seed=seed,
    )
    in_pair = pair.PairSettings(
        along=float(positive("pair_along", config.pair_along)),
        noise_level=float(positive("pair_noise", config.pair_noise)),
        frozen_rate=float(positive("pair_rate", config.pair_rate)),
        strength=float(positive("pair_strength", config.pair_strength)),
        rates=rates,
        steps=count("pair_steps", config.pair_steps, at_least=2),
        replicas=count("pair_replicas", config.pair_replicas, at_least=2),
        margin=margin,
        seed=seed,
    )
    on_network = variance.VarianceSettings(
        num_examples=config.num_examples,
        hidden=config.hidden,
        corrupted=config.corrupted,
        weight_decay=float(positive("weight_decay", config.weight_decay)),
        learning_rate=float(positive("learning_rate", config.learning_rate)),
        batch_size=count("batch_size", config.batch_size),
        splits=count("splits", config.splits),
        replicas=count("replicas", config.replicas, at_least=2),
        looks=count("looks", config.looks),
        margin=2 * margin,
        seed=seed,
    )
    if config.num_examples % config.batch_size or config.num_examples == config.batch_size:
        raise ValueError(
            f"batch_size must divide num_examples = {config.num_examples} and be less, got "
            f"{config.batch_size}"
        )
    _say(config, "ring: where SGD dwells, how fast it gets there, and when it is thrown out")
    with warnings.catch_warnings():
        # How far the adiabatic law is off is what is measured here.
        warnings.simplefilter("ignore", AdiabaticWarning)
        parts = {**ring.parts(on_ring), **reading.parts(on_ring)}
        parts["ring, speed"] = motion.speed(on_ring)
        parts |= motion.bound_of_noise(on_ring)
    _say(config, "two valleys: frozen and drifting")
    parts |= pair.parts(in_pair)
    _say(config, "network: variance of weights")
    parts |= variance_claims.parts(on_network)
    return findings(
        "What SGD's noise prefers: valleys, and the variance of weights",
        "Does noise act like a regulariser that prefers flat minima, and is flatness what keeps "
        f"weights from fluctuating? Ring: η = {config.ring_rate:g}, D_y = "
        f"{config.ring_diffusion:g}. Digits: N = {config.num_examples}, {config.hidden} hidden "
        f"units, λ = {config.weight_decay:g}, η = {config.learning_rate:g}, S = "
        f"{config.batch_size}.",
        parts,
    )


def _say(config: Config, what: str) -> None:
    if config.progress:
        print(what, flush=True)
