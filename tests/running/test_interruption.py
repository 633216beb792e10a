"""Ctrl-C: what was done until then is kept, and is the beginning of the whole run."""

import signal

import pytest

from statsgd import SGD, Interrupted, noise, sample, simulate
from statsgd.dynamics import ensemble
from statsgd.kernels import MALA, chains
from statsgd.laws import HeavyBallGaussian
from statsgd.problems import landscapes
from statsgd.running import chunks
from tests.running.cases import same

PROBLEM = landscapes.quadratic([[1.0]])
LAW = HeavyBallGaussian([[2.0, 0.1], [0.1, 1.0]], [[0.3, 0.0], [0.0, 0.2]], 0.5, 0.5)


def replicas(steps=640, **changes):
    options = {"replicas": 5, "seed": 1, "progress": False, "observe_at": 16, "keep": 160}
    observe = {"square": lambda params: params @ params}
    sgd = SGD(0.1, noise.Isotropic(1.0), momentum=0.5)
    return simulate(PROBLEM, sgd, steps=steps, observe=observe, **(options | changes))


def draws(**changes):
    options = {"warmup": 100, "draws": 300, "chains": 3, "seed": 2, "progress": False}
    return sample(LAW, MALA(step_size=0.4), diagnose=False, **(options | changes))


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C in the call of the compiled program after so many, in chunks of one unit."""
    monkeypatch.setattr(chunks, "_SECONDS_PER_CHUNK", 0.0)
    monkeypatch.setattr(chunks, "_FIRST_CHUNK", 64)
    calls = []

    def after(module, number):
        compiled = module.advance

        def pressed(*arguments, **options):
            calls.append(None)
            if len(calls) > number:
                signal.raise_signal(signal.SIGINT)
            return compiled(*arguments, **options)

        monkeypatch.setattr(module, "advance", pressed)

    # A test run in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield after
    signal.signal(signal.SIGINT, before)


def test_replicas_and_records_so_far_are_kept_and_flagged(interrupt):
    # Records at every 16 steps make every chunk one of 16.
    whole, short = replicas(), replicas(steps=336)
    interrupt(ensemble, 21)
    with pytest.raises(Interrupted, match="after 336 of 640 steps") as stop:
        replicas()
    partial = stop.value.result
    assert partial.attrs == whole.attrs | {"interrupted": 1}
    assert partial["run"].steps.values.tolist() == [336] * 5
    for group in ("endpoints", "momentum_buffer", "observables", "snapshots", "run"):
        assert partial[group].to_dataset().equals(short[group].to_dataset())
    assert partial["snapshots"].step.values.tolist() == [160, 320]


def test_records_that_were_not_reached_are_left_out(interrupt):
    interrupt(ensemble, 3)
    with pytest.raises(Interrupted) as stop:
        replicas()
    assert "snapshots" not in stop.value.result.children
    assert stop.value.result["observables"].sizes["step"] == 3


def test_draws_so_far_are_kept_and_flagged(interrupt):
    whole = draws()
    # A look at the shapes, two chunks of warm-up, of 64 and 36 steps, then one draw each.
    interrupt(chains, 1 + 2 + 25)
    with pytest.raises(Interrupted, match="after 25 of 300 draws") as stop:
        draws()
    partial = stop.value.result
    assert partial.attrs == whole.attrs | {"interrupted": 1}
    assert set(partial.children) == {"posterior", "sample_stats"}
    for group in partial.children:
        first = whole[group].to_dataset().isel(draw=slice(25))
        assert partial[group].to_dataset().equals(first)
    # Scripts stop as ever.
    assert isinstance(stop.value, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("run", "module", "number"),
    [(replicas, ensemble, 0), (draws, chains, 1)],
    ids=["before the first step", "in warm-up"],
)
def test_before_anything_is_done_there_is_nothing_to_keep(interrupt, run, module, number):
    interrupt(module, number)
    with pytest.raises(KeyboardInterrupt) as stop:
        run()
    assert not isinstance(stop.value, Interrupted)


@pytest.mark.parametrize(
    ("run", "module", "number"),
    [(replicas, ensemble, 5), (draws, chains, 100)],
    ids=["replicas", "draws"],
)
def test_with_a_store_the_same_call_goes_on(interrupt, monkeypatch, tmp_path, run, module, number):
    interrupt(module, number)
    with pytest.raises(KeyboardInterrupt) as stop:
        run(store=tmp_path / "run")
    assert not isinstance(stop.value, Interrupted)
    monkeypatch.undo()
    again = run(store=tmp_path / "run")
    assert "interrupted" not in again.attrs
    assert same(again, run())
