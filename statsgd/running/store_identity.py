"""Whose store a directory is: made anew, opened again by the same run, or refused."""

import json
from pathlib import Path
from typing import Any

from statsgd.description import UNDESCRIBED, undescribed
from statsgd.provenance import first_difference, settings_of

_STORED = {  # kinds, in words
    "ensemble": "a stored ensemble",
    "draws": "stored draws",
    "sweep": "a stored sweep",
}
_LONGEST = 100  # characters of a value in an error


def open_store(path: Path, attributes: dict) -> Any:
    """The root of the Zarr store at `path` that belongs to the run with these `attributes`.

    Raises `ValueError` if `path` holds anything else: another configuration, by the name of the
    field that differs, or no such run at all; and for a run that cannot be described exactly and
    was given no identity. Nothing is overwritten then.
    """
    import zarr

    place = None if "identity" in attributes else undescribed(settings_of(attributes))
    if place is not None:
        raise ValueError(
            f"store needs identity='a name and version' to know this run again: {place}, "
            f"{UNDESCRIBED}"
        )
    wanted = f"store must be a new path or {_STORED[attributes['kind']]}, got "
    if _is_new(path, wanted):
        return zarr.open_group(str(path), mode="a", attributes=attributes)
    _require_same(path, wanted, attributes)
    for unfinished in path.rglob("*.partial"):  # of a process that was killed
        unfinished.unlink()
    return zarr.open_group(str(path), mode="r+")


def _is_new(path: Path, wanted: str) -> bool:
    if not path.exists():
        return True
    if not path.is_dir():
        raise ValueError(f"{wanted}file {path}")
    if (path / "zarr.json").exists():
        return False
    # A run killed while it made the store leaves at most an unfinished file.
    if all(item.suffix == ".partial" for item in path.iterdir()):
        return True
    raise ValueError(f"{wanted}{path}, which holds other files")


def _require_same(path: Path, wanted: str, attributes: dict) -> None:
    try:
        there = json.loads((path / "zarr.json").read_text()).get("attributes", {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"store {path} is damaged: zarr.json: {error}") from None
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
