"""Races on a clock that contestants move on themselves: nothing here depends on the machine."""

import types

import numpy as np
import pytest

from studies import benchmark
from studies.benchmark import Config, summary
from studies.peers import learning_coefficient, race


@pytest.fixture
def clock(monkeypatch):
    """What `race` takes for the time."""
    fake = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(race, "time", types.SimpleNamespace(perf_counter=lambda: fake.now))
    return fake


class Contestant:
    """Takes a start-up and so much a step, both times the machine's `slowness` in this call."""

    def __init__(self, clock, step, startup=0.0, slowness=lambda calls, steps: 1.0):
        self.clock, self.step, self.startup, self.slowness = clock, step, startup, slowness
        self.calls = []

    def __call__(self, steps=1):
        self.calls.append(steps)
        taken = self.startup + steps * self.step
        self.clock.now += taken * self.slowness(len(self.calls), steps)


def printed(measured):
    """The rows of the table that the benchmark prints."""
    group = types.SimpleNamespace(children={"case": measured}, attrs=ATTRS)
    return summary(group).splitlines()[4:]


ATTRS = {
    "machine": "none",
    "cores": 1,
    "jax_version": "0",
    "nanoseconds_per_word": 0.0,
    "nanoseconds_per_byte": 0.0,
}


def test_costs_are_those_of_a_step_without_what_it_takes_to_start(clock):
    runners = {"ours": Contestant(clock, 1e-3, startup=0.5), "theirs": Contestant(clock, 3e-3)}
    found = race.race(runners, replicas=4, repeats=2)
    np.testing.assert_allclose(found.cost, [[0.25e6] * 2, [0.75e6] * 2], rtol=1e-9)
    np.testing.assert_allclose(found.ratio, [[1, 1], [3, 3]], rtol=1e-9)
    # Each runs for about a second: from a quarter to eight times of it as it is sought.
    for runner in runners.values():
        assert 0.25 <= runner.calls[-1] * 4 * runner.step <= 8


@pytest.fixture
def rounds(monkeypatch):
    """Races of 100 steps and of 400; says of a contestant's call in which round it is, from 0."""
    monkeypatch.setattr(race, "_lasting", lambda runner: 100)
    return lambda calls: (calls - 2) // 2  # a first call compiles, and every round has two


def test_ratios_are_those_of_one_round(clock, rounds):
    # Whatever the machine does from round to round, it does to both.
    def slower(calls, steps):
        return 1.0 + rounds(calls)

    runners = {
        "ours": Contestant(clock, 1e-3, 0.2, slower),
        "theirs": Contestant(clock, 2e-3, 0.0, slower),
    }
    found = race.race(runners, replicas=1, repeats=3)
    np.testing.assert_allclose(found.cost[0], [1e6, 2e6, 3e6], rtol=1e-9)
    np.testing.assert_allclose(found.ratio, [[1, 1, 1], [2, 2, 2]], rtol=1e-9)


def bursts(clock, rounds, hit):
    """A race in which another program makes the second one's short runs in some rounds slow."""

    def slowness(calls, steps):
        return 3.8 if steps == 100 and rounds(calls) in hit else 1.0

    runners = {"ours": Contestant(clock, 1e-3), "theirs": Contestant(clock, 1e-3, 0.0, slowness)}
    return race.race(runners, replicas=1, repeats=3)


def test_a_cost_that_a_burst_hides_is_not_resolved(clock, rounds):
    # The short run takes .38 s and the long one .4: the difference is a twentieth of the time.
    found = bursts(clock, rounds, hit=[1])
    np.testing.assert_array_equal(np.isnan(found.cost), [[False] * 3, [False, True, False]])
    np.testing.assert_allclose(found.ratio[1, [0, 2]], 1.0, rtol=1e-9)
    assert printed(found)[1].startswith("| case | theirs | 1 ms | 1.00 (1.00 to 1.00) |")


def test_the_table_says_what_most_rounds_did_not_resolve(clock, rounds):
    ours, theirs = printed(bursts(clock, rounds, hit=[0, 2]))
    assert ours.startswith("| case | ours | 1 ms | 1.00")
    assert theirs.startswith("| case | theirs | not resolved |  |")


def test_there_is_no_ratio_to_what_was_not_resolved():
    found = race.table(["ours", "theirs"], np.array([[np.nan, 1.0], [2.0, 3.0]]))
    np.testing.assert_array_equal(found.ratio, [[np.nan, 1], [np.nan, 3]])


def test_whole_runs_leave_out_the_first_which_compiles(clock):
    calls = {"ours": 0}

    def ours():
        calls["ours"] += 1
        clock.now += 100.0 if calls["ours"] == 1 else 2.0

    theirs = Contestant(clock, 6.0)
    found = race.race_whole({"ours": (ours, 2), "theirs": (theirs, 2)}, repeats=3)
    assert calls["ours"] == len(theirs.calls) == 4
    np.testing.assert_allclose(found.cost, [[1e9] * 3, [3e9] * 3])


def test_a_learning_coefficient_costs_its_whole_run(clock, monkeypatch):
    def contestant(seconds, gradients, precision):
        def run(seed):
            clock.now += seconds
            return 1.25, 0.125

        return learning_coefficient.Contestant(run, gradients, precision)

    found = {"statsgd": contestant(2.0, 3, "double"), "peer": contestant(8.0, 1, "single")}
    monkeypatch.setattr(learning_coefficient, "contestants", lambda: found)
    for constant in ("nanoseconds_per_word", "nanoseconds_per_byte"):
        monkeypatch.setattr(benchmark.machine, constant, lambda: 1.0)
    result = benchmark.run(Config(cases=("learning_coefficient",), repeats=2))
    ours, theirs = summary(result).splitlines()[4:]
    # 4 chains of 2000 steps, whatever the number of gradients.
    assert ours == (
        "| learning coefficient, whole run | statsgd | 2 s | 1.00 (1.00 to 1.00) | 1.25 ± 0.12; "
        "250 µs a step of a chain, gradients: 3 in double precision |"
    )
    assert "| peer | 8 s | 4.00 (4.00 to 4.00) |" in theirs
    assert theirs.endswith("1 ms a step of a chain, gradients: 1 in single precision |")


def test_cases_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"cases must be among sde, .*, got nonsense"):
        benchmark.run(Config(cases=("nonsense",)))
