"""The most memory that a process holds while it does something."""

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_PROCESS = Path("/proc/self")


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Within it, a function that says how many bytes this process held at most, beyond its start.

    By the kernel's own mark, which is set back first: `getrusage` would count what was held
    before, even by the process that started this one. Elsewhere than on Linux that is all there is.
    """
    linux = sys.platform == "linux"
    if linux:
        (_PROCESS / "clear_refs").write_text("5")
    start = _resident("VmRSS") if linux else _highest()
    yield lambda: (_resident("VmHWM") if linux else _highest()) - start


def _resident(name: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _highest() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
