"""Several processes that compute one result together, under `jax.distributed`.

Every process makes the same calls. It computes its share of the blocks on its own devices, and the
shares are gathered where they are recorded. So nothing crosses the network while replicas move.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def share_of(devices: Sequence[jax.Device] | None) -> tuple[list[jax.Device], int]:
    """The devices of this process among `devices`, and the number of processes that share in.

    None stands for the first device of every process. Devices of this process alone make a
    computation of its own.

    Raises `ValueError` for devices of some but not all processes, or unequally many of them.
    """
    processes = jax.process_count()
    if devices is None:
        return [jax.local_devices()[0]], processes
    if not devices:
        raise ValueError("devices must hold at least one device, got none")
    owners = [device.process_index for device in devices]
    own = [device for device in devices if device.process_index == jax.process_index()]
    if len(own) == len(owners):
        return own, 1
    counts = [owners.count(process) for process in range(processes)]
    if min(counts) == 0 or len(set(counts)) > 1:
        raise ValueError(
            "devices must be those of one process, or as many of each process, got "
            f"{counts} of the {processes} processes"
        )
    return own, processes


def is_first(processes: int) -> bool:
    """Whether this process writes and shows progress."""
    return processes == 1 or jax.process_index() == 0


def gathered(tree: PyTree, processes: int) -> PyTree:
    """Leaves with the shares of all processes, one after the other along the first axis."""
    if processes == 1:
        return tree
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(tree, tiled=True)


def agreed(value: int, processes: int) -> int:
    """What the first process says, for what each would measure a little differently."""
    if processes == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return int(broadcast_one_to_all(np.int32(value)))


def first_does(action: Callable[[], Any], processes: int) -> None:
    """`action` in the first process, which the others wait for.

    Raises what it raises there, and `RuntimeError` in the other processes then.
    """
    error: Exception | None = None
    if is_first(processes):
        try:
            action()
        except Exception as caught:  # raised below, once the others know
            error = caught
    if agreed(error is not None, processes):
        raise error or RuntimeError("the first process could not use the store: see its error")
