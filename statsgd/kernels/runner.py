"""Draws from a law as an ArviZ data tree: exact where the law allows, else by a kernel."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from numpyro.infer import Predictive
from tqdm.auto import tqdm

from statsgd.arguments import count
from statsgd.dynamics.launch import Blocks
from statsgd.dynamics.processes import agreed, is_first, share_of
from statsgd.dynamics.random_stream import stream_key
from statsgd.dynamics.records import Layout
from statsgd.dynamics.storage import ZarrStore
from statsgd.interruption import Interrupted
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.grid import constructor_arguments, grid_axes, grid_cells
from statsgd.kernels.mala import MALA
from statsgd.kernels.mixing import warn_of_poor_mixing
from statsgd.kernels.program import CAPACITY, Cells, Chains, Program, advance, launch
from statsgd.kernels.wells import find_wells
from statsgd.laws import Law
from statsgd.provenance import describe, provenance

_SECONDS_PER_CHUNK = 0.5  # how often progress shows, stores are written and Ctrl-C is heard
_FIRST_CHUNK = 64  # steps, before it is known how long one takes
_BLOCK = 64


def sample(
    law: Law | Callable[[], Any] | None,
    kernel: LangevinKernel | None = None,
    *,
    warmup: int = 1000,
    draws: int = 1000,
    chains: int = 4,
    seed: int,
    progress: bool = True,
    thinning: int = 1,
    starts: Any = None,
    grid: Mapping[str, Any] | None = None,
    store: str | Path | None = None,
    devices: Sequence[jax.Device] | None = None,
    block_size: int | None = None,
    diagnose: bool = True,
) -> xr.DataTree:
    """Draw from `law`.

    With `kernel=None` a law whose model is generative is drawn from exactly and independently;
    any other law by `MALA()`. A kernel is used as given; its own model, if any, is ignored.

    One compilation serves every law of the same type and shape and every value of the kernel's
    parameters. Draws are a function of the arguments alone: the length of chunks, progress, stores,
    devices and other chains do not change them.

    **Arguments:**

    - `law`: a law; or a NumPyro model without arguments; or None for a kernel's own model or
      potential.
    - `warmup`, `draws`, `thinning`: each chain takes `warmup` steps, during which the kernel may
      adapt, then `draws * thinning` more, of which every `thinning`-th is kept.
    - `starts`: where chains start. None: where the law says (`Law.starting_points`), else where the
      kernel's `init_strategy` does. `"wells"`: in the minima that `find_wells` finds. Or values of
      the latent sites, `{site: (points, …)}` or an array for the site `params`. Chain i starts at
      point i modulo the number of points, so that several wells each get chains.
    - `grid`: values along named axes: numbers of the kernel (`step_size`, `temperature`) or
      arguments of the law (`law.learning_rate`). Every combination runs in one compiled call, and
      the axes become leading dims of the result. All cells share random numbers: each equals the
      separate run of its settings.
    - `store`: a directory. The run is written there as a Zarr store while it goes. Called again
      with the same arguments after it was cut off at any moment, it goes on from there and ends
      with the same numbers; after it was finished, it reads the result.
    - `devices`: JAX devices over which chains are shared out; by default the first one. Under
      `jax.distributed` every process makes the same call, and chains are shared out over all of
      them, as replicas are by `simulate`.
    - `block_size`: chains advanced together, a matter of speed: by default up to 64, an equal share
      a device. Where a law multiplies matrices, the last digits may depend on it.
    - `diagnose`: warn (`MixingWarning`) if R-hat or effective sample sizes say that the chains have
      not mixed; see `statsgd.kernels.mixing` for the whole diagnosis.

    **Returns** a `DataTree` in ArviZ's schema: `posterior` (dims `chain`, `draw`, …) with every
    site of the law's model, and, from a kernel, `sample_stats` with `lp`, `acceptance_rate`,
    `step_size`, `diverging` and what else the kernel reports.

    Ctrl-C after warm-up raises `Interrupted`, a `KeyboardInterrupt` whose `result` is the tree of
    the draws so far. With a store they are there, and the same call goes on from them.

    Raises `ImproperLawError` for a law that does not exist, and `ValueError` naming the argument
    that is wrong, before anything is computed or written.
    """
    count("draws", draws)
    count("chains", chains)
    count("warmup", warmup, at_least=0)
    count("thinning", thinning)
    count("seed", seed, at_least=0)
    if isinstance(law, Law):
        law.require_proper()
    exact = kernel is None and isinstance(law, Law) and law.generative
    if law is None and kernel is None:
        raise ValueError("law must be given where the kernel is None, got None for both")
    chosen = MALA() if kernel is None and not exact else kernel
    axes = grid_axes(law, chosen, grid)
    if chosen is not None and "step_size" in axes and chosen.adapts and warmup:
        raise ValueError(
            "grid over step_size needs a kernel with adapt_step_size=False, or warmup=0: "
            "adaptation would replace the values"
        )
    cells = grid_cells(law, chosen, axes)
    layout = Layout(axes, chains, lane="chain", record="draw")
    attributes = provenance(
        "draws",
        law=_describe_target(law),
        kernel="exact draws" if chosen is None else type(chosen).__name__,
        kernel_settings={} if chosen is None else describe(_kernel_settings(chosen)),
        grid=describe(axes),
        seed=int(seed),
        warmup=warmup,
        draws=draws,
        chains=chains,
        thinning=thinning,
        starts=describe(starts),
        precision=64 if jax.config.jax_enable_x64 else 32,
    )
    if chosen is None:
        if store is not None:
            raise ValueError("store needs a kernel: exact draws are made at once, got kernel None")
        values = [
            _draw_exactly(cell.target, jax.random.key(seed), chains * draws) for cell in cells
        ]
        joined = jax.tree.map(
            lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]).reshape(
                len(cells) * chains, draws, *leaves[0].shape[1:]
            ),
            *values,
        )
        return _in_memory(layout, {"posterior": joined}, attributes)

    where, processes = share_of(devices)
    number = len(where) * processes
    size = min(_BLOCK, -(-chains // number)) if block_size is None else block_size
    size = min(count("block_size", size), chains)
    blocks = Blocks(len(cells), chains, size, number, processes)
    mesh = Mesh(np.array(where), ("chain",), axis_types=(AxisType.Auto,))
    run = _Run(Program(chosen, law is not None), Cells.of(cells), axes, blocks, mesh, int(thinning))
    points = _points([cell.target for cell in cells], starts, chains, seed)
    lanes = launch(
        run.program, run.cells, stream_key(seed), np.int32(warmup), points, len(cells), chains
    )
    done, recorder = 0, None
    if store is not None:
        templates = run.templates(lanes)
        schedules = {group: range(draws) for group in templates}
        recorder = ZarrStore(store, layout, blocks, schedules, templates, attributes)
        at, state = recorder.resume(lanes.state)
        done, lanes = max(at, 0), Chains(state, lanes.cell)
    kept: list[dict[str, Any]] = []
    try:
        with tqdm(
            total=warmup + draws * thinning,
            initial=done,
            unit="step",
            desc=type(chosen).__name__,
            disable=not (progress and is_first(processes)),
        ) as bar:
            for at, flight, found in run.chunks(lanes, done, warmup, draws):
                if recorder is None:
                    kept += [found] if found else []
                else:
                    for group, values in found.items():
                        number = jax.tree.leaves(values)[0].shape[1]
                        recorder.extend(group, (at - warmup) // thinning - number, values)
                    recorder.checkpoint(at, flight.state, last=at == bar.total)
                bar.update(at - bar.n)
    except KeyboardInterrupt:
        if not kept:  # in warm-up; or with a store, which keeps the draws
            raise
        partial = _in_memory(layout, _joined(kept), attributes)
        raise Interrupted(
            f"after {partial['posterior'].sizes['draw']} of {draws} draws, which are in this "
            "exception's result (also as sys.last_value.result)",
            partial,
        ) from None
    if recorder is not None:
        tree = recorder.finish({}, attributes)
    else:
        tree = _in_memory(layout, _joined(kept), attributes)
    if diagnose:
        warn_of_poor_mixing(tree)
    return tree


class _Run:
    """One compiled program and how its chains are divided."""

    def __init__(
        self,
        program: Program,
        cells: Cells,
        axes: Mapping[str, Any],
        blocks: Blocks,
        mesh: Mesh,
        thinning: int,
    ):
        self.program, self.cells, self.axes = program, cells, axes
        self.blocks, self.mesh, self.thinning = blocks, mesh, thinning

    def templates(self, lanes: Chains) -> dict[str, PyTree]:
        """Shape and dtype of one record of one chain."""
        _, (posterior, stats) = eqx.filter_eval_shape(
            lambda: advance(
                self.program, self.cells, self.blocks.split(lanes), 0, 1, mesh=self.mesh
            )
        )
        looked = {"posterior": posterior, "sample_stats": self.without_axes(stats)}
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[3:], leaf.dtype), looked)

    def without_axes(self, stats: dict[str, Any]) -> dict[str, Any]:
        """`stats` less those that are coordinates of the grid, as the step size may be."""
        return {name: value for name, value in stats.items() if name not in self.axes}

    def chunks(self, lanes: Chains, done: int, warmup: int, draws: int):
        """Yields steps done, chains, and the draws of the chunk by group, chain by chain."""
        spec = NamedSharding(self.mesh, PartitionSpec("chain"))
        flight = jax.device_put(self.blocks.split(lanes), spec)
        total = warmup + draws * self.thinning
        wish, compiled = float(_FIRST_CHUNK), False
        while done < total:
            unit = 1 if done < warmup else self.thinning
            ask = max(1, int(wish) // unit) * unit
            ask = min(ask, warmup - done if done < warmup else CAPACITY * unit, total - done)
            ask = agreed(ask, self.blocks.processes)
            begin = time.perf_counter()
            flight, (posterior, stats) = advance(
                self.program,
                self.cells,
                flight,
                jnp.int32(ask),
                jnp.int32(self.thinning),
                mesh=self.mesh,
            )
            found = {}
            if done >= warmup:
                number = ask // self.thinning
                looked = {"posterior": posterior, "sample_stats": self.without_axes(stats)}
                by_lane = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 1, 2), looked)
                found = jax.tree.map(lambda leaf, n=number: leaf[:, :n], self.blocks.join(by_lane))
            jax.block_until_ready(flight)
            if compiled:  # the first call compiles: its time says nothing about the next
                pace = (time.perf_counter() - begin) / ask
                wish = min(8 * wish, _SECONDS_PER_CHUNK / pace)
            compiled = True
            done += ask
            yield done, flight, found


def _points(targets: Sequence[Any], starts: Any, chains: int, seed: int) -> Any:
    """Constrained starting values with a leading axis of lanes, cell by cell; None for none."""
    if starts is None:
        key = jax.random.fold_in(jax.random.key(seed), chains)
        own = [t.starting_points(key, chains) if isinstance(t, Law) else None for t in targets]
        if any(points is None for points in own):
            return None
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *own)
    if isinstance(starts, str):
        if starts != "wells" or not isinstance(targets[0], Law):
            raise ValueError(f"starts must be None, 'wells' (of a law) or values, got {starts!r}")
        given = [{"params": find_wells(target, seed=seed)} for target in targets]
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


@eqx.filter_jit
def _draw_exactly(law: Law, key, number: int):
    return Predictive(law.model, num_samples=number)(key)


def _joined(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *chunks)


def _in_memory(layout: Layout, groups: dict[str, Any], attributes: dict) -> xr.DataTree:
    tree = xr.DataTree.from_dict(
        {
            group: layout.dataset(values, range(jax.tree.leaves(values)[0].shape[1]))
            for group, values in groups.items()
        }
    )
    tree.attrs = attributes
    return tree


def _describe_target(law: Any) -> Any:
    if isinstance(law, Law):
        fields = describe(law)
        # What the user gave comes first, so that a refused store is told by that.
        given = {name: fields[name] for name in constructor_arguments(law) if name in fields}
        return law.describe() | {"arguments": given | fields}
    return describe(law)


def _kernel_settings(kernel: LangevinKernel) -> dict[str, Any]:
    return {"parameters": kernel.parameters, "structure": kernel.structure[1:]}
