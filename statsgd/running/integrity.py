"""Whether the files of a store are those that its run wrote, told by check sums.

Zarr reads a chunk that is not there as blank, and one of another run as if it were its own. So a
store keeps the check sums of what was written, beside the fingerprint of the run.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Damaged(ValueError):
    """A store does not hold what its run wrote; the message names the place."""

    def __init__(self, store: Path, place: str, what: object, advice: str = ""):
        super().__init__(f"store {store} is damaged: {place}: {what}{advice and '; '}{advice}")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """The same for equal settings of a run."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def sum_of_values(array: np.ndarray, axis: int, before: int = 0) -> int:
    """Check sum of `array` along `axis`, going on from the sum of what lies `before` it."""
    return zlib.crc32(np.ascontiguousarray(np.moveaxis(array, axis, 0)), before)


def sum_of_files(files: Iterable[Path]) -> int:
    """Check sum of the contents of `files`, of which some may not be there."""
    total = 0
    for file in files:
        content = file.read_bytes() if file.is_file() else None
        total = zlib.crc32(repr(content and len(content)).encode(), total)
        total = zlib.crc32(content or b"", total)
    return total


def sums_of_folders(store: Path, folders: Iterable[str]) -> dict[str, int]:
    """Check sum of every file in `folders` of `store`, by its path there."""
    files = [file for folder in folders for file in (store / folder).rglob("*") if file.is_file()]
    return {file.relative_to(store).as_posix(): sum_of_files([file]) for file in sorted(files)}


def require_intact(store: Path, sums: Mapping[str, int]) -> None:
    """Raise `Damaged` unless all files are there with these check sums."""
    for name, total in sums.items():
        if not (store / name).is_file():
            raise Damaged(store, name, "it is missing")
        if sum_of_files([store / name]) != total:
            raise Damaged(store, name, "its content is not what was written")
