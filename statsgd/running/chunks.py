"""Chunks of steps: short enough for progress, stores and Ctrl-C, long enough to cost nothing.

The number of steps of a chunk is traced where it is computed, so that chunks of any length share
one compilation.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
from tqdm.auto import tqdm

from statsgd.progress import silent
from statsgd.running.processes import agreed, is_first

_SECONDS_PER_CHUNK = 0.5  # how often progress shows, stores are written and Ctrl-C is heard
_FIRST_CHUNK = 16  # steps, before it is known how long one takes


class Stretch(NamedTuple):
    """Steps up to `end`, in chunks that are whole units but for the last."""

    end: int
    unit: int = 1
    longest: int | None = None
    """Steps that a chunk may have."""

    def chunk(self, done: int, length: float) -> int:
        """Steps of a chunk that begins after `done` steps and should have about `length`."""
        most = self.end - done if self.longest is None else min(self.longest, self.end - done)
        return min(max(1, int(length) // self.unit) * self.unit, most)


def in_chunks[S, R](
    advance: Callable[[S, int, int], tuple[S, R]],
    state: S,
    stretches: Sequence[Stretch],
    *,
    done: int,
    title: str,
    progress: bool,
    processes: int = 1,
) -> Iterator[tuple[int, S, R]]:
    """Go through all stretches, and yield steps done, state and results after every chunk.

    `advance` takes the state, the steps done and how many to take, and returns the state then and
    what is to be told of the chunk. `done` is −1 where nothing is done: a stretch that ends at 0
    is then a chunk of no steps. Chunks are the same in all of several processes.
    """
    ahead = [stretch for stretch in stretches if stretch.end > done]
    if not ahead:
        return
    length, compiled = float(_FIRST_CHUNK), False
    with tqdm(
        total=ahead[-1].end,
        initial=max(done, 0),
        unit="step",
        desc=title,
        disable=silent(progress and is_first(processes)),
    ) as bar:
        for stretch in ahead:
            while done < stretch.end:
                done = max(done, 0)
                steps = agreed(stretch.chunk(done, length), processes)
                begin = time.perf_counter()
                state, result = jax.block_until_ready(advance(state, done, steps))
                if compiled:  # the first call compiles: its time says nothing about the next
                    pace = (time.perf_counter() - begin) / steps
                    length = max(1.0, min(8 * length, _SECONDS_PER_CHUNK / pace))
                compiled = True
                done += steps
                bar.update(steps)
                yield done, state, result
