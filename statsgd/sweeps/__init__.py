"""Sweeps over many settings: one store, any executor, nothing lost."""

from statsgd.running.writing import StoreError
from statsgd.sweeps.cells import Cell
from statsgd.sweeps.distributed import Distributed
from statsgd.sweeps.processes import Processes
from statsgd.sweeps.records import Failure, Record
from statsgd.sweeps.serial import Serial
from statsgd.sweeps.store import read
from statsgd.sweeps.sweep import IncompleteSweepWarning, sweep

__all__ = [
    "Cell",
    "Distributed",
    "Failure",
    "IncompleteSweepWarning",
    "Processes",
    "Record",
    "Serial",
    "StoreError",
    "read",
    "sweep",
]


def __dir__() -> list[str]:
    return sorted(__all__)
