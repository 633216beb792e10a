"""What a worker does: cells in, records or errors out, under the settings of the caller."""

import dataclasses
import json
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from statsgd.description import describe, undescribed
from statsgd.sweeps.cells import Cell, Table, without
from statsgd.sweeps.records import Failure, Record, as_record

_NUMERICS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
"""Settings of JAX that numbers depend on."""


class Task(NamedTuple):
    """Cells that one call of `run` is about: one of them, unless it takes batches."""

    cells: tuple[Cell, ...]


class TaskResult(NamedTuple):
    """What became of a task: one entry for each of its cells."""

    task: Task
    records: list[Record | Failure]


@dataclasses.dataclass(frozen=True)
class Work:
    """`run` and what else results depend on, to be sent to workers."""

    run: Callable[[Any], Any]
    dims: tuple[str, ...]
    batched: bool
    numerics: dict[str, Any]

    def take_on_numerics(self) -> None:
        """Give a worker's process the numerical settings of the process that sent this."""
        for name, value in self.numerics.items():
            jax.config.update(name, value)

    def __call__(self, cells: Sequence[Cell]) -> list[Record | Failure]:
        """Records of all `cells`; those of a batch that raises are run again one by one."""
        try:
            if self.batched:
                return self._batch(cells)
            return [as_record(self.run(cell), self.dims) for cell in cells]
        except Exception as error:  # whatever a cell raises is its result, not the end of the sweep
            if len(cells) > 1:
                return [record for cell in cells for record in self([cell])]
            below = error.__traceback__.tb_next if error.__traceback__ else None
            text = traceback.format_exception(type(error), error, below)
            return [Failure("".join(text).strip())]

    def _batch(self, cells: Sequence[Cell]) -> list[Record | Failure]:
        results = self.run(list(cells))
        if not isinstance(results, list | tuple) or len(results) != len(cells):
            got = len(results) if isinstance(results, list | tuple) else type(results)
            raise ValueError(f"run must return a list of {len(cells)} results, got {got}")
        return [as_record(result, self.dims) for result in results]


@runtime_checkable
class Executor(Protocol):
    """Where tasks are run."""

    def outcomes(self, work: Work, tasks: Sequence[Task], retries: int) -> Any:
        """A generator of the outcomes of all `tasks`, in any order; closing it stops the rest."""


def numerics() -> dict[str, Any]:
    """The settings of JAX here that numbers depend on."""
    return {name: getattr(jax.config, name) for name in _NUMERICS}


def divide(
    table: Table, holes: Sequence[int], root_seed: int, batched: Sequence[str], size: int | None
) -> list[Task]:
    """The cells `holes` as tasks: batches that differ in the settings `batched` alone."""
    groups: dict[str, list[Cell]] = {}
    for index in holes:
        config = table.configs[index]
        same = describe(without(config, batched))
        alone = not batched or undescribed(same)
        rest = str(index) if alone else json.dumps(same)
        groups.setdefault(rest, []).append(Cell(index, config, root_seed))
    return [
        Task(tuple(cells[first : first + (size or len(cells))]))
        for cells in groups.values()
        for first in range(0, len(cells), size or len(cells))
    ]
