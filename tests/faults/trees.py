"""Parameters of any shape and name: the store gives back what memory holds, to the bit."""

import functools
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import statsgd
from statsgd.ensembles import endpoint_trajectories
from tests.faults.fuzz import explored
from tests.faults.tally import Tally, bits, judged

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b.c", "x/y", "..", ".", "%2F", "zarr.json", "__own", "replica", "step", "c", "0",
         "params", "é", "漢字", "A", "<b>", "a b", "", "\n", "\x00", "\\", "*", "?", "con", "-",
         "x" * 300, "\ud800", "learning_rate", "params_dim_0", "a_dim_0", ".partial", "x.partial"]
    ),
    st.text(max_size=5),
)  # fmt: skip
LEAVES = st.sampled_from([(), (1,), (3,), (0,), (2, 0), (2, 3), (1, 1, 2)])
TREES = st.recursive(
    LEAVES,
    lambda below: st.one_of(
        st.dictionaries(NAMES, below, min_size=1, max_size=4),
        st.lists(below, min_size=1, max_size=3),
        st.tuples(below, below),
    ),
    max_leaves=8,
)
MANY = [()] * 15
DEEP = functools.reduce(lambda inside, _: {"x": inside}, range(60), (2,))
CASES = st.one_of(TREES, TREES, TREES, st.sampled_from([MANY, DEEP]))


def trees(folder: Path, trials: int, seed: int) -> Tally:
    """Run ensembles of `trials` trees of parameters."""
    return explored(CASES, lambda case: _judge(folder / "tree", case), trials, seed)


def loss(params: Any) -> Any:
    return sum((jnp.sum((leaf - 1) ** 2) / 2 for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def filled(case: Any) -> Any:
    """The tree with leaves of these shapes."""

    def is_shape(node: Any) -> bool:
        return isinstance(node, tuple) and all(isinstance(n, int) for n in node)

    return jax.tree.map(np.zeros, case, is_leaf=is_shape)


def _judge(store: Path, case: Any) -> Tally:
    shutil.rmtree(store, ignore_errors=True)
    start = filled(case)

    def run() -> Any:
        problem = statsgd.problems.landscape(loss, start)
        sgd = statsgd.SGD(0.25, statsgd.noise.NoNoise(), 0.5)
        options = {"steps": 3, "replicas": 2, "seed": 0, "keep": [1, 3], "progress": False}
        memory = statsgd.simulate(problem, sgd, **options)
        stored = statsgd.simulate(problem, sgd, store=store, **options)
        again = statsgd.simulate(problem, sgd, store=store, **options)
        if not bits(memory) == bits(stored) == bits(again):
            raise AssertionError("the store holds something else")
        return endpoint_trajectories(stored, problem.names).params

    def is_right(flat: np.ndarray) -> bool:
        # θ ← θ − m/4, m ← m/2 + θ − 1 from 0: 1/4, 9/16, 53/64 by hand.
        number = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(start))
        return flat.shape == (2, 1, number) and bool(np.all(flat == 53 / 64))

    return judged(repr(case)[:300], run, is_right)
