"""All faults in full, and the table of what became of them.

    python -m tests.faults --kills 300 --replicas 1000000

A number that is not given is that of the full run; 0 leaves a kind out. It takes about half an hour
of two cores, most of it for the kills, and ends with exit code 1 if anything was wrong.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.faults.company import company
from tests.faults.configurations import configurations
from tests.faults.damage import damaged_stores
from tests.faults.disks import disks
from tests.faults.divergence import divergence
from tests.faults.files import files
from tests.faults.kills import kills
from tests.faults.labels import labels
from tests.faults.tally import Tally
from tests.faults.trees import trees
from tests.faults.workers import workers


class Fault(NamedTuple):
    title: str
    full: int | None
    """How many trials a full run has, None for all that there are."""
    inflict: Callable[[Path, int, int], Tally]


FAULTS = {
    "kills": Fault("SIGKILL at a random moment", 300, kills),
    "damage": Fault("file of a store truncated, missing, replaced", None, damaged_stores),
    "disks": Fault("full and read-only disk, each at four stages", 15, disks),
    "company": Fault("two processes on one store", 6, company),
    "replicas": Fault("replicas, 1 % diverging", 10**6, lambda _, n, seed: divergence(n, seed)),
    "workers": Fault("worker of a sweep killed", 10, workers),
    "configurations": Fault("fuzzed configuration", 200, configurations),
    "files": Fault("fuzzed data file", 200, files),
    "labels": Fault("report of fuzzed labels", 50, labels),
    "trees": Fault("fuzzed tree of parameters", 50, trees),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, fault in FAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=fault.full, help=fault.title)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # faults are meant
    os.environ["PYTHONWARNINGS"] = "ignore"
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    print(f"{'fault':46} {'trials':>8} {'right':>8} {'named':>6} {'wrong':>6} {'seconds':>8}")
    failed = 0
    for name, fault in FAULTS.items():
        if (number := getattr(given, name)) == 0:
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = fault.inflict(Path(folder), number, given.seed)
        seconds = time.monotonic() - begin
        counts = f"{found.trials:8} {found.right:8} {found.named:6} {len(found.wrong):6}"
        print(f"{fault.title:46} {counts} {seconds:8.0f}", flush=True)
        for what in found.wrong:
            print(f"    {what[:500]}")
        failed += len(found.wrong)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
