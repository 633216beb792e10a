"""An ensemble and draws, the two kinds of runs, with what tests change in them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import statsgd
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
PROBLEM = linear_regression(INPUTS, INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24))
SGD = statsgd.SGD(0.05, Minibatch(4, "reshuffle"), 0.5)
LAW = HeavyBallGaussian([[2.0, 0.1], [0.1, 1.0]], [[0.3, 0.0], [0.0, 0.2]], 0.5, 0.5)


def norm(params):
    return jnp.sum(params**2)


def ensemble(store=None, problem=PROBLEM, dynamics=SGD, **changes):
    options = {
        "steps": 90,
        "replicas": 6,
        "seed": 3,
        "progress": False,
        "phases": 6,
        "observe": {"norm": norm},
        "observe_at": 5,
        "keep": [0, 40, 80],
    }
    return statsgd.simulate(problem, dynamics, store=store, **(options | changes))


def draws(store=None, law=LAW, kernel=None, **changes):
    options = {"warmup": 150, "draws": 300, "chains": 3, "seed": 5, "thinning": 2}
    kernel = MALA(step_size=0.4) if kernel is None else kernel
    return statsgd.sample(
        law, kernel, store=store, progress=False, diagnose=False, **(options | changes)
    )


class Case(NamedTuple):
    run: Callable[..., Any]
    stored: str
    """What a store of it is called."""
    grid: dict[str, Any]
    """Arguments that make a grid of it."""
    long: dict[str, Any]
    """Arguments that make it take some seconds."""


CASES = {
    "ensemble": Case(
        ensemble,
        "a stored ensemble",
        {"dynamics": statsgd.grid(SGD, momentum=[0.0, 0.5])},
        {"steps": 60_006, "observe_at": 1000, "keep": None},
    ),
    "draws": Case(
        draws,
        "stored draws",
        {"kernel": MALA(adapt_step_size=False), "grid": {"step_size": [0.1, 0.4]}},
        {"draws": 20_000},
    ),
}


def same(one, other):
    return set(one.children) == set(other.children) and all(
        one[group].to_dataset().equals(other[group].to_dataset()) for group in one.children
    )


def start(code: str, *arguments: str, **options: Any) -> subprocess.Popen:
    """A process that runs `code` on the CPU."""
    return subprocess.Popen(
        # With the same type checker, so that functions are the same.
        [sys.executable, "-c", f"import tests.conftest\n{code}", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        **options,
    )
