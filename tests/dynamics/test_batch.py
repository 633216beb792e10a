"""Batches: cells that need not be all combinations, each with a seed of its own."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.noise import Isotropic, Minibatch
from statsgd.problems import linear_regression

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
PROBLEM = linear_regression(INPUTS, INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24))
NOISE = Minibatch(4, "reshuffle")
SETTINGS = [
    statsgd.SGD(0.02, NOISE, 0.9),
    statsgd.SGD(0.05, NOISE, 0.9),
    statsgd.SGD(0.05, NOISE, 0.9, 0.1),
]
SEEDS = [3, 7, 3]


def run(dynamics, seed, **options):
    common = {"steps": 30, "replicas": 5, "progress": False, "keep": [8, 24], "phases": 6}
    observe = {"norm": jnp.linalg.norm}
    return statsgd.simulate(PROBLEM, dynamics, seed=seed, observe=observe, **(common | options))


def test_cells_equal_separate_runs_of_their_seeds_bit_for_bit(tmp_path):
    together = run(statsgd.batch(SETTINGS), SEEDS, store=tmp_path / "store")
    assert together["endpoints"].params.dims[:2] == ("cell", "replica")
    for cell, (dynamics, seed) in enumerate(zip(SETTINGS, SEEDS, strict=True)):
        alone = run(dynamics, seed)
        for group in alone.children:
            one = together[group].to_dataset().isel(cell=cell, drop=True)
            assert one.equals(alone[group].to_dataset()), (cell, group)
    # One seed for all: the cells that differ in nothing else still share their random numbers.
    shared = run(statsgd.batch([SETTINGS[1]] * 2), 7)["endpoints"].params
    np.testing.assert_array_equal(shared[0], shared[1])
    np.testing.assert_array_equal(shared[1], together["endpoints"].params[1])


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_batched_is_said():
    with pytest.raises(ValueError, match="at least one dynamics"):
        statsgd.batch([])
    for other in (
        dataclasses.replace(SETTINGS[0], noise=Minibatch(8, "reshuffle")),
        statsgd.SGD(0.1, Isotropic(1.0)),
    ):
        with pytest.raises(ValueError, match="settings must differ in traced numbers only, got"):
            statsgd.batch([SETTINGS[0], other])
    batch = statsgd.batch(SETTINGS)
    with pytest.raises(ValueError, match="seed must be one number or one for each of 3 cells"):
        run(batch, [1, 2])
    with pytest.raises(ValueError, match="seed must be at least 0, got -2"):
        run(batch, [1, -2, 3])
