"""Symmetries: charges that SGD balances, and the law along their orbits."""

from statsgd.laws.balance.charges import (
    NoiseTraces,
    ProductNoise,
    balance_rate,
    charge,
    charge_step,
    charge_trajectory,
    matrix_charge_step,
    mean_charge_step,
    noise_balance_gap,
    pair_balance_step,
    product_noise,
    rescaling_generator,
    scale_invariant_equilibrium_norm,
    scale_invariant_norm,
)
from statsgd.laws.balance.noise_equilibrium import NoiseEquilibrium, linear_network_equilibrium
from statsgd.laws.balance.rescaling_gibbs import RescalingGibbs, langevin_charge_growth

__all__ = [
    "NoiseEquilibrium",
    "NoiseTraces",
    "ProductNoise",
    "RescalingGibbs",
    "balance_rate",
    "charge",
    "charge_step",
    "charge_trajectory",
    "langevin_charge_growth",
    "linear_network_equilibrium",
    "matrix_charge_step",
    "mean_charge_step",
    "noise_balance_gap",
    "pair_balance_step",
    "product_noise",
    "rescaling_generator",
    "scale_invariant_equilibrium_norm",
    "scale_invariant_norm",
]


def __dir__() -> list[str]:
    return sorted(__all__)
