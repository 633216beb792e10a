"""Records on disk: a Zarr store that a run cut off at any moment can be resumed from.

Records go to Zarr arrays as they come. The state of all lanes is the one chunk of one array, with a
check sum, which Zarr replaces in one move after the records before it are written. A run that is
cut off starts again from there and writes the same records once more, so that it does not matter
what it had written since. Beside the state are the check sums of all that lies before it, which a
store that is opened again is held against.
"""

import contextlib
import io
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.problems.parameters import leaf_names
from statsgd.running.blocks import Blocks
from statsgd.running.integrity import Damaged, require_intact, sum_of_values, sums_of_folders
from statsgd.running.processes import agreed, first_does, is_first
from statsgd.running.records import Layout, Records
from statsgd.running.store_identity import open_store, run_of
from statsgd.running.writing import writing

_CHUNK_BYTES = 2**20
_CHECKPOINT = "checkpoint"
_SHARE_OF_TIME = 0.05  # that writing checkpoints may take
_ANEW = f"without the directory {_CHECKPOINT} the run starts again"


class ZarrStore:
    """Records and checkpoints of one run in the directory `path`, until it is closed.

    `schedules` has, for every group, the labels of its records, and `templates` shape and dtype of
    one record of one lane. What is there already is read once and held against its check sums.

    Raises `ValueError` if `path` holds anything else: another configuration, by the name of the
    field that differs, or no such run at all, or files that are not what the run wrote. Nothing is
    overwritten then. Raises `StoreError` where it cannot be written or is in use.
    """

    def __init__(
        self,
        path: str | Path,
        layout: Layout,
        blocks: Blocks,
        schedules: Mapping[str, Sequence[int]],
        templates: Mapping[str, PyTree],
        attributes: dict,
    ):
        import zarr

        self.path = Path(path)
        self.layout = layout
        self.blocks = blocks
        self.pending: dict[str, list[Records]] = {group: [] for group in schedules}
        self.recorded = dict.fromkeys(schedules, 0)
        self.sums = {
            f"{group}/{name}": 0 for group in schedules for name in leaf_names(templates[group])
        }
        self.files: dict[str, int] = {}
        self.run = run_of(attributes)
        self.step = -1  # of the last checkpoint
        self.written, self.cost = -math.inf, 0.0
        self.processes = blocks.processes
        self.root: Any

        def make() -> None:
            with self._writing():
                self.root = held.enter_context(open_store(self.path, attributes))
                saved = self._load()
                if saved is not None:
                    self._require_whole(saved)
                    return
                for group, labels in schedules.items():
                    self._create(group, templates[group], labels)
                self.files = sums_of_folders(self.path, schedules)

        with contextlib.ExitStack() as held:
            first_does(make, self.processes)
            if not is_first(self.processes):
                self.root = zarr.open_group(str(self.path), mode="r")
            self.held = held.pop_all()

    def close(self) -> None:
        """Let others write to the store."""
        self.held.close()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self.path, lambda: f"what was there after step {max(self.step, 0)}")

    def _create(self, group: str, template: PyTree, labels: Sequence[int]) -> None:
        coords = {**self.layout.coords, self.layout.record: np.asarray(labels)}
        empty = xr.Dataset(coords=coords, attrs=self.layout.order(leaf_names(template)))
        empty.to_zarr(str(self.path), group=group, mode="w", consolidated=False, zarr_format=3)
        lanes = math.prod(self.layout.shape)

        def one_record(leaf):
            return np.broadcast_to(np.zeros((), leaf.dtype), (lanes, 1, *leaf.shape))

        variables = self.layout.variables(jax.tree.map(one_record, template), recorded=True)
        for name, (dims, array) in variables.items():
            axis, shape = len(self.layout.shape), array.shape
            length = min(len(labels), max(1, _CHUNK_BYTES // max(1, array.nbytes)))
            self.root[group].create_array(
                name,
                shape=(*shape[:axis], len(labels), *shape[axis + 1 :]),
                # An axis of no numbers has chunks of one.
                chunks=tuple(max(1, n) for n in (*shape[:axis], length, *shape[axis + 1 :])),
                dtype=array.dtype,
                dimension_names=dims,
                fill_value=np.nan if np.issubdtype(array.dtype, np.inexact) else 0,
            )

    def record(self, records: Mapping[str, Records]) -> None:
        """Keep `records` until the next checkpoint."""
        if is_first(self.processes):
            for group, found in records.items():
                self.pending[group].append(found)

    def checkpoint(self, step: int, state: PyTree, *, last: bool) -> None:
        """Write what is pending and then the state, unless that was done a moment ago."""
        begin = time.monotonic()
        due = last or begin - self.written >= self.cost / _SHARE_OF_TIME
        if not agreed(due, self.processes):
            return
        lanes = self.blocks.join(state)

        def write() -> None:
            with self._writing():
                self._flush()
                self._save(step, lanes)
            self.step = step

        first_does(write, self.processes)
        self.written = time.monotonic()
        self.cost = self.written - begin

    def _flush(self) -> None:
        axis = len(self.layout.shape)
        lead = (slice(None),) * axis
        for group, pending in self.pending.items():
            if not pending:
                continue
            values = [records.values for records in pending]
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *values)
            there = slice(pending[0].first, pending[-1].first + pending[-1].number)
            for name, (_, array) in self.layout.variables(joined, recorded=True).items():
                self.root[group][name][(*lead, there)] = array
                place = f"{group}/{name}"
                self.sums[place] = sum_of_values(array, axis, self.sums[place])
            self.recorded[group] = there.stop
            pending.clear()

    def _save(self, step: int, lanes: PyTree) -> None:
        from zarr.codecs import Crc32cCodec

        leaves = jax.tree.leaves(lanes)
        file = io.BytesIO()
        np.savez(  # of one length, whatever the numbers are
            file,
            run=self.run,
            files=json.dumps(self.files),
            recorded=np.asarray(list(self.recorded.values()), dtype=np.int64),
            sums=np.asarray(list(self.sums.values()), dtype=np.uint32),
            step=step,
            **{f"leaf_{i}": leaf for i, leaf in enumerate(leaves)},
        )
        content = np.frombuffer(file.getbuffer(), dtype=np.uint8)
        group = self.root.require_group(_CHECKPOINT)
        if "state" not in group:
            group.create_array(
                "state",
                shape=content.shape,
                chunks=content.shape,
                dtype=np.uint8,
                compressors=Crc32cCodec(),
                dimension_names=("byte",),
            )
        group["state"][:] = content

    def _load(self) -> dict[str, np.ndarray] | None:
        """The last checkpoint, None where none was written."""
        if not (self.path / _CHECKPOINT / "state" / "c" / "0").exists():
            return None
        with self._reading(_CHECKPOINT):
            content = self.root[_CHECKPOINT]["state"][:].tobytes()
            with np.load(io.BytesIO(content)) as saved:
                found = {name: saved[name] for name in saved.files}
            if found["run"] != self.run:
                raise ValueError("it is that of another run")
        return found

    @contextlib.contextmanager
    def _reading(self, place: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Zarr, its codecs and NumPy have one each for what is broken
            raise Damaged(self.path, place, error, _ANEW) from None

    def _require_whole(self, saved: Mapping[str, np.ndarray]) -> None:
        """Raise `Damaged` unless all that was written before the checkpoint is there."""
        self.files = json.loads(str(saved["files"]))
        require_intact(self.path, self.files)
        self.step = int(saved["step"])
        self.recorded = dict(zip(self.recorded, saved["recorded"].tolist(), strict=True))
        self.sums = dict(zip(self.sums, saved["sums"].tolist(), strict=True))
        for place, total in self.sums.items():
            group, _, name = place.partition("/")
            with self._reading(place):
                if self._sum_of_records(self.root[group][name], self.recorded[group]) != total:
                    raise ValueError("its records are not those that were written")

    def _sum_of_records(self, array: Any, number: int) -> int:
        axis, total = len(self.layout.shape), 0
        length = array.chunks[axis]
        for first in range(0, number, length):
            there = slice(first, min(first + length, number))
            values = array[(slice(None),) * axis + (there,)]
            total = sum_of_values(values, axis, total)
        return total

    def resume(self, state: PyTree) -> tuple[int, PyTree]:
        """The step and the lanes of the last checkpoint, or `state` at −1 if there is none."""
        saved = self._load()
        if saved is None:
            return -1, state
        leaves, structure = jax.tree.flatten(state)
        found = [jnp.asarray(saved[f"leaf_{i}"]) for i in range(len(leaves))]
        return int(saved["step"]), jax.tree.unflatten(structure, found)

    def finish(self, groups: Mapping[str, xr.Dataset], attributes: dict) -> xr.DataTree:
        """Write `groups` and open the whole store; its arrays are read when they are used.

        What is there already is left, so that others may read it meanwhile.
        """

        def write() -> None:
            with self._writing():
                for name, dataset in groups.items():
                    if not self._holds(name, dataset):
                        dataset.to_zarr(
                            str(self.path), group=name, mode="w", consolidated=False, zarr_format=3
                        )

        first_does(write, self.processes)
        whole = xr.open_datatree(str(self.path), engine="zarr", consolidated=False)
        return whole.drop_nodes(_CHECKPOINT)

    def _holds(self, name: str, dataset: xr.Dataset) -> bool:
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                xr.open_dataset(
                    str(self.path), group=name, engine="zarr", consolidated=False
                ) as there,
            ):
                return there.identical(dataset)
        except Exception:  # whatever is broken is written anew
            return False
