"""Draws from a law as an ArviZ data tree: exact where the law allows, else by a kernel."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from statsgd.arguments import instance, random_seed, step_count
from statsgd.description import describe
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.chains import Chains
from statsgd.kernels.grid import constructor_arguments, grid_axes, settings_of_cells, stacked
from statsgd.kernels.mala import MALA
from statsgd.kernels.mixing import warn_of_poor_mixing
from statsgd.kernels.program import CAPACITY, Program, Settings, launch
from statsgd.kernels.starts import starting_points, wells_to_start_in
from statsgd.laws import Law
from statsgd.provenance import provenance
from statsgd.running.blocks import Blocks
from statsgd.running.chunks import Stretch
from statsgd.running.records import InMemory, Layout, Records


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
    identity: str | None = None,
    devices: Sequence[jax.Device] | None = None,
    block_size: int | None = None,
    diagnose: bool = True,
) -> xr.DataTree:
    """Draw from `law`.

    >>> import statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0, 1.0], [[1.0, 0.0], [0.0, 4.0]])
    >>> draws = statsgd.sample(law, draws=100, chains=4, seed=0, progress=False)
    >>> draws.attrs["kernel"], draws["posterior"].params.shape
    ('exact draws', (4, 100, 2))

    With `kernel=None` a law that has `exact_draws` is drawn from exactly and independently;
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
      kernel's `init_strategy` does. `"wells"`: in the minima that `find_wells` finds, which the
      attribute `wells` then holds, and `compare` weighs. Or values of
      the latent sites, `{site: (points, …)}` or an array for the site `params`. Chain i starts at
      point i modulo the number of points, so that several wells each get chains.
    - `grid`: values along named axes: numbers of the kernel (`step_size`, `temperature`) or
      arguments of the law (`law.learning_rate`). Every combination runs in one compiled call, and
      the axes become leading dims of the result. All cells share random numbers: each equals the
      separate run of its settings.
    - `store`: a directory. The run is written there as a Zarr store while it goes. Called again
      with the same arguments after it was cut off at any moment, it goes on from there and ends
      with the same numbers; after it was finished, it reads the result.
    - `identity`: a name and version of the code that is called, for a `store`. Functions and
      classes are then known by it and by their names, not by their code and all that it reaches. A
      store needs it where something has no exact description, and says so.
    - `devices`: JAX devices over which chains are shared out; by default the first one. Under
      `jax.distributed` every process makes the same call, and chains are shared out over all of
      them, as replicas are by `simulate`.
    - `block_size`: chains advanced together, a matter of speed: by default up to 64, an equal share
      a device. The last digits may depend on it, as in `simulate`.
    - `diagnose`: warn (`MixingWarning`) if R-hat or effective sample sizes say that the chains have
      not mixed; see `statsgd.kernels.mixing` for the whole diagnosis.

    **Returns** a `DataTree` in ArviZ's schema: `posterior` (dims `chain`, `draw`, …) with every
    site of the law's model, and, from a kernel, `sample_stats` with `lp`, `acceptance_rate`,
    `step_size`, `diverging` and what else the kernel reports. A site "scope/x" is the variable
    "scope%2Fx" there: names are written as in addresses of web pages where a data tree cannot hold
    them, as `simulate` does.

    Ctrl-C after warm-up raises `Interrupted`, a `KeyboardInterrupt` whose `result` is the tree of
    the draws so far. With a store they are there, and the same call goes on from them.

    Raises `ImproperLawError` for a law that does not exist, and `ValueError` naming the argument
    that is wrong, before anything is computed or written.
    """
    for name, number, least in (
        ("draws", draws, 1),
        ("chains", chains, 1),
        ("warmup", warmup, 0),
        ("thinning", thinning, 1),
    ):
        step_count(name, number, at_least=least)
    step_count("warmup + draws · thinning", warmup + draws * thinning)
    random_seed(seed)
    chosen = _kernel_for(law, kernel)
    axes = grid_axes(law, chosen, grid, warmup)
    cells = settings_of_cells(law, chosen, axes)
    layout = Layout(axes, chains, lane="chain", record="draw")
    said = functools.partial(describe, code=identity is None)
    attributes = provenance(
        "draws",
        identity=identity,
        law=_describe_target(law, said),
        kernel="exact draws" if chosen is None else type(chosen).__name__,
        kernel_settings={} if chosen is None else said(_kernel_settings(chosen, law is None)),
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
        return _exact_draws(cells, layout, draws, seed, attributes)
    targets = [cell.target for cell in cells]
    wells = wells_to_start_in(targets, starts, seed)
    if wells is not None and len(wells) == 1:
        # Kept, so that a comparison can tell of wells that no chain has been to.
        attributes["wells"] = json.dumps(wells[0].tolist())
    run = Chains(
        title=type(chosen).__name__,
        blocks=Blocks.over(devices, cells=len(cells), lanes=chains, size=block_size),
        layout=layout,
        schedules=dict.fromkeys(("posterior", "sample_stats"), range(draws)),
        stretches=_stretches(warmup, draws, thinning),
        attributes=attributes,
        program=Program(chosen, law is not None),
        settings=stacked(cells),
        warmup=int(warmup),
        thinning=int(thinning),
    )
    points = starting_points(targets, starts, wells, chains, seed)
    lanes = launch(
        run.program,
        run.settings,
        np.uint32(seed),
        np.int32(warmup),
        points,
        len(cells),
        chains,
    )
    tree = run.carry_out(lanes, store=store, progress=progress)
    if diagnose:
        warn_of_poor_mixing(tree)
    return tree


def _kernel_for(law: Any, kernel: LangevinKernel | None) -> LangevinKernel | None:
    """The kernel that draws, None where a law draws exactly. Raises for a law that cannot be."""
    if law is None and kernel is None:
        raise ValueError("law must be given where the kernel is None, got None for both")
    call = "sample(law, kernel, …)"
    if kernel is not None:
        instance("kernel", kernel, LangevinKernel, "one of statsgd.kernels", call=call)
    if isinstance(law, Law):
        law.require_proper()
        if kernel is None and law.exact_draws:
            return None
    elif law is not None and (isinstance(law, type | LangevinKernel) or not callable(law)):
        instance("law", law, Law, "a Law, or a NumPyro model without arguments", call=call)
    return MALA() if kernel is None else kernel


def _stretches(warmup: int, draws: int, thinning: int) -> list[Stretch]:
    """Warm-up, then whole draws, as many in a chunk as the program can return."""
    drawing = Stretch(warmup + draws * thinning, thinning, longest=CAPACITY * thinning)
    return [Stretch(warmup), drawing] if warmup else [drawing]


def _exact_draws(
    cells: Sequence[Settings], layout: Layout, draws: int, seed: int, attributes: dict
) -> xr.DataTree:
    chains = layout.shape[-1]
    by_cell = [cell.target.draw_sites(jax.random.key(seed), chains * draws) for cell in cells]
    joined = jax.tree.map(
        lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]).reshape(
            len(cells) * chains, draws, *leaves[0].shape[1:]
        ),
        *by_cell,
    )
    recorder = InMemory(layout, {"posterior": range(draws)})
    recorder.record({"posterior": Records(0, draws, joined)})
    return recorder.finish({}, attributes)


def _describe_target(law: Any, said: Callable[[Any], Any]) -> Any:
    if isinstance(law, Law):
        fields = said(law)
        # What the user gave comes first, so that a refused store is told by that.
        given = {name: fields[name] for name in constructor_arguments(law) if name in fields}
        return law.describe() | {"arguments": given | fields}
    return said(law)


def _kernel_settings(kernel: LangevinKernel, own_target: bool) -> dict[str, Any]:
    return {
        "parameters": kernel.parameters,
        "structure": kernel.structure[1:],
        "class": type(kernel),
        "own target": (kernel._model, kernel._potential_fn) if own_target else None,
    }
