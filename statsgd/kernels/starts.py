"""Where chains start: what the user gave, as points of every chain of every cell."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from numpyro.infer.util import unconstrain_fn

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.wells import find_wells
from statsgd.laws import Law


def wells_to_start_in(
    targets: Sequence[Any], starts: Any, seed: int
) -> list[Float[Any, "wells d"]] | None:
    """The wells of the targets of all cells where `sample` was asked to start in them.

    Raises `ValueError` for another word, and for a target that is no law.
    """
    if not isinstance(starts, str):
        return None
    if starts != "wells" or not isinstance(targets[0], Law):
        raise ValueError(f"starts must be None, 'wells' (of a law) or values, got {starts!r}")
    return [find_wells(target, seed=seed) for target in targets]


def starting_points(
    targets: Sequence[Any], starts: Any, wells: Sequence[Any] | None, chains: int, seed: int
) -> Any:
    """Values of the latent sites where all chains start, cell by cell; None for none.

    `targets` are those of the cells, `starts` what `sample` was given, and `wells` those of
    `wells_to_start_in`.
    """
    if starts is None:
        key = jax.random.fold_in(jax.random.key(seed), chains)
        own = [t.starting_points(key, chains) if isinstance(t, Law) else None for t in targets]
        if any(points is None for points in own):
            return None
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)
    if wells is not None:
        given = [{"params": found} for found in wells]
    else:
        own_form = isinstance(starts, Mapping) or targets[0] is None
        given = [starts if own_form else {"params": starts}] * len(targets)
    dealt = [jax.tree.map(lambda leaf: _deal(leaf, chains), points) for points in given]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *dealt)


def _deal(leaf: Any, chains: int) -> np.ndarray:
    array = np.asarray(leaf, dtype=np.float64)
    if array.ndim == 0 or not array.size or not np.all(np.isfinite(array)):
        raise ValueError(
            f"starts must be finite, with a leading axis of points, got shape {array.shape}"
        )
    return array[np.arange(chains) % len(array)]


def unconstrained(kernel: LangevinKernel, key: Any, start: Any) -> PyTree:
    """Where a chain of `kernel` starts, in unconstrained space, given values of its sites."""
    latents = kernel._read_model(key, (), {}, kernel._init_strategy)
    wanted = {name: jnp.shape(value) for name, value in latents.items()}
    constrained = {name: jnp.asarray(value, float) for name, value in start.items()}
    if set(constrained) == set(wanted):
        position = unconstrain_fn(kernel.model, (), {}, constrained)
        if {name: value.shape for name, value in position.items()} == wanted:
            return position
    shapes = {name: value.shape for name, value in constrained.items()}
    raise ValueError(
        f"starts must have, after an axis of points, the latent sites {wanted}, got {shapes}"
    )
