"""Examples in docstrings (`>>>`) run, and give what they say."""

import doctest
import importlib
import inspect

import pytest

import statsgd

ROOMS = ["", ".problems", ".dynamics", ".noise", ".laws", ".kernels", ".measures", ".comparison",
         ".reports", ".sweeps", ".estimate"]  # fmt: skip
#: What takes too long for its docstring; pages show how it is called, and are run.
LONG = {"diagnose"}
#: Examples that take seconds, of what other tests run too.
SLOW = {"laws.overview.applicable", "kernels.wells.find_wells"}


def public():
    """Every function and class that users call, by where it is defined."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"statsgd{room}")
        for name in getattr(module, "__all__", dir(module)):
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


def test_functions_at_the_top_have_one():
    functions = [name for name in dir(statsgd) if inspect.isfunction(getattr(statsgd, name))]
    without = {name for name in functions if ">>>" not in getattr(statsgd, name).__doc__}
    assert without == LONG
