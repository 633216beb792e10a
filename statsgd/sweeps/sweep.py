"""Many settings, each run once, wherever there are workers, into one store."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from statsgd.arguments import count, random_seed
from statsgd.description import describe
from statsgd.progress import silent
from statsgd.provenance import provenance
from statsgd.sweeps.cells import Cell, Table, lay_out
from statsgd.sweeps.executors import executor_for
from statsgd.sweeps.records import Failure, Record
from statsgd.sweeps.store import SweepStore, read
from statsgd.sweeps.work import Work, divide, numerics


class IncompleteSweepWarning(UserWarning):
    """Some cells of a sweep have no result."""


def sweep(
    run: Callable[[Any], Any],
    cells: Mapping[str, Any] | Sequence[Any],
    *,
    store: str | Path,
    seed: int,
    identity: str | None = None,
    executor: Any = None,
    batched: Sequence[str] = (),
    batch_size: int | None = None,
    retries: int = 2,
    progress: bool = True,
    watch: Callable[[Cell, Record | Failure], Any] | None = None,
) -> xr.DataTree:
    """Run every cell of a sweep once, into the Zarr store `store`, and return what is in it.

        def run(cell):
            sgd = statsgd.SGD(cell["learning_rate"], Minibatch(cell["batch_size"]))
            ensemble = statsgd.simulate(problem, sgd, steps=1000, replicas=64, seed=cell.seed)
            return ensemble["endpoints"].to_dataset().var("replica")

        cells = {"learning_rate": [0.1, 0.2], "batch_size": [1, 4, 16]}
        tree = statsgd.sweep(run, cells, store="rates.zarr", seed=0, executor="processes")
        tree["results"].params.sel(learning_rate=0.1)

    Every cell writes its own region of the store, and is then marked as done. Called again with
    the same arguments, after it was cut off at any moment or after cells failed, a sweep runs the
    cells that are not done and no others. A cell depends on its settings and on random numbers
    folded from `seed` and its number alone (`cell.seed`, `cell.key`): executors, workers, batches
    and interruptions do not change a bit, as long as `run` does not depend on the number of
    threads.

    **Arguments:**

    - `run`: from a `Cell` to a `Dataset` or `DataTree` of numbers, truth values and words, of the
      same structure for every cell. Of attributes the order of parameters alone is kept. An
      exception is the end of its cell only: its text is kept, and the next call tries again.
    - `cells`: values along named axes, every combination of which is a cell; or a list of configs,
      dicts or dataclass instances, along a dim `cell`.
    - `store`: a new directory, or that of the same sweep. `statsgd.sweeps.read` reads it meanwhile.
    - `identity`: a name and version of the code that is called, for a `store`. Functions and
      classes are then known by it and by their names, not by their code and all that it reaches. A
      store needs it where something has no exact description, and says so.
    - `executor`: None or `"serial"`; `"processes"` or `sweeps.Processes(workers=…)`; a
      `dask.distributed.Client` or the address of a scheduler (extra `distributed`).
    - `batched`: names of settings that may differ within one call of `run`, which then takes a
      list of cells and returns the list of their results: `statsgd.batch` makes one compiled call
      of cells that differ in traced numbers. If a batch raises, its cells are run one by one.
    - `batch_size`: the most cells of a batch; None for all that go together.
    - `retries`: how often a cell whose worker died is started again.
    - `watch`: called here with every cell and what it left, once that is in the store.

    **Returns** the tree of `statsgd.sweeps.read`. Warns (`IncompleteSweepWarning`) of cells that
    failed. Raises `ValueError` naming the argument that is wrong, before anything is computed or
    overwritten, and `StoreError` where the store cannot be written or another call writes to it.

    >>> import tempfile, xarray
    >>> def squared(cell):
    ...     return xarray.Dataset({"square": cell["x"] ** 2})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep(squared, {"x": [1.0, 2.0]}, store=f"{folder}/s", seed=0, progress=False)
    ...     found["results"].square.values.tolist()
    [1.0, 4.0]
    """
    random_seed(seed)
    count("retries", retries, at_least=0)
    if not callable(run):
        raise ValueError(f"run must be a function of a cell, got {run!r}")
    if isinstance(batched, str):
        raise ValueError(f"batched must be a sequence of names, got {batched!r}")
    if batch_size is not None:
        count("batch_size", batch_size)
    chosen = executor_for(executor)
    table = lay_out(cells)
    divide(table, range(len(table.configs)), seed, batched, batch_size)  # checks the names
    work = Work(run, table.dims, bool(batched), numerics())
    attributes = _attributes(run, table, seed, identity)
    with contextlib.closing(SweepStore(store, table, attributes)) as book:
        tasks = divide(table, book.holes(), seed, batched, batch_size)
        failures: list[tuple[Cell, Failure]] = []
        with (
            tqdm(
                total=len(table.configs),
                initial=int(book.done.sum()),
                unit="cell",
                desc="sweep",
                disable=silent(progress),
            ) as bar,
            contextlib.closing(chosen.outcomes(work, tasks, retries)) as outcomes,
        ):
            for task, records in outcomes:
                for cell, record in zip(task.cells, records, strict=True):
                    kept = book.keep(cell.index, record)
                    if isinstance(kept, Failure):
                        failures.append((cell, kept))
                        bar.set_postfix(failed=len(failures))
                    bar.update()
                    if watch is not None:
                        watch(cell, kept)
    if failures:
        cell, failure = min(failures, key=lambda pair: pair[0].index)
        warnings.warn(
            f"{len(failures)} of {len(table.configs)} cells failed, the first at {cell.config}: "
            f"{failure.error.splitlines()[-1]}; the texts are in cells/error of {store}, and the "
            "same call tries again",
            IncompleteSweepWarning,
            stacklevel=2,
        )
    return read(store)


def _attributes(
    run: Callable[[Any], Any], table: Table, seed: int, identity: str | None
) -> dict[str, Any]:
    said = functools.partial(describe, code=identity is None)
    return provenance(
        "sweep",
        identity=identity,
        run=said(run),
        axes=said(table.axes),
        # Along named axes these would only say it again.
        configs=said(table.configs) if table.dims == ("cell",) else [],
        seed=int(seed),
        numerics=numerics(),
    )
