"""Examples in docstrings (`>>>`) run, and give what they say."""

import doctest
import importlib
import inspect
import re

import pytest

from statsgd.laws import _FAMILIES

ROOMS = ["", ".problems", ".dynamics", ".noise", ".laws", ".kernels", ".measures", ".comparison",
         ".reports", ".sweeps", ".estimate", ".diagnosis", ".running",
         *(f".laws.{family}" for family in _FAMILIES)]  # fmt: skip
#: What has no example: why, or where it is shown.
WITHOUT = {
    "laws.grids.grid_law.GridLaw": "what `DiscreteChainLaw` and `FokkerPlanckLaw` have in common",
    "laws.overview.catalogue": "builds the examples of all laws; the page on laws prints it",
    "sweeps.distributed.Distributed": "needs a scheduler; shown with `sweep`",
    "sweeps.serial.Serial": "what `sweep` takes by itself",
}
#: Examples that take seconds, of what other tests run too.
SLOW = {"laws.overview.applicable", "kernels.wells.find_wells"}


def public():
    """Every function and class that users call, by where it is defined."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"statsgd{room}")
        for name in module.__all__:
            value = inspect.unwrap(getattr(module, name))
            if inspect.isfunction(value) or inspect.isclass(value):
                found[f"{value.__module__}.{value.__name__}"] = value
    return found


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name, value in sorted(public().items()):
        if name.startswith("statsgd."):
            module = importlib.import_module(value.__module__)
            for found in finder.find(value, name, module, globs=vars(module).copy()):
                if found.examples:
                    name = found.name.removeprefix("statsgd.")
                    yield pytest.param(
                        found, id=name, marks=[pytest.mark.slow] if name in SLOW else []
                    )


@pytest.mark.parametrize("example", list(examples()))
def test_examples_run(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = doctest.DocTestRunner().run(example, clear_globs=False)
    assert tried.attempted
    assert not tried.failed


def called(value):
    """Whether users call it themselves, rather than derive from it, catch it or be given it."""
    if inspect.isfunction(value):
        return True
    given = re.search(r"(made by|result of) `", value.__doc__, re.IGNORECASE)
    derived = inspect.isabstract(value) or issubclass(value, tuple | BaseException)
    return not (given or derived)


def shown(value):
    """Whether its docstring has an example, or that of what a class is made by."""
    made = vars(value).values() if inspect.isclass(value) else ()
    makers = [one.__func__ for one in made if isinstance(one, classmethod)]
    return any(">>>" in (one.__doc__ or "") for one in (value, *makers))


def test_whatever_users_call_is_shown():
    without = {
        name.removeprefix("statsgd.")
        for name, value in public().items()
        if name.startswith("statsgd.") and called(value) and not shown(value)
    }
    assert without == set(WITHOUT)
