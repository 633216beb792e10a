"""A study at many settings: `python -m studies NAME --sweep learning_rate=0.1,0.2 batch_size=1,4`.

Every combination is a cell of one `statsgd.sweep`, whose seed is the study's. Kept are the numbers
and words of the study's summary, and its finding.
"""

import dataclasses
import functools
import importlib
import json
import sys
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import xarray as xr
from tqdm.auto import tqdm

import statsgd
from statsgd.sweeps import Cell, Failure, IncompleteSweepWarning, Record
from studies.outcome import claim, settings

_NOT_SWEPT = ("output", "progress")
_TRUTH = {"true": True, "false": False}


def deliver(name: str, config: Any, assignments: Sequence[str], executor: str) -> int:
    """Run the sweep, print what comes, and return the exit status.

    In the folder `config.output` are `sweep.zarr`, which `statsgd.sweeps.read` reads at any moment,
    and `sweep.csv`, a row for each finished cell, written again after every cell. The same command
    goes on where a sweep was cut off.

    Raises `ValueError` for settings that the study has not, and `OSError` where the folder cannot
    be written or the scheduler not reached.
    """
    cells = axes(config, assignments)
    folder = Path(config.output)
    identity = {"study": name, "config": settings(config) | {"sweep": cells}}
    claim(folder, identity)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(identity, indent=2) + "\n")
    store = folder / "sweep.zarr"
    print(f"partial results: {folder / 'sweep.csv'}; statsgd.sweeps.read({str(store)!r})")

    def watch(cell: Cell, left: Record | Failure) -> None:
        tqdm.write(f"{_words(cell)}: {_headline(left)}", file=sys.stdout)
        write_table(store)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteSweepWarning)  # failures have been printed
        tree = statsgd.sweep(
            functools.partial(run_cell, name=name, base=base_of(config)),
            cells,
            store=store,
            seed=config.seed,
            executor=executor,
            progress=config.progress,
            watch=watch,
        )
    table = write_table(store)
    done = tree["cells"].done
    print(f"\n{int(done.sum())} of {done.size} cells: {table}")
    if bool(done.all()):
        return 0
    print("the others failed; the same command tries again", file=sys.stderr)
    return 1


def axes(config: Any, assignments: Sequence[str]) -> dict[str, list[Any]]:
    """Values along each axis, from texts such as `learning_rate=0.1,0.2`.

    Raises `ValueError` for what does not read so, and for what is no plain setting of `config`.
    """
    kinds = {
        name: kind
        for name, kind in typing.get_type_hints(type(config)).items()
        if kind in (int, float, bool, str) and name not in _NOT_SWEPT
    }
    found: dict[str, list[Any]] = {}
    for assignment in assignments:
        name, equals, values = assignment.partition("=")
        name = name.replace("-", "_")
        if not equals or not values:
            raise ValueError(f"--sweep must be NAME=VALUE,VALUE,… , got {assignment!r}")
        if name not in kinds:
            raise ValueError(f"--sweep must name one of {', '.join(kinds)}, got {name!r}")
        if name in found:
            raise ValueError(f"--sweep must name a setting once, got {name!r} again")
        found[name] = [_value(name, text, kinds[name]) for text in values.split(",")]
    return found


def _value(name: str, text: str, kind: type) -> Any:
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"--sweep {name} must be of type {kind.__name__}, got {text!r}") from None


def base_of(config: Any) -> Any:
    """`config` without what results do not depend on, which may differ from call to call."""
    return dataclasses.replace(config, output="", progress=False)


def run_cell(cell: Cell, *, name: str, base: Any) -> xr.Dataset:
    """The summary of one study, as a dataset."""
    changes = dict(cell.config)
    config = dataclasses.replace(base, **({"seed": cell.seed} | changes))
    results = importlib.import_module(f"studies.{name}").run(config)
    summary = flat(json.loads(results.attrs["summary"]))
    return xr.Dataset(summary | {"finding": results.attrs["finding"]})


def flat(summary: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested numbers and words by dotted names; numbers are floats, whatever they are."""
    found: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{name}.")
        elif isinstance(value, bool | str):
            found[above + name] = value
        else:
            found[above + name] = float("nan") if value is None else float(value)
    return found


def write_table(store: Path) -> Path:
    """Write `sweep.csv` beside the store, all at once."""
    tree = statsgd.sweeps.read(store)
    path = store.with_suffix(".csv")
    if "results" not in tree.children:
        return path
    frame: pandas.DataFrame = tree["results"].to_dataset().to_dataframe()
    done = tree["cells"].to_dataset()["done"].to_dataframe()["done"]
    unfinished = path.with_suffix(".csv.partial")
    frame[done].to_csv(unfinished)
    unfinished.replace(path)
    return path


def _words(cell: Cell) -> str:
    return ", ".join(f"{name}={value}" for name, value in cell.config.items())


def _headline(left: Record | Failure) -> str:
    if isinstance(left, Failure):
        return left.error.splitlines()[-1]
    _, finding = left.groups[""].variables["finding"]
    return str(finding[()]).splitlines()[0]
