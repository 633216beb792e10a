"""Where a result comes from: versions and settings, as attributes of its data tree."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

PACKAGES = ("statsgd", "jax", "numpyro", "numpy", "xarray")

_LISTED = 64  # arrays of up to this many numbers are written out, larger ones by their digest


def provenance(kind: str, **settings: Any) -> dict[str, Any]:
    """Attributes for a data tree of this `kind`: versions, platform and JSON-coded `settings`.

    Nothing here depends on the time or place of a run, so that equal runs have equal attributes.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    attributes: dict[str, Any] = {
        "kind": kind,
        "python_version": platform.python_version(),
        **{f"{name}_version": version for name, version in versions.items()},
    }
    for name, value in settings.items():
        attributes[name] = value if isinstance(value, str | int | float) else json.dumps(value)
    return attributes


def describe(value: Any) -> Any:
    """`value` as plain JSON values, different for values that compute different things.

    Modules become their name and fields, large arrays a digest of their bytes, functions their name
    and a digest of their code with everything they close over. A function's globals are not
    followed.
    """
    if isinstance(value, str | int | float | bool | None):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"name": type(value).__name__} | {name: describe(v) for name, v in fields.items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _describe_array(np.asarray(value))
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, types.MethodType):
        return {"function": value.__qualname__, "of": describe(value.__self__)}
    if callable(value):
        return _describe_function(value)
    return type(value).__name__


def _describe_array(array: np.ndarray) -> Any:
    if array.size <= _LISTED:
        return array.tolist()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _describe_function(function: Callable) -> Any:
    inner = getattr(function, "__wrapped__", getattr(function, "func", None))
    if inner is not None:  # a jitted function or a partial one
        return {"wrapped": describe(inner)} | {
            name: describe(getattr(function, name))
            for name in ("args", "keywords")
            if hasattr(function, name)
        }
    name = getattr(function, "__qualname__", getattr(function, "__name__", type(function).__name__))
    description: dict[str, Any] = {"function": f"{getattr(function, '__module__', '')}.{name}"}
    if isinstance(function, types.FunctionType):
        description["code"] = _digest(function.__code__)
        cells = map(_contents, function.__closure__ or ())
        closure = [
            item for item in (*cells, *(function.__defaults__ or ())) if item is not function
        ]
        if closure:
            description["closure"] = describe(closure)
    return description


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that the enclosing function never set
        return None


def _digest(code: types.CodeType) -> str:
    sha = hashlib.sha256(code.co_code)
    for constant in code.co_consts[bool(code.co_flags & _HAS_DOCSTRING) :]:
        if isinstance(constant, types.CodeType):
            sha.update(_digest(constant).encode())
        elif isinstance(constant, frozenset):
            sha.update(repr(sorted(map(repr, constant))).encode())
        else:
            sha.update(repr(constant).encode())
    sha.update(repr(code.co_names).encode())
    return sha.hexdigest()


_HAS_DOCSTRING = 0x4000000


def first_difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The dotted name of the first place where two descriptions differ, and both values there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(key for key in other if key not in one)]:
            below = f"{path}.{name}" if path else name
            found = first_difference(one.get(name), other.get(name), below)
            if found:
                return found
        return None
    return None if one == other else (path, one, other)
