"""What measures costs, and what keeps compiled programs: on little, and without timing anything."""

import importlib.util
import os
import re
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from statsgd.reports import sections
from studies import compiled, cost_by_size, first_calls
from studies.compilations import compilations
from studies.compiled import FOLDER, in_one_piece, keep_compiled
from studies.memory import peak_memory
from studies.real_network import Config

#: As JAX has it, while a test puts something in its place.
CONFIG = jax.config


def test_second_calls_compile_nothing():
    found = first_calls.once("hessian")
    assert found["programs"][1] == 0
    assert found["compiling"][1] == 0
    assert len(found["seconds"]) == 2


def test_the_time_of_compiling_is_a_part_of_that_of_a_call():
    x = np.arange(3.0)
    begin = time.perf_counter()
    with compilations() as found:
        jax.jit(lambda x: jnp.sin(x) + 7).lower(x).compile()
    assert found.programs == found() == 1
    assert 0 < found.seconds < time.perf_counter() - begin


def test_the_table_says_what_part_of_a_first_call_is_compiling(monkeypatch):
    numbers = {"seconds": [2.0, 0.125], "compiling": [1.5, 0.0], "programs": [7, 0]}
    filled = numbers | {"seconds": [0.75, 0.125], "compiling": [0.25, 0.0]}
    found = iter([numbers, numbers, filled])
    monkeypatch.setattr(first_calls, "in_a_process", lambda *_: next(found))
    table = first_calls.run(["simulate, a convolutional network"])
    assert table.iloc[0].to_list() == [
        "`simulate, a convolutional network`", "2", "1.5", "0.12", 7, 0, "0.75",
    ]  # fmt: skip
    assert table.columns[2] == "of it compiling (s)"


@pytest.mark.slow
def test_a_first_sample_compiles_few_programs():
    # In a process of its own: others may have compiled what it needs.
    found = first_calls.in_a_process("sample", {"JAX_ENABLE_COMPILATION_CACHE": "false"})
    assert 0 < found["programs"][0] <= 10
    assert found["programs"][1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets its mark of memory back")
def test_memory_is_that_of_what_is_done_and_not_of_what_was():
    ones(200 * 2**20)
    with peak_memory() as peak:
        ones(50 * 2**20)
        held = peak()
    assert 45 * 2**20 < held < 100 * 2**20


def ones(size):
    """So many bytes, for a moment."""
    assert np.ones(size, np.int8).all()


@pytest.fixture
def told(monkeypatch):
    """What `keep_compiled` tells JAX, in an environment that says nothing."""
    settings = {}
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(compiled.jax, "config", Told(settings))
    return settings


class Told:
    jax_compilation_cache_dir = None
    jax_enable_compilation_cache = True

    def __init__(self, settings):
        self.update = settings.__setitem__


def test_studies_keep_what_they_compile(told):
    keep_compiled()
    assert told["jax_compilation_cache_dir"] == str(FOLDER.resolve())
    assert told["jax_compilation_cache_max_size"] > 0
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(FOLDER.resolve())
    assert all(hasattr(CONFIG, name) for name in told)


@pytest.mark.parametrize("setting", ["environment", "configuration", "switched off", "no filelock"])
def test_settings_of_the_user_count(told, setting, monkeypatch):
    match setting:
        case "environment":
            os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
        case "configuration":
            compiled.jax.config.jax_compilation_cache_dir = "mine"
        case "switched off":
            compiled.jax.config.jax_enable_compilation_cache = False
        case "no filelock":
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    keep_compiled()
    assert not told


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "--xla_cpu_parallel_codegen_split_count=1 "),
        ("--xla_other=2", "--xla_cpu_parallel_codegen_split_count=1 --xla_other=2"),
        ("--xla_cpu_parallel_codegen_split_count=4", "--xla_cpu_parallel_codegen_split_count=4"),
    ],
)
def test_programs_are_compiled_in_one_piece_unless_the_user_says_otherwise(
    monkeypatch, given, expected
):
    monkeypatch.setenv("XLA_FLAGS", given)
    in_one_piece()
    assert os.environ["XLA_FLAGS"] == expected


def test_costs_are_those_of_a_step_of_a_replica():
    groups = {
        grows: xr.Dataset(
            {
                "seconds": ("size", 1e-9 * np.array([one.replicas * one.steps for one in sizes])),
                "memory": ("size", np.full(len(sizes), 10.0)),
            },
            coords={"size": [getattr(one, grows) for one in sizes]},
        )
        for grows, sizes in cost_by_size.SIZES.items()
    }
    found = xr.DataTree.from_dict(groups)
    tree = cost_by_size.charts(found)
    np.testing.assert_allclose(tree["cost"]["y"].values, 1.0)
    assert len(list(sections(tree))) == 1
    assert cost_by_size.table(found).count("| 1 ns | 10 MiB |") == tree["cost"]["y"].size


@pytest.mark.slow
def test_the_diagnosis_that_is_timed_is_that_of_its_settings(monkeypatch):
    asked = []

    def diagnose(problem, params, _, **options):
        asked.append((problem.loss(params), options))

    monkeypatch.setattr("statsgd.diagnose", diagnose)
    small: Any = {"examples": 40, "batch_size": 10, "large_batch": 20, "batch_sizes": (10,)}
    config = Config(progress=False, width=2, training=5, modes=2, replicas=8, steps=20, **small)
    said = cost_by_size.diagnosis(config)
    assert re.fullmatch(r"\d+ parameters, 2 modes, 8 replicas, 20 steps: \d+ s, \d+ MiB", said)
    ((loss, options),) = asked
    assert np.isfinite(loss)
    assert options == {"modes": 2, "replicas": 8, "steps": 20, "seed": 0, "progress": False}


@pytest.mark.slow
def test_processes_share_an_ensemble():
    taken = cost_by_size.over_processes((1, 2), cost_by_size.Size(replicas=50, steps=20))
    assert sorted(taken) == [1, 2]
    assert all(0 < seconds < 60 for seconds in taken.values())
