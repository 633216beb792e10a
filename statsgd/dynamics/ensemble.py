"""Ensembles: many independent runs of one dynamics, compiled once and advanced in chunks."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.arguments import count, instance, random_seed, step_count
from statsgd.description import describe
from statsgd.dynamics.advance import SEGMENT, advance, observe_replicas
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.grid import SettingsGrid
from statsgd.dynamics.launch import launch
from statsgd.dynamics.origin import Origin
from statsgd.dynamics.schedule import (
    Observable,
    check_observables,
    endpoint_groups,
    schedule,
    snapshot_groups,
)
from statsgd.dynamics.stages import Stage, in_turn, state_shape
from statsgd.problems import Problem
from statsgd.problems.parameters import leaf_names
from statsgd.provenance import provenance
from statsgd.running.blocks import Blocks, Lanes, lanes_in_cache
from statsgd.running.chunks import Stretch
from statsgd.running.records import Layout, Records
from statsgd.running.run import Run


def simulate(
    problem: Problem,
    dynamics: Dynamics | SettingsGrid | Sequence[Dynamics | SettingsGrid],
    *,
    steps: int | Sequence[int],
    replicas: int | None = None,
    seed: int | Sequence[int],
    start: PyTree | xr.DataTree | None = None,
    observe: Mapping[str, Observable] | None = None,
    observe_at: int | Sequence[int] | None = None,
    keep: int | Sequence[int] | None = None,
    store: str | Path | None = None,
    identity: str | None = None,
    progress: bool = True,
    phases: int = 1,
    allow_unstable: bool = False,
    block_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> xr.DataTree:
    """Run `replicas` independent copies of `dynamics` on `problem` for `steps` steps.

    The result is a function of the arguments and `seed` alone: chunks, devices and interruptions
    do not change a bit of it.

    >>> import numpy as np, statsgd
    >>> problem = statsgd.problems.landscape(lambda x: 0.5 * x @ x, np.zeros(2))
    >>> sgd = statsgd.SGD(0.1, statsgd.noise.Isotropic(1.0))
    >>> tree = statsgd.simulate(problem, sgd, steps=50, replicas=8, seed=0, progress=False)
    >>> dict(tree["endpoints"].sizes), tree["endpoints"].params.dtype
    ({'replica': 8, 'params_dim_0': 2}, dtype('float32'))

    Parameters have JAX's default precision: float32, and float64 where x64 is on.

    **Arguments:**

    - `dynamics`: a rule of motion such as `SGD`, or a `grid` or `batch` of them. Or a sequence of
      these, stages that follow one another, and `steps` the sequence of their numbers of steps:
      `simulate(problem, [sgd, slower], steps=[1000, 500], …)` is, bit for bit, what two calls
      would be of which the second continues the first.
    - `seed`: one seed, which all cells of a grid share, or a sequence of one for each cell. A cell
      is, bit for bit, the separate run of its settings and its seed.
    - `start`: None (each replica starts at `problem.initial_params` of its own key), one params
      pytree (all start there), a pytree with a leading axis of length `replicas`, or an ensemble
      that `simulate` returned, to be continued (below).
    - `observe`: functions `params -> array` by name, recorded at the steps `observe_at`: a
      sequence, or every so many steps (by default 128 evenly spaced ones up to the last). Steps
      of a run that continues another one count from the beginning of that.
    - `keep`: steps at which all parameters are kept, in the same form.
    - `store`: a directory. The run is written there as a Zarr store while it goes, and memory does
      not grow with records. Called again with the same arguments after it was cut off, it goes on
      from the last checkpoint; after it was finished, it reads the result.
    - `identity`: a name and version of the code that is called, for a `store`. Functions and
      classes are then known by it and by their names, not by their code and all that it reaches. A
      store needs it where something has no exact description, and says so.
    - `phases`: each replica ends after a random one of the last `phases` numbers of steps, all
      equally likely. With the number of batches in an epoch endpoints are taken at random phases
      of it; with 1 and whole epochs, at epoch ends. Records stop `phases − 1` steps before the end.
    - `allow_unstable`: run settings that are known to diverge.
    - `block_size`: replicas advanced together, by `vmap`, while blocks follow one another: a matter
      of speed and memory. By default 64, and fewer the more parameters a replica has: 16 at 4000,
      8 at 8000, 1 above (float32), so that those of a block stay in the cache. (An accelerator
      works on as many blocks at once as its memory allows.) The last digits may depend on it: some
      processors round otherwise beside a full vector (all agree for multiples of 16), and so do
      products with matrices that the replicas share.
    - `devices`: JAX devices over which blocks are shared out; by default the first one.

    Under `jax.distributed` every process makes the same call, and replicas are shared out over all
    of them: by default over the first device of each, or over `devices`, if these belong to all
    processes. All get the whole result. The first process alone writes the store, which must be on
    a file system that they share.

    **Continuing.** With `start=ensemble` every replica goes on from its parameters, with its
    momentum or optimiser's state and at its step, which schedules and epochs count. `dynamics` may
    be another one: what its state has in common with the ensemble is carried on. With the seed of
    the ensemble so are its random numbers: the same settings give, bit for bit, one long run. With
    another seed they are others from there on; either way all noise is new. (Params alone as
    `start`, with the same seed, would see the old noise once more.) An epoch belongs to a batch
    size: after a change of it in the middle of one, the rest of an epoch of the new size comes
    first. Replicas that diverged stay frozen, flagged and counted. Grids continue cell by cell; an
    ensemble without axes starts every cell, a dynamics without axes goes on in every cell.
    Ensembles whose replicas ended at random `phases` cannot be continued.

    **Returns** a `DataTree` with the groups

    - `endpoints`: parameters after the last step, dims `replica` and parameter dims;
    - `momentum_buffer`: the buffer m then, same names (dynamics with momentum);
    - `optimiser_state`: what `OptaxDynamics` holds then, by names such as "0.mu.w" and "0.count";
    - `observables`: dims `replica`, `step`, …; `snapshots` and `snapshots_momentum_buffer`:
      the same for kept parameters;
    - `run`: `loss` at the end, `steps` taken, `diverged`, and `diverged_at`, the first step whose
      result was not finite (−1 if none). Such a replica is frozen at its last finite state. The
      attribute `origin` says what a run continues: settings and state as digests, steps, seed.

    Variables have the names of the leaves of the params, written as in addresses of web pages where
    a data tree cannot hold them (`statsgd.problems.parameters.variable_name`): "a/b" is "a%2Fb".
    For a grid every group has the axes of the grid as leading dims. Provenance is in the
    attributes. Ctrl-C raises `Interrupted`, a `KeyboardInterrupt` whose `result` is the tree as it
    stands: `endpoints` after the steps that `run` counts, records up to there. With a store the
    same call goes on instead. Raises `ValueError` naming the argument that is wrong, before
    anything is computed or written.
    """
    call = "simulate(problem, dynamics, …)"
    instance("problem", problem, Problem, "a Problem, as statsgd.problems makes", call=call)
    kinds = (Dynamics, SettingsGrid)
    several = isinstance(dynamics, Sequence) and not isinstance(dynamics, (*kinds, str))
    stages: Any = dynamics if several else [dynamics]
    for one in stages:
        instance("dynamics", one, kinds, "of statsgd.dynamics, such as SGD, or a grid", call=call)
    origin = Origin(start) if isinstance(start, xr.DataTree) else None
    begin = 0 if origin is None else origin.steps
    grids, numbers = in_turn(dynamics, steps, {} if origin is None else origin.axes)
    total, settings = sum(numbers), grids[0]
    step_count("steps, with those of start,", begin + total)
    if count("phases", phases) > numbers[-1]:
        raise ValueError(f"phases must be at most steps = {numbers[-1]}, got {phases}")
    number = _replicas(replicas, origin)
    first_end = total - phases + 1
    size = _block_size(problem, block_size)
    blocks = Blocks.over(devices, cells=settings.cells, lanes=number, size=size)
    observables = check_observables(problem, observe)
    recorded = {"first": begin, "last": begin + first_end}
    observe_steps = schedule("observe_at", observe_at, **recorded) if observables else []
    keep_steps = [] if keep is None else schedule("keep", keep, **recorded)
    ends = list(itertools.accumulate(numbers))
    for grid, length, end in zip(grids, numbers, ends, strict=True):
        span = {"first": begin + end - length, "last": begin + end}
        grid.check(problem, allow_unstable=allow_unstable, **span)
    state = state_shape(problem, grids)
    seeds = _seeds(seed, settings.cells)
    lanes = launch(
        problem,
        settings,
        start if origin is None else origin,
        replicas=number,
        seeds=seeds,
        steps=total,
        phases=phases,
    )
    kept = dict.fromkeys(snapshot_groups(state), keep_steps)
    schedules = {g: at for g, at in ({"observables": observe_steps} | kept).items() if at}
    records = (step - begin for step in itertools.chain(*schedules.values()))
    events = sorted({*records, first_end, *ends})
    said = functools.partial(describe, code=identity is None)
    several = len(grids) > 1
    begins = describe(start) if origin is None else origin.description(lanes.moving)
    attributes = provenance(
        "ensemble",
        identity=identity,
        seed=seeds if isinstance(seed, Sequence) else seeds[0],
        steps=numbers if several else total,
        replicas=number,
        phases=phases,
        precision=64 if jax.config.jax_enable_x64 else 32,
        dynamics=said([grid.dynamics for grid in grids] if several else settings.dynamics),
        grid=describe(settings.axes),
        problem=said(problem) | {"dimension": problem.dimension, "parameters": problem.names},
        start=begins,
        observe=said(observables),
        schedules=schedules,
    )
    parts = endpoint_groups(state)
    orders = [leaf_names(part) for part in parts.values()]
    layout = Layout(settings.axes, number, lane="replica", record="step", orders=orders)
    for group, part in parts.items():
        layout.require_names(group, part)
    ensemble = Ensemble(
        title="simulate",
        blocks=blocks,
        layout=layout,
        schedules=schedules,
        stretches=[Stretch(event, SEGMENT) for event in events],
        attributes=attributes,
        problem=problem,
        stages=[Stage(grid.stacked(), end) for grid, end in zip(grids, ends, strict=True)],
        observables=observables,
        begin=begin,
        first_end=first_end,
        notes={} if origin is None else {"run": {"origin": origin.note(begins)}},
    )
    return ensemble.carry_out(lanes, store=store, progress=progress)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble(Run):
    """Replicas of `simulate`, recorded after steps at which a chunk ends."""

    problem: Problem
    stages: Sequence[Stage]
    observables: dict[str, Observable]
    begin: int
    """Steps that replicas had taken before. Records are labelled by all steps, the rest is not."""
    first_end: int
    """Up to this step all replicas are on their way."""

    def advance(self, lanes: Lanes, done: int, steps: int) -> tuple[Lanes, dict[str, Records]]:
        """Replicas later, with the records that belong there."""
        ending = done >= self.first_end
        moved = advance(
            next(stage.settings for stage in self.stages if stage.end > done),
            self.problem,
            lanes,
            np.int32(steps),
            ending=ending,
            mesh=self.blocks.mesh,
        )
        return moved, self._records(moved, self.begin + done + steps)

    def _records(self, lanes: Lanes, step: int) -> dict[str, Records]:
        due = {group: at[step] for group, at in self._places.items() if step in at}
        values = snapshot_groups(lanes.moving.state)
        if "observables" in due:
            values["observables"] = self._observed(self.observables, lanes)
        return {
            group: Records(place, 1, jax.tree.map(lambda leaf: leaf[:, :, None], values[group]))
            for group, place in due.items()
        }

    @functools.cached_property
    def _places(self) -> dict[str, dict[int, int]]:
        return {g: {step: i for i, step in enumerate(at)} for g, at in self.schedules.items()}

    def _observed(self, observables: dict[str, Observable], lanes: Lanes) -> dict[str, PyTree]:
        return observe_replicas(observables, lanes.moving.state.params, mesh=self.blocks.mesh)

    def templates(self, lanes: Lanes) -> dict[str, PyTree]:
        """Those of observables and of parameters."""
        template = self.problem.template
        observed = {name: jax.eval_shape(f, template) for name, f in self.observables.items()}
        return dict.fromkeys(snapshot_groups(lanes.moving.state), template) | {
            "observables": observed
        }

    def ends(self, lanes: Lanes) -> dict[str, PyTree]:
        """How the runs went, and where they are."""
        state, diverged_at = lanes.moving
        run = {
            **self._observed({"loss": self.problem.loss}, lanes),
            "steps": state.step,
            "diverged": diverged_at >= 0,
            "diverged_at": diverged_at,
        }
        return {"run": run, **endpoint_groups(state)}

    def so_far(self, done: int) -> tuple[int, int, str]:
        """Steps."""
        return done, self.stretches[-1].end, "steps"


def _replicas(replicas: int | None, origin: Origin | None) -> int:
    if origin is None:
        return count("replicas", replicas)
    if replicas not in (None, origin.replicas):
        raise ValueError(f"replicas must be {origin.replicas}, those of start, got {replicas}")
    return origin.replicas


def _block_size(problem: Problem, given: int | None) -> int:
    if given is not None:
        return count("block_size", given)
    leaves = jax.tree.leaves(problem.template)
    return lanes_in_cache(sum(leaf.size * leaf.dtype.itemsize for leaf in leaves))


def _seeds(seed: int | Sequence[int], cells: int) -> list[int]:
    if not isinstance(seed, Sequence):
        return [random_seed(seed)]
    if len(seed) != cells:
        raise ValueError(f"seed must be one number or one for each of {cells} cells, got {seed!r}")
    return [random_seed(one) for one in seed]
