"""Several processes on one store: each ends with the right result or is refused by name."""

import time
from pathlib import Path

import numpy as np

from tests.faults.children import PATIENCE, digest, start
from tests.faults.tally import NAMED, RIGHT, Tally, wrong
from tests.faults.victims import VICTIMS, opened


def company(folder: Path, trials: int, seed: int) -> Tally:
    """`trials` pairs of processes, which start at once or at most two seconds apart."""
    clock, total = np.random.default_rng(seed), Tally()
    programs = folder / "programs"
    expected = {}
    for trial in range(trials):
        name = list(VICTIMS)[trial % len(VICTIMS)]
        if name not in expected:
            alone = folder / f"alone {name}"
            start(name, alone, programs, folder / "said").join(PATIENCE)
            expected[name] = digest(opened(name, alone))
        store = folder / f"shared {trial}"
        outcomes = [folder / f"{trial} said {i}" for i in range(2)]
        processes = []
        for said in outcomes:
            processes.append(start(name, store, programs, said))
            time.sleep(clock.uniform(0, 2) if clock.random() < 0.5 else 0)
        for process in processes:
            process.join(PATIENCE)
        for said in outcomes:
            found = said.read_text()
            if found == expected[name]:
                total += RIGHT
            else:
                total += NAMED if "store is in use" in found else wrong(f"{name}: {found}")
        if digest(opened(name, store)) != expected[name]:
            total += wrong(f"{name}: other bits in {store}")
    return total
