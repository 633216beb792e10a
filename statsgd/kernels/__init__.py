"""How laws are drawn from."""

from statsgd.kernels.adapter import KERNELS, Info, KernelState, LangevinKernel
from statsgd.kernels.mala import MALA
from statsgd.kernels.mean_field_langevin import MeanFieldFunctional, MeanFieldLangevin
from statsgd.kernels.mixing import Mixing, MixingWarning, mixing
from statsgd.kernels.replica_exchange import ReplicaExchange
from statsgd.kernels.runner import sample
from statsgd.kernels.wells import find_wells

__all__ = [
    "KERNELS",
    "MALA",
    "Info",
    "KernelState",
    "LangevinKernel",
    "MeanFieldFunctional",
    "MeanFieldLangevin",
    "Mixing",
    "MixingWarning",
    "ReplicaExchange",
    "find_wells",
    "mixing",
    "sample",
]
