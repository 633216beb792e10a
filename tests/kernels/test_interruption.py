"""Ctrl-C: what was drawn is kept, and is the beginning of what the whole run draws."""

import signal

import numpy as np
import pytest

from statsgd import Interrupted, sample
from statsgd.kernels import MALA, chains
from statsgd.laws import HeavyBallGaussian
from statsgd.running import chunks

LAW = HeavyBallGaussian([[2.0, 0.1], [0.1, 1.0]], [[0.3, 0.0], [0.0, 0.2]], 0.5, 0.5)
WHOLE = 300


def run(**changes):
    options = {"warmup": 100, "draws": WHOLE, "chains": 3, "seed": 2, "progress": False}
    return sample(LAW, MALA(step_size=0.4), diagnose=False, **(options | changes))


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C while so many chunks, here of 64 steps, are under way."""
    monkeypatch.setattr(chunks, "_SECONDS_PER_CHUNK", 0.0)
    advance, calls = chains.advance, []

    def after(number):
        def pressed(*arguments, **options):
            calls.append(None)
            if len(calls) > number:
                signal.raise_signal(signal.SIGINT)
            return advance(*arguments, **options)

        monkeypatch.setattr(chains, "advance", pressed)

    monkeypatch.setattr(chunks, "_FIRST_CHUNK", 64)
    # A test run in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield after
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole():
    return run()


def test_draws_so_far_are_kept_and_flagged(interrupt, whole):
    # Two chunks of warm-up, then, as the time allowed is nil, one draw each.
    interrupt(2 + 25)
    with pytest.raises(Interrupted, match="after 25 of 300 draws") as stop:
        run()
    partial = stop.value.result
    assert partial.attrs == whole.attrs | {"interrupted": 1}
    assert set(partial.children) == {"posterior", "sample_stats"}
    for group in partial.children:
        first = whole[group].to_dataset().isel(draw=slice(25))
        assert partial[group].to_dataset().equals(first)
    # Scripts stop as ever.
    assert isinstance(stop.value, KeyboardInterrupt)


def test_in_warm_up_there_is_nothing_to_keep(interrupt):
    interrupt(1)
    with pytest.raises(KeyboardInterrupt) as stop:
        run()
    assert not isinstance(stop.value, Interrupted)


def test_with_a_store_the_same_call_goes_on(interrupt, whole, tmp_path, monkeypatch):
    interrupt(100)
    with pytest.raises(KeyboardInterrupt):
        run(store=tmp_path / "draws")
    monkeypatch.undo()
    again = run(store=tmp_path / "draws")
    assert "interrupted" not in again.attrs
    np.testing.assert_array_equal(again["posterior"].params, whole["posterior"].params)
