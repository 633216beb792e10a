"""The examples that every law lists itself, solved once in a process and only where a test asks."""

import functools

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
def examples(name):
    """The examples of the law `name`."""
    return LAWS[name].examples()
