"""What a study leaves behind: a report and a summary in a folder that belongs to one run."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import statsgd
from statsgd.reports import save


class OutputFolderError(ValueError):
    """The output folder holds something that is not this run."""


class Outcome(NamedTuple):
    """A finished study."""

    summary: str
    report: Path


def deliver(name: str, study: Any, config: Any) -> Outcome:
    """Run a study and write its report to `config.output`.

    The folder then holds `report.html`, `figures`, `summary.json`, `config.json`, the results as
    `results.zarr`, from which figures can be drawn again (`xarray.open_datatree`), and what the
    study's own `also(results, folder)` adds.

    A folder that holds another run (another study or other settings) is refused before anything
    is computed; a folder of the same run is written again, with the same content.
    """
    folder = Path(config.output)
    identity = {"study": name, "config": settings(config)}
    claim(folder, identity)
    require_writable(folder)
    results = study.run(config)
    results.attrs["study"] = name
    results.attrs["config"] = json.dumps(identity["config"])
    path = statsgd.report(results, folder / "report.html", files=True)
    save(results, folder / "results.zarr")
    (folder / "config.json").write_text(json.dumps(identity, indent=2) + "\n")
    if hasattr(study, "also"):
        study.also(results, folder)
    return Outcome(results.attrs["finding"], path.resolve())


def begin(name: str, config: Any) -> Path:
    """The output folder of a study that leaves results there as it goes, marked as its own."""
    folder = Path(config.output)
    identity = {"study": name, "config": settings(config)}
    claim(folder, identity)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(identity, indent=2) + "\n")
    return folder


def require_writable(folder: Path) -> None:
    """Raise `OutputFolderError` unless files can be written to `folder`. Nothing is left there."""
    probe = folder / ".writable"
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        for place in made:
            place.rmdir()
    except OSError as error:
        raise OutputFolderError(
            f"output must be a folder that can be written to, got {str(folder)!r}: {error}"
        ) from error


def settings(config: Any) -> dict[str, Any]:
    """Everything of `config` that results depend on, as the plain values that JSON keeps."""
    values = dataclasses.asdict(config)
    for name in ("output", "progress"):
        values.pop(name)
    return json.loads(json.dumps(values))


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Raise `OutputFolderError` if `folder` is in use by anything but the run `identity`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputFolderError(f"output must be a folder, got the file {str(folder)!r}")
    if not any(folder.iterdir()):
        return
    record = folder / "config.json"
    if not record.exists():
        raise OutputFolderError(
            f"output must be a new or empty folder or one of the same run, got {str(folder)!r}, "
            "which holds other files"
        )
    held = json.loads(record.read_text())
    if held == identity:
        return
    differing = [
        f"{key} = {held['config'].get(key)!r} there, {value!r} here"
        for key, value in identity["config"].items()
        if held["config"].get(key) != value
    ]
    if held["study"] != identity["study"]:
        differing.insert(0, f"study = {held['study']!r} there, {identity['study']!r} here")
    raise OutputFolderError(
        f"output must not be the folder of another run, got {str(folder)!r} "
        f"({'; '.join(differing)})"
    )
