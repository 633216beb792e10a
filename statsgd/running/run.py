"""One run: lanes through stretches of steps, recorded on the way, cut off and resumed."""

import abc
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from jaxtyping import PyTree

from statsgd.running.blocks import Blocks, Lanes
from statsgd.running.chunks import Stretch, in_chunks
from statsgd.running.interruption import Interrupted
from statsgd.running.records import InMemory, Layout, Recorder, Records
from statsgd.running.storage import ZarrStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(abc.ABC):
    """What is run, how far, and what of it is recorded."""

    title: str
    """What the progress bar says."""
    blocks: Blocks
    layout: Layout
    schedules: Mapping[str, Sequence[int]]
    """Groups of records, with the labels of the records of each."""
    stretches: Sequence[Stretch]
    attributes: dict[str, Any]
    """Those of the result, which say whose a store is."""
    notes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Attributes of single groups without records."""

    @abc.abstractmethod
    def advance(self, lanes: Lanes, done: int, steps: int) -> tuple[Lanes, dict[str, Records]]:
        """Blocks of lanes `steps` steps after `done`, and what is recorded on the way, by group."""

    @abc.abstractmethod
    def templates(self, lanes: Lanes) -> dict[str, PyTree]:
        """Shape and dtype of one record of one lane, by group."""

    @abc.abstractmethod
    def ends(self, lanes: Lanes) -> dict[str, PyTree]:
        """Further groups of the result, without records: where the blocks of lanes are now."""

    @abc.abstractmethod
    def so_far(self, done: int) -> tuple[int, int, str]:
        """How many of how many of what there are after `done` steps: (3, 10, "draws")."""

    def carry_out(self, lanes: Lanes, *, store: str | Path | None, progress: bool) -> xr.DataTree:
        """The result of the run of `lanes`, which lie one after the other, cell by cell.

        With a `store` it goes on from the last checkpoint there. Raises `Interrupted` on Ctrl-C,
        or a plain `KeyboardInterrupt` where nothing was done or a store keeps it, `ValueError` for
        a store of something else or a damaged one, and `StoreError` for one that cannot be written.
        """
        for group, template in self.templates(lanes).items():
            self.layout.require_names(group, template)
        with contextlib.closing(self._recorder(store, lanes)) as recorder:
            return self._through(recorder, lanes, stored=store is not None, progress=progress)

    def _through(
        self, recorder: Recorder, lanes: Lanes, *, stored: bool, progress: bool
    ) -> xr.DataTree:
        done, moving = recorder.resume(lanes.moving)
        lanes = self.blocks.place(lanes._replace(moving=moving))
        chunks = in_chunks(
            self.advance,
            lanes,
            self.stretches,
            done=done,
            title=self.title,
            progress=progress,
            processes=self.blocks.processes,
        )
        try:
            for step, moved, records in chunks:
                recorder.record(self._joined(records))
                done, lanes = step, moved
                recorder.checkpoint(step, lanes.moving, last=step == self.stretches[-1].end)
        except KeyboardInterrupt:
            number, total, unit = self.so_far(max(done, 0))
            if stored:
                told = f"after {number} of {total} {unit}: the same call goes on from the store"
                raise KeyboardInterrupt(told) from None
            if number == 0:
                raise
            raise Interrupted(
                f"after {number} of {total} {unit}, which are in this exception's result "
                "(also as sys.last_value.result)",
                self._result(recorder, lanes),
            ) from None
        return self._result(recorder, lanes)

    def _recorder(self, store: str | Path | None, lanes: Lanes) -> Recorder:
        if store is None:
            return InMemory(self.layout, self.schedules)
        templates = self.templates(lanes)
        return ZarrStore(
            store, self.layout, self.blocks, self.schedules, templates, self.attributes
        )

    def _joined(self, records: Mapping[str, Records]) -> dict[str, Records]:
        def joined(found: Records) -> Records:
            values = self.blocks.join(found.values)
            return found._replace(values=jax.tree.map(lambda leaf: leaf[:, : found.number], values))

        return {group: joined(found) for group, found in records.items()}

    def _result(self, recorder: Recorder, lanes: Lanes) -> xr.DataTree:
        groups = {
            group: self.layout.dataset(self.blocks.join(tree)).assign_attrs(
                self.notes.get(group, {})
            )
            for group, tree in self.ends(lanes).items()
        }
        return recorder.finish(groups, self.attributes)
