"""Chunks: every step once, in whole units, and no more of them than allowed."""

import pytest

from statsgd.running import chunks
from statsgd.running.chunks import Stretch, in_chunks


def lengths(stretches, done=-1):
    """Steps done before every chunk, and how many it has."""
    taken = []

    def advance(state, done, steps):
        taken.append((done, steps))
        return state + steps, -done

    found = list(in_chunks(advance, 0, stretches, done=done, title="test", progress=False))
    assert [step for step, _, _ in found] == [done + steps for done, steps in taken]
    assert [state for _, state, _ in found] == [step - max(done, 0) for step, _, _ in found]
    assert [result for _, _, result in found] == [-done for done, _ in taken]
    return taken


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # The first call compiles, so that the second one has the first length too: 16, in sevens.
        (0.0, [14, 14] + [7] * 10 + [2] + [1] * 3 + [10] * 489 + [7]),
        # Each is up to eight times as long as the one before, and no longer than 200 in the end.
        (1e9, [14, 14, 72, 3] + [200] * 24 + [97]),
    ],
    ids=["slow steps", "fast steps"],
)
def test_chunks_are_whole_units_up_to_the_end_of_a_stretch(monkeypatch, seconds, expected):
    monkeypatch.setattr(chunks, "_SECONDS_PER_CHUNK", seconds)
    taken = lengths([Stretch(100, 7), Stretch(103), Stretch(5000, 10, longest=200)])
    assert [steps for _, steps in taken] == expected
    assert [done for done, _ in taken] == [sum(expected[:i]) for i in range(len(expected))]


def test_what_is_done_is_not_done_again():
    assert lengths([Stretch(10), Stretch(20)], done=20) == []
    assert lengths([Stretch(10), Stretch(20)], done=12) == [(12, 8)]
    # A stretch that ends at 0 is a chunk of no steps, unless it was done.
    assert lengths([Stretch(0), Stretch(5)]) == [(0, 0), (0, 5)]
    assert lengths([Stretch(0), Stretch(5)], done=0) == [(0, 5)]
