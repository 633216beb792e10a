"""How laws are drawn from."""

from statsgd.kernels.adapter import KERNELS, Info, KernelState, LangevinKernel
from statsgd.kernels.baoab import BAOAB
from statsgd.kernels.bias import StepSizeBias, step_size_bias
from statsgd.kernels.mala import MALA
from statsgd.kernels.obabo import OBABO
from statsgd.kernels.preconditioner import Preconditioner
from statsgd.kernels.runner import sample
from statsgd.kernels.state_dependent import StateDependentLangevin
from statsgd.kernels.ula import ULA
from statsgd.kernels.underdamped import UnderdampedKernel

__all__ = [
    "BAOAB",
    "KERNELS",
    "MALA",
    "OBABO",
    "ULA",
    "Info",
    "KernelState",
    "LangevinKernel",
    "Preconditioner",
    "StateDependentLangevin",
    "StepSizeBias",
    "UnderdampedKernel",
    "sample",
    "step_size_bias",
]
