"""Examples in docstrings (`>>>`) run, and give what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "statsgd.checkpoints",
    "statsgd.posterior",
    "statsgd.comparison.compare",
    "statsgd.dynamics.ensemble",
    "statsgd.dynamics.grid",
    "statsgd.dynamics.sgd",
    "statsgd.estimate",
    "statsgd.kernels.runner",
    "statsgd.laws.overview",
    "statsgd.laws.minimum.gaussian",
    "statsgd.problems.problem",
    "statsgd.problems.minimum",
    "statsgd.problems.curvature",
    "statsgd.reports.report",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted
    assert not tried.failed
