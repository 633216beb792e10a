"""Disks that are full or may only be read: one clear error, and the same call goes on after it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.faults.tally import Tally, bits, judged
from tests.faults.victims import VICTIMS

_ENOUGH = "64m"


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system in memory at `place`. Raises `PermissionError` where none can be mounted."""
    place.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "statsgd-faults", str(place))
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PermissionError(f"file systems cannot be mounted here: {error}") from None


def disks(folder: Path, trials: int, seed: int) -> Tally:
    """Run victims on `trials` disks of random size: too small, read-only, large enough again."""
    rng, total = np.random.default_rng(seed), Tally()
    expected = {name: bits(run(folder / f"on a large {name}")) for name, run in VICTIMS.items()}
    for trial in range(trials):
        name = list(VICTIMS)[trial % len(VICTIMS)]
        run, place = VICTIMS[name], folder / "disk"
        pages = int(rng.integers(1, 60))
        stages = [
            (None, f"{name} on {4 * pages} kB", True),
            (f"remount,ro,size={_ENOUGH}", f"{name} begun, read-only", True),
            ("remount,rw", f"{name} with room again", False),
            ("remount,ro", f"{name} finished, read-only", False),
        ]
        with small_disk(place, f"{4 * pages}k"):
            for change, what, may_refuse in stages:
                if change is not None:
                    _mount("-o", change, str(place))
                one = judged(
                    what,
                    lambda run=run, place=place: run(place / "store"),
                    lambda tree, name=name: bits(tree) == expected[name],
                )
                if one.named and not may_refuse:
                    one = Tally(1, wrong=(f"{what}: refused",))
                total += one
    return total
