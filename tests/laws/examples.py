"""The examples that laws list themselves, each solved once in a process and where it is used."""

import functools
import itertools

from statsgd.laws import LAWS

#: One law of each base, for tests of what laws have from their base: the others are slow.
OF_EACH_BASE = {
    "HeavyBallGaussian",
    "Gibbs",
    "FlooredLossScaledLaw",
    "FokkerPlanckLaw",
    "ValleyLaw",
}


@functools.cache
def _begun(name):
    return iter(LAWS[name].examples()), []


def example(name, index=0):
    """An example of the law `name`; None beyond the last."""
    others, solved = _begun(name)
    solved.extend(itertools.islice(others, max(index + 1 - len(solved), 0)))
    return solved[index] if index < len(solved) else None


def examples(name):
    """All examples of the law `name`."""
    others, solved = _begun(name)
    solved.extend(others)
    return tuple(solved)
