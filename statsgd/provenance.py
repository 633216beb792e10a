"""Where a result comes from: versions and settings, as attributes of its data tree."""

import importlib.metadata
import json
import platform
from typing import Any

PACKAGES = ("statsgd", "jax", "numpyro", "numpy", "xarray")


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
