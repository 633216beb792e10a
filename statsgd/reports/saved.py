"""Results on disk: what a report was made of, to be read and drawn again."""

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from statsgd.reports.results import as_tree

#: What each ending needs, and the extra that brings it.
_FORMATS = {".zarr": (("zarr",), "store"), ".nc": (("h5netcdf", "netCDF4"), "netcdf")}


def save(results: Any, path: str | os.PathLike[str]) -> Path:
    """Write `results`, anything that `report` takes, as a data tree in a file; returns its path.

    `xarray.open_datatree(path)` reads it back, with the attributes that say where it comes from.
    The ending of `path` says how it is written: `.zarr` or `.nc` (NetCDF). A file that is there is
    written anew.

    Raises `ValueError` for another ending, and where the package that writes it is not installed:
    the message names the extra.

    >>> import tempfile
    >>> from statsgd.estimate import Estimate
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     name = save({"width": Estimate(1.5, 0.1)}, f"{folder}/results.zarr").name
    >>> name
    'results.zarr'
    """
    target = Path(path)
    if target.suffix not in _FORMATS:
        raise ValueError(f"path must end in .zarr or .nc, got {target.name!r}")
    packages, extra = _FORMATS[target.suffix]
    if not any(importlib.util.find_spec(package) for package in packages):
        raise ValueError(
            f"{target.name!r} is written by the package {packages[0]}, which is not installed: "
            f'pip install "statsgd[{extra}]"'
        )
    tree = as_tree(results).map_over_datasets(_storable)
    tree.attrs = _plain(tree.attrs)
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Zarr is not sure yet how other programs will read text.
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        if target.suffix == ".zarr":
            tree.to_zarr(target, mode="w", consolidated=False)
        else:
            tree.to_netcdf(target)
    return target


def _storable(data: xr.Dataset) -> xr.Dataset:
    """The same without what files do not hold: objects are text, other attributes JSON."""
    changed = {
        name: (array.dims, np.asarray([str(one) for one in array.values.ravel()]).reshape(
            array.shape))
        for name, array in data.variables.items() if array.dtype.kind in "OT"
    }  # fmt: skip
    return data.assign(changed).assign_attrs(_plain(data.attrs))


def _plain(attributes: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return value
        return value if isinstance(value, str | int | float) else json.dumps(value)

    return {str(name): plain(value) for name, value in attributes.items()}
