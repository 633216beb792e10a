"""Second calls of what users call first compile nothing: new numbers of the same shapes."""

import numpy as np
import pytest

import statsgd
from statsgd import SGD, kernels, laws, noise, problems
from statsgd.comparison.distribution_tests import TESTS
from studies.compilations import compilations

INPUTS = np.random.default_rng(0).normal(size=(40, 3))
TARGETS = INPUTS @ [1.0, -1.0, 0.5] + np.random.default_rng(1).normal(size=40)
BATCH = noise.Minibatch(8)


def problem(shift):
    return problems.linear_regression(INPUTS, TARGETS + shift)


def ensemble(shift):
    return statsgd.simulate(
        problem(shift), SGD(0.1, BATCH), steps=64, replicas=64, seed=0, progress=False
    )


def law(shift):
    return laws.HeavyBallGaussian.from_sgd(problem(shift), SGD(0.1, BATCH))


CALLS = {
    "simulate": ensemble,
    "hessian": lambda shift: statsgd.hessian(problem(shift), np.full(3, shift)),
    "noise_covariance": lambda shift: statsgd.noise_covariance(problem(shift), np.ones(3), BATCH),
    "minimise": lambda shift: statsgd.minimise(problem(shift)),
    "from_sgd": law,
    "exact draws": lambda shift: statsgd.sample(law(shift), draws=20, chains=2, seed=0),
    "sample": lambda shift: statsgd.sample(
        law(shift), kernels.MALA(), warmup=20, draws=20, chains=2, seed=0, diagnose=False,
        progress=False,
    ),
    "compare": lambda shift: statsgd.compare(ensemble(shift), law(shift), seed=0),
    "compare, every test": lambda shift: statsgd.compare(
        ensemble(shift), law(shift), seed=0, tests=TESTS
    ),
    "check": lambda shift: laws.check(laws.GaussianLaw([shift], [[1.0]]), draws=1000),
}  # fmt: skip

SLOW = {"from_sgd", "exact draws", "compare, every test", "check"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CALLS],
)
def test_second_calls_compile_nothing(name):
    CALLS[name](0.0)
    with compilations() as count:
        CALLS[name](0.3)
    assert count() == 0
