"""The compiled heart of an ensemble: every replica some steps further."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Bool, Int, PRNGKeyArray, PyTree
from tqdm.auto import tqdm

from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.processes import agreed
from statsgd.problems import Problem

type Observable = Callable[[PyTree], Any]

#: Steps between looks for divergence. Chunks are whole segments but for the last before an event,
#: so that results do not depend on how a run is cut.
SEGMENT = 16

_SECONDS_PER_CHUNK = 0.5  # how often progress shows, stores are written and Ctrl-C is heard


class Replicas(NamedTuple):
    """Runs in flight; every leaf has leading axes (block, lane), one lane for each replica."""

    state: Any
    key: PRNGKeyArray
    cell: Int[Any, "blocks size"]
    """Which cell of the grid, 0 where there is none."""
    ends_at: Int[Any, "blocks size"]
    """Step at which the run ends."""
    diverged_at: Int[Any, "blocks size"]
    """First step whose result was not finite, −1 if none."""


@eqx.filter_jit
def advance(
    parts: tuple[Dynamics, Dynamics],
    problem: Problem,
    flight: Replicas,
    steps: Int[Any, ""],
    *,
    ending: bool,
    mesh: Mesh,
) -> Replicas:
    """Every replica `steps` steps further.

    Blocks are advanced one after the other, so that their parameters and minibatches stay in cache.
    Looking at every step whether a replica has diverged would double the cost of small problems.
    So a segment of steps is run first, and only if it ends on something that is not finite is it
    run again, watched, for the replicas concerned. With `ending` every step is watched, for
    replicas that end at different steps.
    """
    varied, shared = parts

    def run_block(block: Replicas, steps) -> Replicas:
        settings = jax.tree.map(lambda leaf: jnp.asarray(leaf)[block.cell], varied)

        def one(setting, key, state):
            return eqx.combine(setting, shared).step(key, problem, state)

        def step(state):
            return jax.vmap(one)(settings, block.key, state)

        def watched_step(block: Replicas) -> Replicas:
            active = (block.diverged_at < 0) & (block.state.step < block.ends_at)
            moved = step(block.state)
            finite = _is_finite(moved.params)
            first = jnp.where(active & ~finite, block.state.step + 1, block.diverged_at)
            state = _select(active & finite, moved, block.state)
            return block._replace(state=state, diverged_at=first)

        def watched(block: Replicas, number) -> Replicas:
            return jax.lax.fori_loop(0, number, lambda _, block: watched_step(block), block)

        def unwatched(block: Replicas, number) -> Replicas:
            moved = jax.lax.fori_loop(0, number, lambda _, state: step(state), block.state)
            alive = block.diverged_at < 0
            finite = _is_finite(moved.params)
            state = _select(alive & finite, moved, block.state)
            return jax.lax.cond(
                jnp.any(alive & ~finite),
                lambda: _merge(alive & finite, state, watched(block, number)),
                lambda: block._replace(state=state),
            )

        def segment(i, block: Replicas) -> Replicas:
            number = jnp.minimum(SEGMENT, steps - i * SEGMENT)
            return (watched if ending else unwatched)(block, number)

        return jax.lax.fori_loop(0, -(-steps // SEGMENT), segment, block)

    spec = PartitionSpec("replica")
    # The loop counter starts out the same on every device, which shard_map's check would refuse.
    return jax.shard_map(
        lambda flight, steps: jax.lax.map(lambda block: run_block(block, steps), flight),
        mesh=mesh,
        in_specs=(spec, PartitionSpec()),
        out_specs=spec,
        check_vma=False,
    )(flight, steps)


def _is_finite(params: PyTree) -> Bool[Any, " size"]:
    finite = [
        jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
        for leaf in jax.tree.leaves(params)
    ]
    return functools.reduce(jnp.logical_and, finite)


def _select(which: Bool[Any, " size"], one: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(
        lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other
    )


def _merge(fine: Bool[Any, " size"], state: Any, watched: Replicas) -> Replicas:
    return watched._replace(
        state=_select(fine, state, watched.state),
        diverged_at=jnp.where(fine, -1, watched.diverged_at),
    )


@eqx.filter_jit
def observe(observables: dict[str, Observable], params: PyTree, *, mesh: Mesh) -> dict[str, Any]:
    """Every observable of every replica."""

    def observe_block(block):
        return {name: jax.vmap(function)(block) for name, function in observables.items()}

    spec = PartitionSpec("replica")
    return jax.shard_map(
        lambda blocks: jax.lax.map(observe_block, blocks),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
        check_vma=False,
    )(params)


def march(
    move: Callable[[Replicas, int, int], Replicas],
    flight: Replicas,
    events: Sequence[int],
    *,
    done: int,
    show: bool,
    processes: int = 1,
) -> Iterator[tuple[int, Replicas]]:
    """Move to each event in turn, and say where the replicas are after every chunk of steps.

    `move` takes the replicas, the step they are at and how many to take. Chunks are short enough
    for the progress bar and Ctrl-C, and the same in all of several processes.
    """
    if not events:
        return
    chunk, compiled = SEGMENT, False
    with tqdm(
        total=events[-1], initial=done, unit="step", desc="simulate", disable=not show
    ) as bar:
        for event in events:
            if done == event:
                yield done, flight
            while done < event:
                ask = agreed(min(chunk, event - done), processes)
                begin = time.perf_counter()
                flight = jax.block_until_ready(move(flight, done, ask))
                pace = (time.perf_counter() - begin) / ask
                if compiled:  # the first call compiles: its time says nothing about the next
                    wish = min(8 * chunk, int(_SECONDS_PER_CHUNK / pace))
                    chunk = max(1, wish // SEGMENT) * SEGMENT
                compiled = True
                done += ask
                bar.update(ask)
                yield done, flight
