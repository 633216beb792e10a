"""What the sweeps of the tests run: importable, as worker processes need."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import xarray as xr

AXES = {"rate": [0.1, 0.2, 0.4], "word": ["a", "bb"]}


def draw(cell):
    """A few numbers of the cell's own, of several types."""
    numbers = np.asarray(jax.random.normal(cell.key, (3,)))
    return xr.Dataset(
        {
            "numbers": ("place", numbers * cell["rate"]),
            "sum": float(cell["rate"]) + len(cell["word"]),
            "count": cell.seed,
            "positive": ("place", numbers > 0),
            "said": cell["word"] * 2,
        },
        coords={"place": [2, 4, 8]},
    )


def log(folder, cell):
    """Say on disk that `cell` was started, for counting."""
    with (Path(folder) / f"{cell.index}").open("a") as file:
        file.write("x")


def starts(folder, cells):
    return [len((Path(folder) / f"{i}").read_text()) for i in range(cells)]


@dataclasses.dataclass(frozen=True)
class Troubled:
    """Draws, but some cells come to harm as long as their files are there."""

    folder: str

    def __call__(self, cell):
        log(self.folder, cell)
        if (Path(self.folder) / f"raise {cell.index}").exists():
            raise FloatingPointError(f"no result at {cell.index}")
        if (Path(self.folder) / f"die {cell.index}").exists():
            (Path(self.folder) / f"die {cell.index}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (Path(self.folder) / f"always die {cell.index}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (Path(self.folder) / "slow").exists():
            time.sleep(4.0)
        patience = time.monotonic() + 60
        while (Path(self.folder) / f"hold {cell.index}").exists() and time.monotonic() < patience:
            time.sleep(0.05)
        return draw(cell)


def same(one, other):
    return all(
        one[group].to_dataset().identical(other[group].to_dataset())
        for group in ("cells", "results")
    )


def where(cell) -> xr.Dataset:
    """The process that a cell runs in, for a fifth of a second."""
    time.sleep(0.2)
    return xr.Dataset({"process": os.getpid()})
