"""Ensembles: many independent runs of one dynamics, compiled once and advanced in host-side chunks.

Replicas live in blocks of `block_size`. A block runs a whole chunk of steps before the next one
starts, so that its parameters and gathered minibatches stay in cache. The number of steps of a
chunk is traced: chunks of any length share one compilation, and a progress bar costs nothing.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Int, PRNGKeyArray, PyTree
from tqdm.auto import tqdm

from statsgd.arguments import count
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.random_stream import stream_key
from statsgd.problems import Problem
from statsgd.problems.parameters import as_arrays, leaf_names
from statsgd.provenance import provenance

type Observable = Callable[[PyTree], Any]

_SECONDS_PER_CHUNK = 0.5  # how often progress shows and Ctrl-C is heard
_DEFAULT_OBSERVATIONS = 128


class Replicas(NamedTuple):
    """Runs in flight; every leaf has leading axes (block, replica within block)."""

    state: Any
    key: PRNGKeyArray
    diverged_at: Int[Any, "blocks size"]


def simulate(
    problem: Problem,
    dynamics: Dynamics,
    *,
    steps: int,
    replicas: int,
    seed: int,
    start: PyTree | None = None,
    observe: Mapping[str, Observable] | None = None,
    observe_at: int | Sequence[int] | None = None,
    keep: int | Sequence[int] | None = None,
    progress: bool = True,
    allow_unstable: bool = False,
    block_size: int = 64,
    devices: Sequence[jax.Device] | None = None,
) -> xr.DataTree:
    """Run `replicas` independent copies of `dynamics` on `problem` for `steps` steps.

    The result is a function of the arguments and `seed` alone; chunks, blocks and devices do not
    change it.

    **Arguments:**

    - `start`: None (each replica starts at `problem.initial_params` of its own key), one params
      pytree (all start there), or a pytree with a leading axis of length `replicas`.
    - `observe`: functions `params -> array` by name, recorded at the steps `observe_at`: a
      sequence, or every so many steps (by default 128 evenly spaced ones up to the last).
    - `keep`: steps at which all parameters are kept, in the same form.
    - `allow_unstable`: run settings that are known to diverge.
    - `block_size`: replicas advanced together; affects speed only.
    - `devices`: JAX devices over which blocks are shared out; by default the default device.

    **Returns** a `DataTree` with the groups

    - `endpoints`: parameters after the last step, dims `replica` and parameter dims;
    - `momentum_buffer`: the buffer m then, same names (dynamics with momentum);
    - `observables`: dims `replica`, `step`, …; `snapshots` and `snapshots_momentum_buffer`:
      the same for kept parameters;
    - `run`: `loss` at the end, `diverged`, and `diverged_at`, the first step whose result was not
      finite (−1 if none). Such a replica is frozen at its last finite state.

    Provenance is in the attributes. Raises `ValueError` naming the argument that is wrong, before
    anything is computed.
    """
    total = count("steps", steps)
    number = count("replicas", replicas)
    size = min(count("block_size", block_size), number)
    observables = _check_observables(problem, observe)
    observe_steps = _schedule("observe_at", observe_at, total) if observables else []
    keep_steps = _schedule("keep", keep, total) if keep is not None else []
    dynamics.check(problem, allow_unstable=allow_unstable)
    chosen = list(devices) if devices is not None else [jax.devices()[0]]
    # Every device gets the same number of whole blocks; surplus replicas run and are dropped.
    blocks = -(-number // (size * len(chosen))) * len(chosen)
    mesh = Mesh(np.array(chosen), ("replica",), axis_types=(AxisType.Auto,))
    launched = _launch(problem, dynamics, start, number, blocks, size, seed)
    launched = jax.device_put(launched, NamedSharding(mesh, PartitionSpec("replica")))

    records: dict[str, list] = {"observables": [], "snapshots": []}
    events = sorted({*observe_steps, *keep_steps, total})
    advance = functools.partial(_advance, dynamics, problem, mesh=mesh)
    for step, flight in _march(advance, launched, events, show=progress):
        if step in observe_steps:
            values = _observe(observables, flight.state.params, mesh=mesh)
            records["observables"].append(_gather(values, number))
        if step in keep_steps:
            records["snapshots"].append(_gather(_kept(flight.state), number))
    loss = _observe({"loss": problem.loss}, flight.state.params, mesh=mesh)
    attributes = provenance(
        "ensemble",
        seed=int(seed),
        steps=total,
        replicas=number,
        dynamics=dynamics.describe(),
        problem={"name": type(problem).__name__, "dimension": problem.dimension},
    )
    endpoints = _gather(_kept(flight.state), number)
    diverged_at = np.asarray(_gather(flight.diverged_at, number))
    groups = {
        "run": xr.Dataset(
            {
                "loss": ("replica", _gather(loss, number)["loss"]),
                "diverged": ("replica", diverged_at >= 0),
                "diverged_at": ("replica", diverged_at),
            },
            coords={"replica": np.arange(number)},
        )
    }
    for part, tree in endpoints.items():
        name = "endpoints" if part == "params" else part
        groups[name] = _labelled(tree, ("replica",), number)
    if observables:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *records["observables"])
        groups["observables"] = _labelled(stacked, ("replica", "step"), number, observe_steps)
    if keep_steps:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *records["snapshots"])
        for part, tree in stacked.items():
            name = "snapshots" if part == "params" else f"snapshots_{part}"
            groups[name] = _labelled(tree, ("replica", "step"), number, keep_steps)
    result = xr.DataTree.from_dict(groups)
    result.attrs = attributes
    return result


def _check_observables(problem: Problem, observe: Any) -> dict[str, Observable]:
    observables = dict(observe or {})
    for name, function in observables.items():
        if not (isinstance(name, str) and callable(function)):
            raise ValueError(f"observe must map names to functions of params, got {name!r}")
        jax.eval_shape(function, problem.template)
    return observables


def _schedule(name: str, at: int | Sequence[int] | None, steps: int) -> list[int]:
    if at is None:
        even = np.linspace(0, steps, _DEFAULT_OBSERVATIONS + 1).astype(int)
        at = np.unique(even[even > 0]).tolist()
    if isinstance(at, int | np.integer):
        every = count(name, at)
        return list(range(every, steps + 1, every)) or [steps]
    chosen = sorted({count(name, item, at_least=0) for item in at})
    if not chosen or chosen[-1] > steps:
        raise ValueError(f"{name} must be steps between 0 and {steps}, got {list(at)}")
    return chosen


def _launch(problem, dynamics, start, number, blocks, size, seed) -> Replicas:
    """All replicas at rest at their starts, in blocks."""
    root = stream_key(count("seed", seed, at_least=0))
    indices = jnp.arange(blocks * size)
    run_keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(root, 0), indices)
    if start is None:
        start_keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(root, 1), indices)
        params = jax.vmap(problem.initial_params)(start_keys)
    else:
        params = _given_start(problem, start, number, blocks * size)
    state = jax.vmap(dynamics.init, (None, 0))(problem, params)
    diverged_at = jnp.full(blocks * size, -1, dtype=jnp.int32)
    flight = Replicas(state, run_keys, diverged_at)
    return jax.tree.map(lambda leaf: leaf.reshape(blocks, size, *leaf.shape[1:]), flight)


def _given_start(problem: Problem, start: PyTree, number: int, padded: int) -> PyTree:
    template = problem.template
    if jax.tree.structure(start) != jax.tree.structure(template):
        raise ValueError(
            f"start must have the structure of the problem's params, "
            f"{jax.tree.structure(template)}, got {jax.tree.structure(start)}"
        )
    start = as_arrays(start)
    leaves, wanted = jax.tree.leaves(start), jax.tree.leaves(template)
    if all(leaf.shape == like.shape for leaf, like in zip(leaves, wanted, strict=True)):
        spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (padded, *leaf.shape)), start)
    elif all(
        leaf.shape == (number, *like.shape) for leaf, like in zip(leaves, wanted, strict=True)
    ):
        pad = padded - number
        spread = jax.tree.map(
            lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[:1], pad, axis=0)]), start
        )
    else:
        raise ValueError(
            f"start must have leaves of shape {[like.shape for like in wanted]}, with or without a "
            f"leading axis of {number} replicas, got {[leaf.shape for leaf in leaves]}"
        )
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
        raise ValueError("start must be finite, got NaN or infinite entries")
    return spread


@eqx.filter_jit
def _advance(dynamics: Dynamics, problem: Problem, flight: Replicas, steps: Any, *, mesh: Mesh):
    """Every replica `steps` steps further."""

    def one_step(_, block: Replicas) -> Replicas:
        moved = jax.vmap(dynamics.step, (0, None, 0))(block.key, problem, block.state)
        finite = _is_finite(moved)
        alive = (block.diverged_at < 0) & finite
        first = (block.diverged_at < 0) & ~finite
        state = jax.tree.map(
            lambda new, old: jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            moved,
            block.state,
        )
        return Replicas(state, block.key, jnp.where(first, block.state.step + 1, block.diverged_at))

    def run_blocks(flight: Replicas, steps) -> Replicas:
        return jax.lax.map(lambda block: jax.lax.fori_loop(0, steps, one_step, block), flight)

    spec = PartitionSpec("replica")
    # The loop counter starts out the same on every device, which shard_map's check would refuse.
    return jax.shard_map(
        run_blocks, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec, check_vma=False
    )(flight, steps)


def _is_finite(state: Any) -> Bool[Any, " size"]:
    finite = [
        jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
        for leaf in jax.tree.leaves(state)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return functools.reduce(jnp.logical_and, finite)


@eqx.filter_jit
def _observe(observables: dict[str, Observable], params: PyTree, *, mesh: Mesh) -> dict[str, Any]:
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


def _march(advance, flight, events: Sequence[int], *, show: bool) -> Iterator[tuple[int, Replicas]]:
    """Advance to each event in turn, in chunks short enough for the progress bar and Ctrl-C."""
    done, chunk, compiled = 0, 16, False
    with tqdm(total=events[-1], unit="step", desc="simulate", disable=not show) as bar:
        for event in events:
            while done < event:
                ask = min(chunk, event - done)
                begin = time.perf_counter()
                flight = jax.block_until_ready(advance(flight, jnp.int32(ask)))
                pace = (time.perf_counter() - begin) / ask
                if compiled:  # the first call compiles: its time says nothing about the next
                    chunk = max(1, min(8 * chunk, int(_SECONDS_PER_CHUNK / pace)))
                compiled = True
                done += ask
                bar.update(ask)
            yield event, flight


def _kept(state: Any) -> dict[str, PyTree]:
    parts = {"params": state.params}
    if hasattr(state, "momentum_buffer"):
        parts["momentum_buffer"] = state.momentum_buffer
    return parts


def _gather(tree: PyTree, number: int) -> PyTree:
    """Blocks joined to one replica axis on the host, without the surplus replicas."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:])[:number], jax.device_get(tree)
    )


def _labelled(
    tree: PyTree, lead: tuple[str, ...], number: int, steps: Sequence[int] | None = None
) -> xr.Dataset:
    variables = {
        name: ((*lead, *(f"{name}_dim_{i}" for i in range(leaf.ndim - len(lead)))), leaf)
        for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True)
    }
    coords: dict[str, Any] = {"replica": np.arange(number)}
    if steps is not None:
        coords["step"] = np.asarray(steps)
    return xr.Dataset(variables, coords=coords)
