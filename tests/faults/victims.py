"""What faults befall: an ensemble of several leaves on a grid, draws on a grid, and a sweep.

Importing this starts no JAX backend, so that processes can be forked from one that did.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import statsgd
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian
from statsgd.running import chunks, storage

AXES = {"rate": [0.05, 0.1, 0.2, 0.4], "word": ["a", "bb", "ccc"]}


def loss(params, example):
    hidden = jnp.tanh(params["layer"]["weight"] @ example[0] + params["layer"]["bias"])
    return 0.5 * (params["scale"] * hidden.sum() - example[1]) ** 2


def sum_of_squares(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def scale(params):
    return params["scale"]


@functools.cache
def problem() -> Any:
    rng = np.random.default_rng(3)
    start = {
        "layer": {"weight": rng.normal(size=(2, 3)), "bias": np.zeros(2)},
        "scale": 1.0,
        "none": np.zeros((0, 2)),
    }
    examples = rng.normal(size=(16, 3)), rng.normal(size=16)
    return statsgd.problems.empirical_risk(loss, examples, start)


def ensemble(store: Any, seed: int = 1, long: bool = False) -> xr.DataTree:
    sgd = statsgd.SGD(0.05, statsgd.noise.Minibatch(4), 0.5)
    steps = 6000 if long else 60
    return statsgd.simulate(
        problem(),
        statsgd.grid(sgd, learning_rate=[0.02, 0.05], momentum=[0.0, 0.5]),
        steps=steps,
        replicas=5,
        seed=seed,
        phases=4,
        observe={"square": sum_of_squares, "scale": scale},
        observe_at=steps // 60,
        keep=steps // 12,
        store=store,
        progress=False,
    )


@functools.cache
def law() -> Any:
    return HeavyBallGaussian([[2.0, 0.1], [0.1, 1.0]], [[0.3, 0.0], [0.0, 0.2]], 0.5, 0.5)


def draws(store: Any, seed: int = 1, long: bool = False) -> xr.DataTree:
    return statsgd.sample(
        law(),
        MALA(adapt_step_size=False),
        grid={"step_size": [0.1, 0.4]},
        warmup=50,
        draws=6000 if long else 60,
        chains=3,
        seed=seed,
        diagnose=False,
        store=store,
        progress=False,
    )


def cell_result(cell: Any) -> xr.DataTree:
    numbers = np.random.default_rng(cell.seed).normal(size=(20, 3)) * cell["rate"]
    told = xr.Dataset(
        {
            "numbers": (("row", "place"), numbers),
            "positive": (("row", "place"), numbers > 0),
            "said": cell["word"] * 2,
            "zero": 0,
        },
        coords={"place": [2, 4, 8]},
    )
    return xr.DataTree.from_dict({"told": told, "told/more": xr.Dataset({"seed": cell.seed})})


def swept(store: Any, seed: int = 1, long: bool = False) -> xr.DataTree:
    axes = AXES | ({"repeat": list(range(6))} if long else {})
    return statsgd.sweep(cell_result, axes, store=store, seed=seed, progress=False)


VICTIMS: dict[str, Callable[..., xr.DataTree]] = {
    "simulate": ensemble,
    "sample": draws,
    "sweep": swept,
}


def opened(name: str, store: Path) -> xr.DataTree:
    """What the finished store of a victim holds."""
    if name == "sweep":
        return statsgd.sweeps.read(store).load()
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        return tree.drop_nodes("checkpoint").load()


def write_often() -> None:
    """Short chunks with a checkpoint after each, so that most moments are those of a write."""
    chunks._SECONDS_PER_CHUNK = 0.02
    storage._SHARE_OF_TIME = np.inf
