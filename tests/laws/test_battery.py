"""What every law in the registry must do, on the examples that it lists itself."""

import pytest

from statsgd.laws import LAWS
from statsgd.laws.battery import TESTS, run_test
from statsgd.laws.evidence import Evidence
from tests.laws.examples import OF_EACH_BASE, example, examples

MOST = 6
#: Which example of which law; solved in tests alone, not where these are collected.
PLACES = [(name, i) for name in sorted(LAWS) for i in range(MOST)]
#: What the classes below a law do for it.
INHERITED = ("batches", "precisions")


def every_example(*default, most=MOST):
    """The first `most` of `PLACES` of each law: the first of laws in `default` by default, the
    others with the slow tests."""
    return [
        pytest.param(
            (name, i),
            id=f"{name}-{i}",
            marks=[pytest.mark.slow] if i or name not in default else [],
        )
        for name, i in PLACES
        if i < most
    ]


@pytest.fixture(scope="module", params=every_example(*LAWS))
def evidence(request):
    """One set of draws for all tests of an example, which come one after the other."""
    name, index = request.param
    law = example(name, index)
    if law is None and index:
        pytest.skip(f"{name} lists {len(examples(name))} examples")
    assert law is not None, "a law lists an example"
    assert index < MOST - 1 or len(examples(name)) == MOST, "a law lists a few examples"
    return Evidence(law)


@pytest.mark.parametrize("name", sorted(LAWS))
def test_law_describes_itself(name):
    law = LAWS[name]
    for text in (law.setting, law.exactness, law.citation, law.__doc__):
        assert text


def assert_passes(test, evidence):
    outcome = run_test(test, evidence)
    if outcome.passed is None:
        pytest.skip(outcome.words)
    assert outcome.passed, outcome.words


@pytest.mark.parametrize("test", [name for name in TESTS if name not in INHERITED])
def test_law_passes_the_battery(evidence, test):
    assert_passes(test, evidence)


@pytest.mark.parametrize("test", INHERITED)
@pytest.mark.parametrize("evidence", every_example(*OF_EACH_BASE, most=1), indirect=True)
def test_law_inherits_what_passes_the_battery(evidence, test):
    assert_passes(test, evidence)


def test_law_speaks_in_one_line(evidence):
    words = repr(evidence.law)
    assert words.startswith(type(evidence.law).__name__)
    assert "\n" not in words
    assert "f64[" not in words
