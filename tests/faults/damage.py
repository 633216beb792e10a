"""Stores with each of their files truncated, missing or replaced by another run's, in turn."""

import functools
import shutil
import zlib
from pathlib import Path

import numpy as np

from tests.faults.tally import Tally, bits, judged
from tests.faults.victims import VICTIMS, opened

KINDS = ("truncated", "missing", "replaced")


def damaged_stores(folder: Path, trials: int | None, seed: int) -> Tally:
    """Open every victim's store again with one file damaged: all of them, or `trials` at random."""
    cases = []
    for name, run in VICTIMS.items():
        run(folder / name, seed=1)
        run(folder / f"other {name}", seed=2)
        files = sorted(f.relative_to(folder / name) for f in (folder / name).rglob("*"))
        cases += [(name, f, kind) for f in files if (folder / name / f).is_file() for kind in KINDS]
    rng = np.random.default_rng(seed)
    if trials is not None and trials < len(cases):
        cases = [cases[i] for i in rng.choice(len(cases), trials, replace=False)]
    expected = {name: bits(opened(name, folder / name)) for name in VICTIMS}
    total = Tally()
    for name, file, kind in cases:
        store = folder / "damaged"
        for reader in (True, False) if name == "sweep" else (False,):
            shutil.copytree(folder / name, store)
            _damage(store / file, folder / f"other {name}" / file, kind)
            what = f"{'read of ' * reader}{name}, {file} {kind}"
            again = functools.partial(opened, name) if reader else VICTIMS[name]
            total += judged(
                what,
                functools.partial(again, store),
                lambda tree, name=name: bits(tree.load()) == expected[name],
            )
            shutil.rmtree(store)
    return total


def _damage(file: Path, other: Path, kind: str) -> None:
    if kind == "missing":
        file.unlink()
    elif kind == "truncated":
        content = file.read_bytes()
        # Where it ends depends on its name alone.
        file.write_bytes(content[: zlib.crc32(str(file).encode()) % max(len(content), 1)])
    elif other.exists():
        shutil.copyfile(other, file)
    else:
        file.unlink()
