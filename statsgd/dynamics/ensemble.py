"""Ensembles: many independent runs of one dynamics, compiled once and advanced in chunks.

Replicas live in blocks of `block_size`. A block runs a whole chunk of steps before the next one
starts, so that its parameters and gathered minibatches stay in cache. The number of steps of a
chunk is traced: chunks of any length share one compilation, and a progress bar costs nothing.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from statsgd.arguments import count
from statsgd.dynamics.advance import Observable, advance, march
from statsgd.dynamics.advance import observe as observe_replicas
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.grid import Grid
from statsgd.dynamics.launch import Blocks, launch
from statsgd.dynamics.processes import is_first, share_of
from statsgd.dynamics.records import InMemory, Layout, check_observables, kept, schedule
from statsgd.dynamics.storage import ZarrStore
from statsgd.problems import Problem
from statsgd.provenance import describe, provenance


def simulate(
    problem: Problem,
    dynamics: Dynamics | Grid,
    *,
    steps: int,
    replicas: int,
    seed: int | Sequence[int],
    start: PyTree | None = None,
    observe: Mapping[str, Observable] | None = None,
    observe_at: int | Sequence[int] | None = None,
    keep: int | Sequence[int] | None = None,
    store: str | Path | None = None,
    progress: bool = True,
    phases: int = 1,
    allow_unstable: bool = False,
    block_size: int = 64,
    devices: Sequence[jax.Device] | None = None,
) -> xr.DataTree:
    """Run `replicas` independent copies of `dynamics` on `problem` for `steps` steps.

    The result is a function of the arguments and `seed` alone: chunks, devices and interruptions
    do not change a bit of it.

    **Arguments:**

    - `dynamics`: a rule of motion such as `SGD`, or a `grid` or `batch` of them.
    - `seed`: one seed, which all cells of a grid share, or a sequence of one for each cell. A cell
      is, bit for bit, the separate run of its settings and its seed.
    - `start`: None (each replica starts at `problem.initial_params` of its own key), one params
      pytree (all start there), or a pytree with a leading axis of length `replicas`.
    - `observe`: functions `params -> array` by name, recorded at the steps `observe_at`: a
      sequence, or every so many steps (by default 128 evenly spaced ones up to the last).
    - `keep`: steps at which all parameters are kept, in the same form.
    - `store`: a directory. The run is written there as a Zarr store while it goes, and memory does
      not grow with records. Called again with the same arguments after it was cut off, it goes on
      from the last checkpoint; after it was finished, it reads the result.
    - `phases`: each replica ends after a random one of the last `phases` numbers of steps, all
      equally likely. With the number of batches in an epoch endpoints are taken at random phases
      of it; with 1 and whole epochs, at epoch ends. Records stop at step `steps − phases + 1`.
    - `allow_unstable`: run settings that are known to diverge.
    - `block_size`: replicas advanced together, a matter of speed. Where a loss multiplies matrices
      that the replicas share, the last digits may depend on it.
    - `devices`: JAX devices over which blocks are shared out; by default the first one.

    Under `jax.distributed` every process makes the same call, and replicas are shared out over all
    of them: by default over the first device of each, or over `devices`, if these belong to all
    processes. All get the whole result. The first process alone writes the store, which must be on
    a file system that they share.

    **Returns** a `DataTree` with the groups

    - `endpoints`: parameters after the last step, dims `replica` and parameter dims;
    - `momentum_buffer`: the buffer m then, same names (dynamics with momentum);
    - `observables`: dims `replica`, `step`, …; `snapshots` and `snapshots_momentum_buffer`:
      the same for kept parameters;
    - `run`: `loss` at the end, `steps` taken, `diverged`, and `diverged_at`, the first step whose
      result was not finite (−1 if none). Such a replica is frozen at its last finite state.

    For a grid every group has the axes of the grid as leading dims. Provenance is in the
    attributes. Raises `ValueError` naming the argument that is wrong, before anything is computed
    or written.
    """
    total, number = count("steps", steps), count("replicas", replicas)
    if count("phases", phases) > total:
        raise ValueError(f"phases must be at most steps = {total}, got {phases}")
    calm = total - phases + 1  # up to here all replicas are on their way
    settings = dynamics if isinstance(dynamics, Grid) else Grid(dynamics, {})
    chosen, processes = share_of(devices)
    size = min(count("block_size", block_size), number)
    blocks = Blocks(settings.cells, number, size, len(chosen) * processes, processes)
    mesh = Mesh(np.array(chosen), ("replica",), axis_types=(AxisType.Auto,))
    observables = check_observables(problem, observe)
    schedules: dict[str, list[int]] = {}
    if observables:
        schedules["observables"] = schedule("observe_at", observe_at, calm)
    keep_steps = [] if keep is None else schedule("keep", keep, calm)
    for index in range(settings.cells):
        settings.cell(index).check(problem, allow_unstable=allow_unstable)
    seeds = _seeds(seed, settings.cells)
    lanes = launch(
        problem, settings, start, replicas=number, seeds=seeds, steps=total, phases=phases
    )
    templates = {
        "observables": {n: jax.eval_shape(f, problem.template) for n, f in observables.items()}
    }
    for part in kept(lanes.state) if keep_steps else ():
        group = "snapshots" if part == "params" else f"snapshots_{part}"
        schedules[group], templates[group] = keep_steps, problem.template
    attributes = provenance(
        "ensemble",
        seed=seeds if isinstance(seed, Sequence) else seeds[0],
        steps=total,
        replicas=number,
        phases=phases,
        precision=64 if jax.config.jax_enable_x64 else 32,
        dynamics=settings.dynamics.describe(),
        grid=describe(settings.axes),
        problem=describe(problem) | {"dimension": problem.dimension},
        start=describe(start),
        observe=describe(observables),
        schedules=schedules,
    )
    layout = Layout(settings.axes, number)
    recorder: InMemory | ZarrStore
    done = -1
    if store is None:
        recorder = InMemory(layout, schedules)
    else:
        recorder = ZarrStore(store, layout, blocks, schedules, templates, attributes)
        done, (state, diverged_at) = recorder.resume((lanes.state, lanes.diverged_at))
        lanes = lanes._replace(state=state, diverged_at=diverged_at)

    flight = jax.device_put(blocks.split(lanes), NamedSharding(mesh, PartitionSpec("replica")))
    parts = settings.parts()

    def move(flight, at, ask):
        return advance(parts, problem, flight, jnp.int32(ask), ending=at >= calm, mesh=mesh)

    events = sorted({*itertools.chain(*schedules.values()), calm, total})
    places = {g: {step: i for i, step in enumerate(steps)} for g, steps in schedules.items()}
    ahead = [event for event in events if event > done]
    shown = progress and is_first(processes)
    marching = march(move, flight, ahead, done=max(done, 0), show=shown, processes=processes)
    for step, moved in marching:
        flight = moved
        if step in places.get("observables", ()):
            values = blocks.join(observe_replicas(observables, flight.state.params, mesh=mesh))
            recorder.record("observables", places["observables"][step], values)
        if step in places.get("snapshots", ()):
            for part, tree in kept(flight.state).items():
                group = "snapshots" if part == "params" else f"snapshots_{part}"
                recorder.record(group, places[group][step], blocks.join(tree))
        recorder.checkpoint(step, (flight.state, flight.diverged_at), last=step == total)

    loss = observe_replicas({"loss": problem.loss}, flight.state.params, mesh=mesh)
    diverged_at = blocks.join(flight.diverged_at)
    run = {
        **blocks.join(loss),
        "steps": blocks.join(flight.state.step),
        "diverged": diverged_at >= 0,
        "diverged_at": diverged_at,
    }
    groups = {"run": layout.dataset(run)}
    for part, tree in kept(flight.state).items():
        groups["endpoints" if part == "params" else part] = layout.dataset(blocks.join(tree))
    return recorder.finish(groups, attributes)


def _seeds(seed: int | Sequence[int], cells: int) -> list[int]:
    if not isinstance(seed, Sequence):
        return [count("seed", seed, at_least=0)]
    if len(seed) != cells:
        raise ValueError(f"seed must be one number or one for each of {cells} cells, got {seed!r}")
    return [count("seed", one, at_least=0) for one in seed]
