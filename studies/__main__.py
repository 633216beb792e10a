"""`python -m studies` lists the studies; `python -m studies NAME [options]` runs one.

With `--quick` a study runs with settings that take less than a minute; options change them.
"""

import importlib
import os
import pkgutil
import sys

import jax
import tyro

import studies
from studies.outcome import Outcome, OutputFolderError, deliver


def names() -> list[str]:
    """Names of all studies, in alphabetical order: modules whose `Config` has an output folder."""
    modules = sorted(info.name for info in pkgutil.iter_modules(studies.__path__))
    return [name for name in modules if hasattr(getattr(load(name), "Config", None), "output")]


def load(name: str):
    """The module of a study."""
    return importlib.import_module(f"studies.{name}")


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: python -m studies NAME [--quick] [options]   (NAME --help lists the options)\n"
        )
        for name in names():
            print(f"  {name:24s} {(load(name).__doc__ or '').splitlines()[0]}")
        return 0
    name, *options = arguments
    quick = "--quick" in options
    options = [option for option in options if option != "--quick"]
    if name not in names():
        print(f"no study {name!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    study = load(name)
    # One XLA device runs small steps on one core. This must come before JAX computes anything,
    # and only a command may do it: importing never changes the user's devices.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    default = study.Config.quick() if quick else study.Config()
    config = tyro.cli(study.Config, args=options, default=default, prog=f"python -m studies {name}")
    try:
        outcome: Outcome = deliver(name, study, config)
    except (OutputFolderError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
    print(outcome.summary)
    print(f"\nreport: {outcome.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
