"""How laws are drawn from."""

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.baoab import BAOAB
from statsgd.kernels.bias import StepSizeBias, step_size_bias
from statsgd.kernels.kernel_state import Info, KernelState
from statsgd.kernels.mala import MALA
from statsgd.kernels.mean_field_langevin import MeanFieldFunctional, MeanFieldLangevin
from statsgd.kernels.mixing import Mixing, MixingWarning, mixing
from statsgd.kernels.obabo import OBABO
from statsgd.kernels.preconditioned_sgld import PreconditionedSGLD
from statsgd.kernels.preconditioner import Preconditioner
from statsgd.kernels.registry import KERNELS
from statsgd.kernels.replica_exchange import ReplicaExchange
from statsgd.kernels.runner import sample
from statsgd.kernels.sghmc import SGHMC
from statsgd.kernels.sgld import SGLD, sgld_variance
from statsgd.kernels.sgnht import SGNHT
from statsgd.kernels.sgworld import SGWORLD, sgworld_variance
from statsgd.kernels.state_dependent import StateDependentLangevin
from statsgd.kernels.stochastic_gradient import StochasticGradientKernel
from statsgd.kernels.ula import ULA
from statsgd.kernels.underdamped import UnderdampedKernel
from statsgd.kernels.wells import find_wells

__all__ = [
    "BAOAB",
    "KERNELS",
    "MALA",
    "OBABO",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "SGWORLD",
    "ULA",
    "Info",
    "KernelState",
    "LangevinKernel",
    "MeanFieldFunctional",
    "MeanFieldLangevin",
    "Mixing",
    "MixingWarning",
    "PreconditionedSGLD",
    "Preconditioner",
    "ReplicaExchange",
    "StateDependentLangevin",
    "StepSizeBias",
    "StochasticGradientKernel",
    "UnderdampedKernel",
    "find_wells",
    "mixing",
    "sample",
    "sgld_variance",
    "sgworld_variance",
    "step_size_bias",
]


def __dir__() -> list[str]:
    return sorted(__all__)
