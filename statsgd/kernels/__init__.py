"""How laws are drawn from."""

from statsgd.kernels.adapter import KERNELS, Info, KernelState, LangevinKernel
from statsgd.kernels.mala import MALA
from statsgd.kernels.runner import sample

__all__ = ["KERNELS", "MALA", "Info", "KernelState", "LangevinKernel", "sample"]
