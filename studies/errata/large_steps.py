"""Errata of large steps: the noise at a loss that stays level."""

import numpy as np

from statsgd import noise
from statsgd.problems import linear_regression
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register


@register(
    source="Andriushchenko, Varre, Pillaud-Vivien, Flammarion (2023), arXiv:2210.05337",
    printed="At a loss that stays at the level ℒ the noise of a step has the covariance 2ℒJᵀJ/N.",
    correction="That replaces each squared residual by their mean, and is right for equal "
    "residuals alone: C is the covariance of rᵢJᵢ.",
    evidence="Variance of the gradients of 200 examples, with residuals ± a power of the input.",
    title="Gradient noise at the loss level ½",
    x="power q of the input, |r| ∝ |x|^q",
    y="variance of the gradient",
    margin=0.05,
)
def mean_residual(effort: Effort) -> Curves:
    """Residuals that grow with the inputs."""
    half = np.random.default_rng(0).normal(size=100)
    inputs = np.concatenate([half, half])
    inputs /= np.sqrt(np.mean(inputs**2))
    signs = np.repeat([1.0, -1.0], 100)

    def residuals(power):
        sizes = np.abs(inputs) ** power
        return signs * sizes / np.sqrt(np.mean(sizes**2))

    def corrected(power):
        problem = linear_regression(inputs[:, None], residuals(power))
        return float(noise.Minibatch(1).covariance(problem, np.zeros(1))[0, 0])

    at = np.array([0.0, 0.25, 0.5, 1.0, 1.5])
    truth = [np.var(inputs * residuals(power)) for power in at]
    return Curves(at, truth, lambda power: np.mean(residuals(power) ** 2), corrected)
