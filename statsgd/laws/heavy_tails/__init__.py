"""Heavy tails: stable gradient noise, exits by one jump, and power laws made by the data."""

from statsgd.laws.heavy_tails.distribution import PositiveStable, SymmetricStable
from statsgd.laws.heavy_tails.impulse import impulse_response
from statsgd.laws.heavy_tails.kesten import (
    gaussian_tail_index,
    gaussian_tail_learning_rate,
    small_step_tail_index,
)
from statsgd.laws.heavy_tails.random_matrices import (
    BatchMatrices,
    batch_matrices,
    matrix_tail_index,
)
from statsgd.laws.heavy_tails.stable_exit import (
    StableExit,
    norm_tail_constant,
    stable_exit,
    stable_exit_ball,
    stable_exit_steps,
    stable_well_weights,
)
from statsgd.laws.heavy_tails.stable_law import StableLaw
from statsgd.laws.heavy_tails.stable_line import tail_constant

__all__ = [
    "BatchMatrices",
    "PositiveStable",
    "StableExit",
    "StableLaw",
    "SymmetricStable",
    "batch_matrices",
    "gaussian_tail_index",
    "gaussian_tail_learning_rate",
    "impulse_response",
    "matrix_tail_index",
    "norm_tail_constant",
    "small_step_tail_index",
    "stable_exit",
    "stable_exit_ball",
    "stable_exit_steps",
    "stable_well_weights",
    "tail_constant",
]
