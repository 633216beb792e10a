"""A grid of learning rates in one call, against a call for each of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression

_SPARED = 16


def contestants(
    *, cells: int, replicas: int, steps: int, examples: int
) -> dict[str, tuple[Callable[[], object], float]]:
    """Whole calls, and their work in steps of a replica: a call for each cell starts up each time.

    Programs that compile again are run for one learning rate in sixteen.
    """
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(examples, 8)).astype(np.float32)
    problem = linear_regression(inputs, rng.normal(size=examples).astype(np.float32))
    sgd = statsgd.SGD(0.01, Minibatch(8))
    rates = np.geomspace(1e-3, 0.1, cells)
    options: dict[str, Any] = {
        "steps": steps,
        "replicas": replicas,
        "seed": 0,
        "progress": False,
        "devices": jax.devices(),
    }

    def ends(dynamics):
        return statsgd.simulate(problem, dynamics, **options)["endpoints"].params.values

    def together():
        return ends(statsgd.grid(sgd, learning_rate=rates))

    def apart():
        return [ends(dataclasses.replace(sgd, learning_rate=rate)) for rate in rates]

    def afresh():
        """As programs whose learning rate is a constant: each is compiled again."""
        found = []
        for rate in rates[::_SPARED]:
            jax.clear_caches()
            found.append(ends(dataclasses.replace(sgd, learning_rate=rate)))
        return found

    work = float(cells * replicas * steps)
    return {
        "statsgd": (together, work),
        "a run for each": (apart, work),
        "a program for each": (afresh, work * len(rates[::_SPARED]) / cells),
    }
