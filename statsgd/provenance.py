"""Where a result comes from: versions and settings, as attributes of its data tree."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

PACKAGES = ("statsgd", "jax", "numpyro", "numpy", "xarray")

_VERSION = "_version"  # attributes that end so say who wrote a result, not what is in it


def provenance(kind: str, *, identity: str | None = None, **settings: Any) -> dict[str, Any]:
    """Attributes for a data tree of this `kind`: versions, platform and JSON-coded `settings`.

    `identity` is the user's name for the code that is called. Nothing here depends on the time or
    place of a run, so that equal runs have equal attributes. Raises `ValueError` for an identity
    that is not a text.

    >>> provenance("ensemble", identity="my code 1", steps=100)["steps"]
    100
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    attributes: dict[str, Any] = {
        "kind": kind,
        "python_version": platform.python_version(),
        **{f"{name}_version": version for name, version in versions.items()},
    }
    if identity is not None:
        if not (isinstance(identity, str) and identity):
            raise ValueError(f"identity must be a name and version as text, got {identity!r}")
        attributes["identity"] = identity
    for name, value in settings.items():
        attributes[name] = value if isinstance(value, str | int | float) else json.dumps(value)
    return attributes


def settings_of(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """What the attributes of a result say of it, without the versions of who computed it.

    >>> settings_of(provenance("ensemble", steps=100, axes=["learning_rate"]))
    {'kind': 'ensemble', 'steps': 100, 'axes': ['learning_rate']}
    """
    found = {}
    for name, value in attributes.items():
        if not str(name).endswith(_VERSION):
            try:
                found[str(name)] = json.loads(value) if isinstance(value, str) else value
            except json.JSONDecodeError:
                found[str(name)] = value
    return found


def first_difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The dotted name of the first place where two descriptions differ, and both values there.

    >>> first_difference({"sgd": {"momentum": 0.9}}, {"sgd": {"momentum": 0.5}})
    ('sgd.momentum', 0.9, 0.5)
    """
    # As text, in which NaN equals itself, and 1 neither 1.0 nor true.
    if json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True):
        return None
    here, there = _parts(one), _parts(other)
    if here is None or there is None or (isinstance(one, list) and len(here) != len(there)):
        return path, one, other
    for name in dict.fromkeys([*here, *there]):
        below = f"{path}.{name}" if path else name
        found = first_difference(here.get(name), there.get(name), below)
        if found:
            return found
    return path, one, other


def _parts(value: Any) -> dict[str, Any] | None:
    """What a description is made of; lists of plain values are one."""
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return {str(i): part for i, part in enumerate(value)}
    return value if isinstance(value, dict) else None
