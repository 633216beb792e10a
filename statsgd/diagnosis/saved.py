"""Numbers of a diagnosis on disk, part by part, so that it goes on where it was cut off."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from statsgd.running.store_identity import open_store


class Saved:
    """The parts that are done, in a folder or, without one, in memory alone."""

    def __init__(self, folder: Path | None):
        self._folder = folder

    def part(self, name: str, measure: Callable[[], xr.Dataset | None]) -> xr.Dataset | None:
        """What `measure` gives, read from the folder where it is there already."""
        if self._folder is None:
            return measure()
        place = self._folder / name
        if place.exists():
            with xr.open_zarr(place, consolidated=False) as kept:
                return kept.load() if kept.attrs.pop("measured", True) else None
        found = measure()
        aside = self._folder / f"{name}.unfinished"
        shutil.rmtree(aside, ignore_errors=True)
        kept = xr.Dataset(attrs={"measured": 0}) if found is None else found
        kept.to_zarr(aside, consolidated=False)
        aside.rename(place)
        return found

    @property
    def replicas(self) -> dict[str, Any]:
        """Options of `simulate` for the replicas."""
        return {} if self._folder is None else {"store": self._folder / "replicas"}


@contextlib.contextmanager
def saved_in(store: str | Path | None, attributes: dict[str, Any]) -> Iterator[Saved]:
    """The parts in `store`, a folder of the diagnosis with these attributes.

    Raises `ValueError` for a folder of anything else, and as the stores of `simulate`.
    """
    if store is None:
        yield Saved(None)
        return
    path = Path(store)
    with open_store(path, attributes):
        folder = path / "parts"
        folder.mkdir(exist_ok=True)
        yield Saved(folder)
