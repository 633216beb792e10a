"""From what a user passes as `executor` to the executor meant."""

from typing import Any

from statsgd.sweeps.distributed import Distributed
from statsgd.sweeps.processes import Processes
from statsgd.sweeps.serial import Serial
from statsgd.sweeps.work import Executor


def executor_for(choice: Any) -> Executor:
    """The executor that `choice` names or is.

    Raises `ValueError` for anything but None, "serial", "processes", an address with "://", a
    `dask.distributed.Client` or an executor.
    """
    if choice is None or choice == "serial":
        return Serial()
    if choice == "processes":
        return Processes()
    if isinstance(choice, str) and "://" in choice:
        return Distributed(choice)
    if isinstance(choice, Executor):
        return choice
    if not isinstance(choice, str) and hasattr(choice, "submit") and hasattr(choice, "cancel"):
        return Distributed(choice)
    raise ValueError(
        "executor must be None, 'serial', 'processes', the address of a dask scheduler such as "
        f"'tcp://host:8786' or a dask.distributed.Client, got {choice!r}"
    )
