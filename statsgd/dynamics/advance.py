"""The compiled heart of an ensemble: every replica some steps further."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool, Int, PRNGKeyArray, PyTree

from statsgd.dynamics.schedule import Observable
from statsgd.problems import Problem
from statsgd.running.blocks import Lanes, over_blocks
from statsgd.running.keys import pack, unpack
from statsgd.running.stacked import Stacked

#: Steps between looks for divergence. Chunks are whole segments but for the last before an event,
#: so that results do not depend on how a run is cut.
SEGMENT = 16


class Motion(NamedTuple):
    """Where replicas are: what moves of their lanes."""

    state: Any
    """That of the dynamics."""
    diverged_at: Int[Any, "..."]
    """First step whose result was not finite, −1 if none."""


class Course(NamedTuple):
    """What is fixed for replicas from the start."""

    key: PRNGKeyArray
    ends_at: Int[Any, "..."]
    """Step at which the run ends."""


@eqx.filter_jit
def advance(
    settings: Stacked,
    problem: Problem,
    replicas: Lanes,
    steps: Int[Any, ""],
    *,
    ending: bool,
    mesh: Mesh,
) -> Lanes:
    """Every replica `steps` steps further; `replicas` are blocks.

    Looking at every step whether a replica has diverged would double the cost of small problems.
    So a segment of steps is run first, and only if it ends on something that is not finite is it
    run again, watched, for the replicas concerned. With `ending` every step is watched, for
    replicas that end at different steps.
    """

    def advance_block(block: Lanes, steps) -> Lanes:
        # A block is of one cell: its settings are single numbers, as in a run without a grid.
        dynamics, course = settings.cell(block.cell[0]), block.fixed

        def step(state):
            return jax.vmap(lambda key, state: dynamics.step(key, problem, state))(
                course.key, state
            )

        def watched_step(_, motion: Motion) -> Motion:
            active = (motion.diverged_at < 0) & (motion.state.step < course.ends_at)
            moved = step(motion.state)
            finite = _is_finite(moved.params)
            first = jnp.where(active & ~finite, motion.state.step + 1, motion.diverged_at)
            return Motion(select(active & finite, moved, motion.state), first)

        def watched(motion: Motion, number) -> Motion:
            return jax.lax.fori_loop(0, number, watched_step, motion)

        def unwatched(motion: Motion, number) -> Motion:
            moved = jax.lax.fori_loop(0, number, lambda _, state: step(state), motion.state)
            alive = motion.diverged_at < 0
            finite = _is_finite(moved.params)
            fine = Motion(select(alive & finite, moved, motion.state), motion.diverged_at)
            # No steps again where all is well: unlike a branch, that costs nothing where blocks
            # are run at once.
            again = watched(motion, jnp.where(jnp.any(alive & ~finite), number, 0))
            return select(alive & ~finite, again, fine)

        def segment(i, motion: Motion) -> Motion:
            number = jnp.minimum(SEGMENT, steps - i * SEGMENT)
            return (watched if ending else unwatched)(motion, number)

        motion = jax.lax.fori_loop(0, -(-steps // SEGMENT), segment, unpack(block.moving))
        return block._replace(moving=pack(motion))

    return over_blocks(advance_block, replicas, steps, mesh=mesh)


def _is_finite(params: PyTree) -> Bool[Any, " size"]:
    finite = [
        jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
        for leaf in jax.tree.leaves(params)
    ]
    return functools.reduce(jnp.logical_and, finite)


def select(which: Bool[Any, " size"], one: PyTree, other: PyTree) -> PyTree:
    """Lanes of `one` where `which` is true, else of `other`."""
    return jax.tree.map(
        lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other
    )


@eqx.filter_jit
def observe_replicas(
    observables: dict[str, Observable], params: PyTree, *, mesh: Mesh
) -> dict[str, Any]:
    """Every observable of every replica; leaves of `params` are blocks."""

    def observe_block(block):
        return {name: jax.vmap(function)(block) for name, function in observables.items()}

    return over_blocks(observe_block, params, mesh=mesh)
