"""Records on disk: a Zarr store that a run cut off at any moment can be resumed from.

Records go to Zarr arrays as they come. The state of all lanes is the one chunk of one array, with a
check sum, which Zarr replaces in one move after the records before it are written. A run that is
cut off starts again from there and writes the same records once more, so that it does not matter
what it had written since.
"""

import io
import math
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.problems.parameters import leaf_names
from statsgd.running.blocks import Blocks
from statsgd.running.processes import agreed, first_does, is_first
from statsgd.running.records import Layout, Records
from statsgd.running.store_identity import open_store

_CHUNK_BYTES = 2**20
_CHECKPOINT = "checkpoint"
_SHARE_OF_TIME = 0.05  # that writing checkpoints may take


class ZarrStore:
    """Records and checkpoints of one run in the directory `path`.

    `schedules` has, for every group, the labels of its records, and `templates` shape and dtype of
    one record of one lane.

    Raises `ValueError` if `path` holds anything else: another configuration, by the name of the
    field that differs, or no such run at all. Nothing is overwritten then.
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
        self.written, self.cost = -math.inf, 0.0
        self.processes = blocks.processes
        self.root: Any

        def make() -> None:
            self.root = open_store(self.path, attributes)
            for group, labels in schedules.items():
                if not (self.path / group / "zarr.json").exists() or self._load() is None:
                    self._create(group, templates[group], labels)

        first_does(make, self.processes)
        if not is_first(self.processes):
            self.root = zarr.open_group(str(self.path), mode="r")

    def _create(self, group: str, template: PyTree, labels: Sequence[int]) -> None:
        coords = {**self.layout.coords, self.layout.record: np.asarray(labels)}
        empty = xr.Dataset(coords=coords, attrs=self.layout.order(leaf_names(template)))
        empty.to_zarr(str(self.path), group=group, mode="w", consolidated=False, zarr_format=3)
        lanes = math.prod(self.layout.shape)

        def one_record(leaf):
            return np.broadcast_to(np.zeros((), leaf.dtype), (lanes, 1, *leaf.shape))

        variables = self.layout.variables(jax.tree.map(one_record, template), recorded=True)
        for name, (dims, array) in variables.items():
            axis = len(self.layout.shape)
            length = min(len(labels), max(1, _CHUNK_BYTES // max(1, array.nbytes)))
            self.root[group].create_array(
                name,
                shape=(*array.shape[:axis], len(labels), *array.shape[axis + 1 :]),
                chunks=(*array.shape[:axis], length, *array.shape[axis + 1 :]),
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
        if is_first(self.processes):
            self._flush()
            self._save(step, lanes)
        self.written = time.monotonic()
        self.cost = self.written - begin

    def _flush(self) -> None:
        lead = (slice(None),) * len(self.layout.shape)
        for group, pending in self.pending.items():
            if not pending:
                continue
            values = [records.values for records in pending]
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *values)
            there = slice(pending[0].first, pending[-1].first + pending[-1].number)
            for name, (_, array) in self.layout.variables(joined, recorded=True).items():
                self.root[group][name][(*lead, there)] = array
            pending.clear()

    def _save(self, step: int, lanes: PyTree) -> None:
        from zarr.codecs import Crc32cCodec

        leaves = jax.tree.leaves(lanes)
        file = io.BytesIO()
        np.savez(file, step=step, **{f"leaf_{i}": leaf for i, leaf in enumerate(leaves)})
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
        try:
            with np.load(io.BytesIO(self.root[f"{_CHECKPOINT}/state"][:].tobytes())) as saved:
                return {name: saved[name] for name in saved.files}
        except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
            raise ValueError(
                f"store {self.path} is damaged: {_CHECKPOINT}: {error}; without the directory "
                f"{_CHECKPOINT} the run starts again"
            ) from None

    def resume(self, state: PyTree) -> tuple[int, PyTree]:
        """The step and the lanes of the last checkpoint, or `state` at −1 if there is none."""
        saved = self._load()
        if saved is None:
            return -1, state
        leaves, structure = jax.tree.flatten(state)
        arrays = [saved[f"leaf_{i}"] for i in range(len(leaves))]
        found = [
            # Bytes alone are left of dtypes that files do not know.
            jnp.asarray(array.view(leaf.dtype) if array.dtype.kind == "V" else array)
            for array, leaf in zip(arrays, leaves, strict=True)
        ]
        return int(saved["step"]), jax.tree.unflatten(structure, found)

    def finish(self, groups: Mapping[str, xr.Dataset], attributes: dict) -> xr.DataTree:
        """Write `groups` and open the whole store; its arrays are read when they are used."""

        def write() -> None:
            for name, dataset in groups.items():
                dataset.to_zarr(
                    str(self.path), group=name, mode="w", consolidated=False, zarr_format=3
                )

        first_does(write, self.processes)
        whole = xr.open_datatree(str(self.path), engine="zarr", consolidated=False)
        return whole.drop_nodes(_CHECKPOINT)
