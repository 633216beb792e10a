"""Ctrl-C: where the replicas were is kept, and is where the whole run was at that step."""

import signal

import numpy as np
import pytest

from statsgd import SGD, Interrupted, noise, simulate
from statsgd.dynamics import ensemble
from statsgd.problems import landscapes
from statsgd.running import chunks

PROBLEM = landscapes.quadratic([[1.0]])


def run(steps=640, **changes):
    options = {"replicas": 5, "seed": 1, "progress": False, "observe_at": 16, "keep": 160}
    observe = {"square": lambda params: params @ params}
    sgd = SGD(0.1, noise.Isotropic(1.0), momentum=0.5)
    return simulate(PROBLEM, sgd, steps=steps, observe=observe, **(options | changes))


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C in the call of the compiled program after so many, each of 16 steps."""
    monkeypatch.setattr(chunks, "_SECONDS_PER_CHUNK", 0.0)
    compiled, calls = ensemble.advance, []

    def after(number):
        def pressed(*arguments, **options):
            calls.append(None)
            if len(calls) > number:
                signal.raise_signal(signal.SIGINT)
            return compiled(*arguments, **options)

        monkeypatch.setattr(ensemble, "advance", pressed)

    # A test run in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield after
    signal.signal(signal.SIGINT, before)


def test_replicas_and_records_so_far_are_kept_and_flagged(interrupt):
    whole, short = run(), run(steps=336)
    interrupt(21)
    with pytest.raises(Interrupted, match="after 336 of 640 steps") as stop:
        run()
    partial = stop.value.result
    assert partial.attrs == whole.attrs | {"interrupted": 1}
    assert partial["run"].steps.values.tolist() == [336] * 5
    for group in ("endpoints", "momentum_buffer", "observables", "snapshots", "run"):
        assert partial[group].to_dataset().equals(short[group].to_dataset())
    assert partial["snapshots"].step.values.tolist() == [160, 320]


def test_records_that_were_not_reached_are_left_out(interrupt):
    interrupt(3)
    with pytest.raises(Interrupted) as stop:
        run()
    assert "snapshots" not in stop.value.result.children
    assert stop.value.result["observables"].sizes["step"] == 3


def test_before_the_first_step_there_is_nothing_to_keep(interrupt):
    interrupt(0)
    with pytest.raises(KeyboardInterrupt) as stop:
        run()
    assert not isinstance(stop.value, Interrupted)


def test_with_a_store_the_same_call_goes_on(interrupt, monkeypatch, tmp_path):
    interrupt(5)
    with pytest.raises(KeyboardInterrupt) as stop:
        run(store=tmp_path / "run")
    assert not isinstance(stop.value, Interrupted)
    monkeypatch.undo()
    again = run(store=tmp_path / "run")
    np.testing.assert_array_equal(again["endpoints"].params, run()["endpoints"].params)
