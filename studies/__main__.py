"""`python -m studies` lists the studies; `python -m studies NAME [options]` runs one."""

import dataclasses
import importlib
import os
import pkgutil
import sys
from typing import Annotated, Any

import jax
import tyro

import studies
from studies import sweeping
from studies.outcome import Outcome, OutputFolderError, deliver


def names() -> list[str]:
    """Names of all studies, in alphabetical order: modules whose `Config` has an output folder."""
    modules = sorted(info.name for info in pkgutil.iter_modules(studies.__path__))
    return [name for name in modules if hasattr(getattr(load(name), "Config", None), "output")]


def load(name: str):
    """The module of a study."""
    return importlib.import_module(f"studies.{name}")


def command(settings: type) -> type:
    """The options of a study: its settings, and how to sweep over them."""
    sweep_help = "Run every combination of these settings: NAME=VALUE,VALUE,…"
    executor_help = "Of a sweep: serial, processes, or the address of a dask scheduler."
    return dataclasses.make_dataclass(
        "Options",
        [
            ("config", settings),
            (
                "sweep",
                Annotated[tuple[str, ...], tyro.conf.arg(help=sweep_help)],
                dataclasses.field(default=()),
            ),
            (
                "executor",
                Annotated[str, tyro.conf.arg(help=executor_help)],
                dataclasses.field(default="serial"),
            ),
        ],
    )


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m studies NAME [options]      (NAME --help lists the options)\n")
        for name in names():
            print(f"  {name:24s} {(load(name).__doc__ or '').splitlines()[0]}")
        return 0
    name, *options = arguments
    if name not in names():
        print(f"no study {name!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    study = load(name)
    # One XLA device runs small steps on one core. This must come before JAX computes anything,
    # and only a command may do it: importing never changes the user's devices.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    given: Any = tyro.cli(
        command(study.Config),
        args=options,
        prog=f"python -m studies {name}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        if given.sweep:
            return sweeping.deliver(name, given.config, given.sweep, given.executor)
        outcome: Outcome = deliver(name, study, given.config)
    except (OutputFolderError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        left = "the same command goes on" if given.sweep else "nothing was written"
        print(f"\ninterrupted: {left}", file=sys.stderr)
        return 130
    print(outcome.summary)
    print(f"\nreport: {outcome.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
