"""The diagnosis from the command line."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from statsgd.diagnosis.diagnose import diagnose
from statsgd.reports.report import report

_HELP = (
    "a Python file and the name of a function in it, my_file.py:make_problem, which takes no "
    "arguments and returns (problem, params, sgd), or (problem, params, sgd, checkpoints) with "
    "parameters saved every --steps steps of your own run"
)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Diagnose what a function of the user's makes, and write the report; returns its path."""
    parser = argparse.ArgumentParser(
        prog="python -m statsgd.diagnose",
        description="Curvature, noise, stability and the law of SGD at a checkpoint of your model.",
    )
    parser.add_argument("what", help=_HELP)
    parser.add_argument("--modes", type=int, default=32, help="leading modes (default 32)")
    parser.add_argument("--replicas", type=int, default=64, help="fresh replicas (default 64)")
    parser.add_argument("--steps", type=int, default=500, help="steps of each (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default 0)")
    parser.add_argument(
        "--no-learning-coefficient",
        action="store_true",
        help="leave out the local learning coefficient, often half of the time",
    )
    parser.add_argument("--store", help="folder to keep parts in, to go on from after a break")
    parser.add_argument("--identity", help="name and version of your code, for the store")
    parser.add_argument("--output", default="diagnosis.html", help="the report to write")
    parser.add_argument("--quiet", action="store_true", help="no progress, no cost estimate")
    asked = parser.parse_args(arguments)
    try:
        problem, params, sgd, checkpoints = made_by(asked.what)
        tree = diagnose(
            problem, params, sgd, modes=asked.modes, replicas=asked.replicas, steps=asked.steps,
            seed=asked.seed, store=asked.store, checkpoints=checkpoints, identity=asked.identity,
            learning_coefficient=not asked.no_learning_coefficient, progress=not asked.quiet,
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    path = report(tree, asked.output)
    for part in tree.children.values():
        if part.attrs["verdict"]:
            print(f"{part.attrs['title']}: {part.attrs['verdict']}")
    print(path)
    return path


def made_by(what: str) -> tuple[Any, Any, Any, Any]:
    """What the function `file.py:name` returns, checkpoints None where it returns none.

    Raises `ValueError` where there is no such function, or it returns something else.
    """
    file, _, name = what.rpartition(":")
    path = Path(file)
    if not (file and path.is_file()):
        raise ValueError(f"what must be file.py:function with a file that exists, got {what!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise ValueError(f"what must name a function in {file}, got {name!r}")
    made = getattr(module, name)()
    if not (isinstance(made, tuple) and len(made) in (3, 4)):
        raise ValueError(
            f"{name}() must return (problem, params, sgd) or these and checkpoints, got {made!r}"
        )
    problem, params, sgd, *checkpoints = made
    return problem, params, sgd, *(checkpoints or [None])
