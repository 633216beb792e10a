"""Whose store a directory is: made anew, opened again by the same run, or refused."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from statsgd.description import UNDESCRIBED, undescribed
from statsgd.provenance import first_difference, settings_of
from statsgd.running.integrity import Damaged, fingerprint
from statsgd.running.writing import sole_writer

_STORED = {  # kinds, in words
    "ensemble": "a stored ensemble",
    "diagnosis": "a stored diagnosis",
    "draws": "stored draws",
    "sweep": "a stored sweep",
}
_LONGEST = 100  # characters of a value in an error


@contextlib.contextmanager
def open_store(path: Path, attributes: dict) -> Iterator[Any]:
    """The root of the Zarr store at `path` that belongs to the run with these `attributes`.

    Nobody else may write to it inside of the block.

    Raises `ValueError` if `path` holds anything else: another configuration, by the name of the
    field that differs, or no such run at all; and for a run that cannot be described exactly and
    was given no identity. Nothing is overwritten then. Raises `StoreError` if it is in use.
    """
    import zarr

    place = None if "identity" in attributes else undescribed(settings_of(attributes))
    if place is not None:
        raise ValueError(
            f"store needs identity='a name and version' to know this run again: {place}, "
            f"{UNDESCRIBED}"
        )
    _is_new(path, attributes)
    path.mkdir(parents=True, exist_ok=True)
    with sole_writer(path):
        if _is_new(path, attributes):  # others may have made it meanwhile
            yield zarr.open_group(str(path), mode="a", attributes=attributes)
        else:
            for unfinished in path.rglob("*.partial"):  # of a process that was killed
                if unfinished.is_file():  # and not the folder of a variable of that name
                    unfinished.unlink()
            yield zarr.open_group(str(path), mode="r+")


def run_of(attributes: Mapping[str, Any]) -> str:
    """The fingerprint of the run with these attributes, whatever versions it was made with."""
    return fingerprint(settings_of(attributes))


def _is_new(path: Path, attributes: dict) -> bool:
    wanted = f"store must be a new path or {_STORED[attributes['kind']]}, got "
    if not path.exists():
        return True
    if not path.is_dir():
        raise ValueError(f"{wanted}file {path}")
    if (path / "zarr.json").exists():
        _require_same(path, wanted, attributes)
        return False
    # A run killed while it made the store leaves at most an unfinished file.
    if all(item.suffix == ".partial" for item in path.iterdir()):
        return True
    raise ValueError(f"{wanted}{path}, which holds other files")


def attributes_of(store: Path, name: str) -> dict[str, Any]:
    """The attributes in the file `name` of the Zarr store at `store`. Raises `Damaged`."""
    try:
        return dict(json.loads((store / name).read_bytes()).get("attributes", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise Damaged(store, name, error) from None


def _require_same(path: Path, wanted: str, attributes: dict) -> None:
    there = attributes_of(path, "zarr.json")
    if there.get("kind") != attributes["kind"]:
        raise ValueError(f"{wanted}{path}, which holds {there.get('kind', 'something else')!r}")
    found = first_difference(settings_of(there), settings_of(attributes))
    if found:
        name, theirs, ours = found
        raise ValueError(
            f"store {path} holds another configuration: {name} is {_short(theirs)} there and "
            f"{_short(ours)} here"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
