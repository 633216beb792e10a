"""Laws near a minimum, on quadratic losses, where the chain's moments are known exactly."""

from typing import Any

import numpy as np

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.laws import (
    Gibbs,
    HeavyBallGaussian,
    LinearRegressionGaussian,
    OrnsteinUhlenbeckLaw,
    PhaseSpaceGaussian,
)
from statsgd.problems import Problem, landscapes, linear_regression
from studies.atlas_families.family import AtlasCell, Effort, register, simulated, within

_STEPS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 1.6)
_MOMENTA = (0.0, 0.5, 0.9)


def _quadratic(step: float, momentum: float, law: Any) -> AtlasCell:
    """One parameter of curvature 1 with constant Gaussian noise: the chain is normal."""
    problem = landscapes.quadratic([[1.0]])
    sgd = SGD(step, noise.Isotropic(1.0), momentum)
    chain = HeavyBallGaussian.from_sgd(problem, sgd)
    return AtlasCell(Marginal.of_law(chain), Marginal.of_law(law.from_sgd(problem, sgd)))


_CONTINUOUS = {
    "problem": "quadratic loss, constant Gaussian noise",
    "coordinate": "a parameter of curvature h",
    "truth": "exact moments of the chain, which is normal",
    "axes": {"ηh": _STEPS, "β": _MOMENTA},
    "domain": "ηh ≪ 2(1 + β)",
    "valid": lambda step, momentum: step <= 0.1 * 2 * (1 + momentum),
}


@register(law="Gibbs", **_CONTINUOUS)
def gibbs(effort: Effort, step: float, momentum: float) -> AtlasCell:
    """The Gibbs law lacks the factor 1/(1 − ηh/(2(1 + β))) of the chain's variance."""
    return _quadratic(step, momentum, Gibbs)


@register(law="OrnsteinUhlenbeckLaw", **_CONTINUOUS)
def ornstein_uhlenbeck(effort: Effort, step: float, momentum: float) -> AtlasCell:
    """First-order SDE, the same factor."""
    return _quadratic(step, momentum, OrnsteinUhlenbeckLaw)


@register(law="PhaseSpaceGaussian", **_CONTINUOUS)
def phase_space(effort: Effort, step: float, momentum: float) -> AtlasCell:
    """Second-order SDE, the same variance of positions as the first-order one."""
    return _quadratic(step, momentum, PhaseSpaceGaussian)


def _regression(step: float, batch_size: float, law: Any) -> tuple[Problem, SGD, Any]:
    """One parameter, 200 examples with label noise, minibatches with replacement; and a law."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 1))
    inputs /= np.sqrt(np.mean(inputs**2))  # the curvature is 1
    problem = linear_regression(inputs, rng.normal(size=200))
    sgd = SGD(step, noise.Minibatch(int(batch_size)))
    return problem, sgd, law.from_sgd(problem, sgd)


def _against_regression(effort: Effort, problem: Problem, sgd: SGD, predicted: Any) -> AtlasCell:
    predicted.require_proper()
    steps = int(np.ceil(12 / float(sgd.learning_rate)))
    return AtlasCell(simulated(problem, sgd, effort, steps), Marginal.of_law(predicted))


_MINIBATCH = {
    "problem": "linear regression on 200 examples, one parameter, minibatches with replacement",
    "coordinate": "the parameter",
    "truth": "a simulated ensemble of SGD",
    "axes": {"ηh": (0.01, 0.03, 0.1, 0.3, 0.6), "S": (1.0, 2.0, 4.0, 16.0, 64.0)},
}


@register(
    law="HeavyBallGaussian",
    domain="noise constant: ηh(1 + κ)/S ≪ 1, κ ≈ 3 the kurtosis of inputs",
    valid=lambda step, batch_size: 4 * step / batch_size <= 0.1,
    **_MINIBATCH,
)
def heavy_ball(effort: Effort, step: float, batch_size: float) -> AtlasCell:
    """Noise frozen at the minimum: too narrow where noise grows away from it."""
    return _against_regression(effort, *_regression(step, batch_size, HeavyBallGaussian))


def _normal_shape(step: float, batch_size: float) -> tuple[Problem, SGD, Any]:
    return _regression(step, batch_size, LinearRegressionGaussian)


@register(
    law="LinearRegressionGaussian",
    domain="moments everywhere; marginals for skewness ≤ 0.3 and excess kurtosis ≤ 0.15",
    valid=within(_normal_shape),
    **_MINIBATCH,
)
def linear_regression_gaussian(effort: Effort, step: float, batch_size: float) -> AtlasCell:
    """Exact moments; what is left is that the true marginals have heavier tails."""
    return _against_regression(effort, *_normal_shape(step, batch_size))
