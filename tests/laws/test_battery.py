"""What every law in the registry must do, on the examples that it lists itself."""

import functools

import pytest

from statsgd.laws import LAWS
from statsgd.laws.battery import TESTS, run_test
from statsgd.laws.evidence import Evidence

MOST = 6
EXAMPLES = [
    # Every law's first example by default, the others with the slow tests; they are solved in
    # tests alone, not where these are collected.
    pytest.param(name, i, id=f"{name}-{i}", marks=[pytest.mark.slow] if i else [])
    for name in sorted(LAWS)
    for i in range(MOST)
]


@functools.cache
def examples(name):
    """The examples of a law, solved once."""
    return LAWS[name].examples()


@functools.cache
def evidence(name, index):
    """One set of draws for all tests of an example."""
    assert 1 <= len(examples(name)) <= MOST, "a law lists a few examples"
    if index >= len(examples(name)):
        pytest.skip(f"{name} lists {len(examples(name))} examples")
    return Evidence(examples(name)[index])


@pytest.mark.parametrize("name", sorted(LAWS))
def test_law_describes_itself(name):
    law = LAWS[name]
    for text in (law.setting, law.exactness, law.citation, law.__doc__):
        assert text


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("name", "index"), EXAMPLES)
def test_law_passes_the_battery(name, index, test):
    outcome = run_test(test, evidence(name, index))
    if outcome.passed is None:
        pytest.skip(outcome.words)
    assert outcome.passed, outcome.words
