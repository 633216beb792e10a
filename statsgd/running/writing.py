"""Writing to a store: one process at a time, and one clear error where it cannot be done."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PATIENCE = 10.0  # seconds that a process waits for another, which may only be reading
_INTERVAL = 0.05


class StoreError(OSError):
    """A store cannot be written: its disk is full, say, or it may only be read, or is in use."""


@contextlib.contextmanager
def writing(path: Path, kept: Callable[[], str]) -> Iterator[None]:
    """Raise `StoreError` for what the system says of a write; `kept` is what the store holds."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            error.errno,
            f"cannot write to the store: {error.strerror or error}; it keeps {kept()}, and the "
            "same call goes on from there",
            str(path),
        ) from error


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the folder `path`, which other processes and calls that want it wait for.

    The system lets go of it when this process ends, however that happens. Where it cannot lock
    folders, as on some network file systems, nobody is kept out.

    Raises `StoreError` if it is still in use after some seconds.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # not on Windows
        yield
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise StoreError(
                        error.errno,
                        "store is in use by another call, in this process or another; it goes on "
                        "when that has ended",
                        str(path),
                    ) from None
                time.sleep(_INTERVAL)
            except OSError:
                break
        yield
    finally:
        os.close(folder)
