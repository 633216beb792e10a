"""The list of all kernels."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statsgd.kernels.adapter import LangevinKernel

#: Every public kernel by name; `register` fills it.
KERNELS: dict[str, type["LangevinKernel"]] = {}


def register[Kernel: type](kernel: Kernel) -> Kernel:
    """Add a kernel to `KERNELS`, over which tests and tables run."""
    KERNELS[kernel.__name__] = kernel
    return kernel
