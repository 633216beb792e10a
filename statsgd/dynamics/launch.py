"""Replicas at their starts, each with its own key: at rest, or as an ensemble left them."""

import contextlib
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PRNGKeyArray, PyTree, UInt32

from statsgd.dynamics.advance import Course, Motion, select
from statsgd.dynamics.grid import SettingsGrid
from statsgd.dynamics.origin import Origin
from statsgd.dynamics.sampling import bounded
from statsgd.dynamics.stages import state_shape
from statsgd.problems import Problem
from statsgd.problems.parameters import as_arrays, listed_numbers, require_real
from statsgd.problems.start import Start
from statsgd.running.blocks import Lanes
from statsgd.running.keys import pack, unpack, with_own_keys
from statsgd.running.random_stream import stream_key
from statsgd.running.stacked import Stacked


def launch(
    problem: Problem,
    settings: SettingsGrid,
    start: Any,
    *,
    replicas: int,
    seeds: Sequence[int],
    steps: int,
    phases: int = 1,
) -> Lanes:
    """All replicas of all cells, cell by cell: a `Motion` each, and a fixed `Course`.

    `start` is None, params or an `Origin`. `seeds` has one seed for all cells or one for each.
    """
    origin = start if isinstance(start, Origin) else None
    given = None if start is None or origin else _given_start(problem, start, replicas)
    motion = in_place = None
    if origin:
        motion = origin.motion(state_shape(problem, [settings]), settings.cells)
        in_place = origin.in_place([*seeds] * (settings.cells // len(seeds)))
    return _launched(
        problem,
        settings.stacked(),
        given,
        motion,
        in_place,
        np.array(seeds, dtype=np.uint32),
        np.int32(steps + (origin.steps if origin else 0)),
        cells=settings.cells,
        replicas=replicas,
        phases=phases,
    )


@eqx.filter_jit
def _launched(
    problem: Problem,
    settings: Stacked,
    given: PyTree | None,
    motion: Motion | None,
    in_place: Bool[Any, " lanes"] | None,
    seeds: UInt32[Any, " seeds"],
    steps: Int[Any, ""],
    *,
    cells: int,
    replicas: int,
    phases: int,
) -> Lanes:
    """One program: an operation at a time, each of some eighty would be compiled alone."""

    def of_seed(seed: UInt32[Any, ""]):
        # Fused into all that follows, it would be computed, and compiled, many times over.
        root = jax.lax.optimization_barrier(stream_key(seed))

        def keys(purpose: int):
            stream = jax.random.fold_in(root, purpose)
            return jax.vmap(jax.random.fold_in, (None, 0))(stream, jnp.arange(replicas))

        params = jax.vmap(problem.initial_params)(keys(1)) if given is None else given
        early = jax.vmap(lambda key: bounded(jax.random.bits(key, (), jnp.uint32), phases))(keys(2))
        return params, Course(keys(0), (steps - early).astype(jnp.int32)), keys(3)

    by_seed = [of_seed(seed) for seed in seeds]
    repeats = cells // len(by_seed)
    params, courses, own = jax.tree.map(lambda *leaves: jnp.concatenate(leaves * repeats), *by_seed)
    cell = jnp.repeat(jnp.arange(cells, dtype=jnp.int32), replicas)

    def at_rest(cell: Any, params: PyTree, key: PRNGKeyArray) -> Any:
        return with_own_keys(settings.cell(cell).init(problem, params), key)

    if motion is None:
        state = pack(jax.vmap(at_rest)(cell, params, own))
        return Lanes(Motion(state, jnp.full(len(cell), -1, dtype=jnp.int32)), courses, cell)
    # Keys that a state holds go on as they are only where all other random numbers do.
    anew = pack(jax.vmap(with_own_keys)(unpack(motion.state), own))
    return Lanes(motion._replace(state=select(in_place, motion.state, anew)), courses, cell)


def _given_start(problem: Problem, start: PyTree, replicas: int) -> PyTree:
    template, start = problem.template, listed_numbers(start)
    given: Any = jax.tree.structure(start)
    if given != jax.tree.structure(template):
        model = getattr(problem, "start", None)
        with contextlib.suppress(ValueError):  # it says below what is wrong with the start
            start = model.select(start) if isinstance(model, Start) else start
        given = jax.tree.structure(start)
    if given != jax.tree.structure(template):
        raise ValueError(
            f"start must have the structure of the problem's params, "
            f"{jax.tree.structure(template)}, got {given}"
        )
    require_real("start", start)
    start = as_arrays(start)
    start = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), start, template)
    leaves, wanted = jax.tree.leaves(start), jax.tree.leaves(template)
    pairs = list(zip(leaves, wanted, strict=True))
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
        raise ValueError("start must be finite, got NaN or infinite entries")
    if all(leaf.shape == like.shape for leaf, like in pairs):
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (replicas, *leaf.shape)), start)
    if all(leaf.shape == (replicas, *like.shape) for leaf, like in pairs):
        return start
    raise ValueError(
        f"start must have leaves of shape {[like.shape for like in wanted]}, with or without a "
        f"leading axis of {replicas} replicas, got {[leaf.shape for leaf in leaves]}"
    )
