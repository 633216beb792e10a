"""`python -m studies` lists the studies; `python -m studies NAME [options]` runs one.

With `--quick` a study runs with settings that take less than a minute; options change them.
`python -m studies all [--quick]` runs every study, and writes a gallery of what was found and how
long each study took, `times.csv` beside it.
"""

import csv
import dataclasses
import importlib
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

import studies
from statsgd.reports import gallery
from studies import sweeping
from studies.compiled import keep_compiled
from studies.outcome import Outcome, OutputFolderError, deliver

_QUICK = "--quick: settings that take about a minute; the options below change them."
_USAGE = """usage: python -m studies NAME [--quick] [options]    (NAME --help lists the options)
       python -m studies all [--quick]"""


def names() -> list[str]:
    """Names of all studies, in alphabetical order.

    Modules with a `run`, and a `Config` that has a folder for the report: the race has settings,
    and no report.
    """
    modules = sorted(info.name for info in pkgutil.iter_modules(studies.__path__))
    return [name for name in modules if _is_study(load(name))]


def _is_study(module: Any) -> bool:
    return hasattr(getattr(module, "Config", None), "output") and callable(
        getattr(module, "run", None)
    )


def load(name: str):
    """The module of a study."""
    return importlib.import_module(f"studies.{name}")


def folder(name: str, quick: bool) -> Path:
    """Where a study leaves its report unless it is told otherwise."""
    return Path("results", "quick", name) if quick else Path("results", name)


def command(default: Any) -> type:
    """The options of a study: its settings from `default`, and how to sweep over them.

    A study that has an executor of its own is a sweep already.
    """
    fields: list[Any] = [("config", type(default), dataclasses.field(default=default))]
    if not hasattr(default, "executor"):
        sweep = tyro.conf.arg(help="Run every combination of these settings: NAME=VALUE,VALUE,…")
        executor = tyro.conf.arg(
            help="Of a sweep: serial, processes, or the address of a dask scheduler."
        )
        fields += [
            ("sweep", Annotated[tuple[str, ...], sweep], dataclasses.field(default=())),
            ("executor", Annotated[str, executor], dataclasses.field(default="serial")),
        ]
    return dataclasses.make_dataclass("Options", fields)


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{_USAGE}\n")
        for name in names():
            print(f"  {name:24s} {(load(name).__doc__ or '').splitlines()[0]}")
        return 0
    name, *options = arguments
    quick = "--quick" in options
    options = [option for option in options if option != "--quick"]
    if name == "all":
        if options:
            print(f"all takes no options but --quick, got {' '.join(options)}", file=sys.stderr)
            return 2
        return run_all(quick)
    if name not in names():
        print(f"no study {name!r}; there are: {', '.join(names())}, all", file=sys.stderr)
        return 2
    return run_one(name, options, quick)


def run_one(name: str, options: list[str], quick: bool) -> int:
    """Run one study with the options of its `Config`."""
    study = load(name)
    # One XLA device runs small steps on one core. This must come before JAX computes anything,
    # and only a command may do it: importing never changes the user's devices.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    default = study.Config.quick() if quick else study.Config()
    default = dataclasses.replace(default, output=str(folder(name, quick)))
    given: Any = tyro.cli(
        command(default),
        args=options,
        prog=f"python -m studies {name}",
        description=f"{(study.__doc__ or '').strip()}\n\n{_QUICK}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    swept = getattr(given, "sweep", ())
    try:
        if swept:
            return sweeping.deliver(name, given.config, swept, given.executor)
        outcome: Outcome = deliver(name, study, given.config)
    except (OutputFolderError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = swept or (Path(given.config.output) / "config.json").exists()
        left = "the same command goes on from what is kept" if kept else "nothing was written"
        print(f"\ninterrupted: {left}", file=sys.stderr)
        return 130
    print(outcome.summary)
    print(f"\nreport: {outcome.report}")
    return 0


def run_all(quick: bool) -> int:
    """Run every study in a process of its own, and write the gallery; returns how many failed.

    A study that fails does not stop the others: the gallery shows its error. How long each took,
    imports and the report included, stands in the gallery and in `times.csv` beside it.
    """
    done: dict[str, Path] = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in names():
        print(f"— {name}", flush=True)
        command = [sys.executable, "-m", "studies", name, "--no-progress"]
        begin = time.perf_counter()
        try:
            result = subprocess.run(
                [*command, "--quick"] if quick else command,
                stdout=sys.stdout, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        except KeyboardInterrupt:
            print("\ninterrupted: no gallery was written", file=sys.stderr)
            return 130
        seconds[name] = time.perf_counter() - begin
        if result.returncode == 0:
            done[name] = folder(name, quick)
        else:
            failed[name] = result.stderr[-2000:]
            print(result.stderr, file=sys.stderr)
    title = "Claims about SGD's stationary laws, put to the test"
    where = folder("gallery.html", quick)
    page = gallery(done, where, title=title, failed=failed, seconds=seconds)
    write_times(page.with_name("times.csv"), seconds, failed)
    for name, taken in {**seconds, "all": sum(seconds.values())}.items():
        print(f"{name:24s} {taken:8.0f} s{'  failed' if name in failed else ''}")
    print(f"\ngallery: {page.resolve()}")
    return len(failed)


def write_times(path: Path, seconds: dict[str, float], failed: Collection[str]) -> None:
    """A row for every study: its name, the seconds it took, and whether it ended well."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["study", "seconds", "ended"])
        for name, taken in seconds.items():
            rows.writerow([name, f"{taken:.1f}", "failed" if name in failed else "well"])


if __name__ == "__main__":
    keep_compiled()
    sys.exit(main(sys.argv[1:]))
