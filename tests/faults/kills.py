"""SIGKILL at random moments: every run that is started again ends in equal bits."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.children import PATIENCE, digest, start
from tests.faults.tally import Tally
from tests.faults.victims import VICTIMS, opened


def kills(folder: Path, trials: int, seed: int) -> Tally:
    """Kill the victims in turn, `trials` times together."""
    total = Tally()
    for i, name in enumerate(VICTIMS):
        own = folder / f"kills of {name}"
        own.mkdir()
        total += killed(own, name, len(range(i, trials, len(VICTIMS))), seed + i)
    return total


def killed(folder: Path, name: str, trials: int, seed: int) -> Tally:
    """Kill one victim `trials` times: each store again and again, until its run is finished.

    Half of the moments are uniform over the run from its start, half over what follows the first
    file that it finds or makes.
    """
    programs, said, clock = folder / "programs", folder / "said", np.random.default_rng(seed)
    for store in ("first", "whole"):  # the first one compiles
        begin = time.monotonic()
        start(name, folder / store, programs, said).join(PATIENCE)
    length = time.monotonic() - begin
    expected = digest(opened(name, folder / "whole"))
    total, since, number = Tally(), 0, 0
    while total.trials < trials:
        store = folder / f"store {number}"
        process = start(name, store, programs, said)
        if total.trials + since < trials:
            if clock.random() < 0.5:
                _wait_for(store / "zarr.json", process)
                process.join(clock.uniform(0, 0.5 * length))
            else:
                process.join(clock.uniform(0, length))
            if process.is_alive():
                process.kill()
                process.join()
                since += 1
                continue
        process.join(PATIENCE)
        found = said.read_text()
        right = found == expected == digest(opened(name, store))
        what = f"{name} after {since} kills: {found}"
        total += Tally(since, right=since) if right else Tally(since, wrong=(what,))
        since, number = 0, number + 1
    return total


def _wait_for(file: Path, process: Any) -> None:
    while not file.exists() and process.is_alive():
        process.join(0.005)
