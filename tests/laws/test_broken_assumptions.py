"""Every closed law away from its assumptions, where it fails and the solvers do not.

Each case breaks one assumption on purpose, in a setting whose true variance is known in closed form
or by quadrature: the numerical law must reproduce it, and the closed law must miss it by more than
a tenth.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.integrate import quad

from statsgd import problems
from statsgd.laws import (
    DiscreteChainLaw,
    EffectivePotentialGibbs,
    FlooredLossScaledLaw,
    FokkerPlanckLaw,
    Gibbs,
    HeavyBallGaussian,
    OrnsteinUhlenbeckLaw,
    PhaseSpaceGaussian,
)
from statsgd.laws.grids import Grid


class Case(NamedTuple):
    """A law, the numerical truth, and the true variances of the coordinates."""

    law: Any
    solver: Any
    variances: Any


def noise_that_grows_with_the_loss():
    # C = σ(x²/2 + c₀): 2V = ησ(V/2 + c₀). The law takes C at the minimum for constant.
    rate, strength, floor = 0.2, 5.0, 0.3
    solver = FokkerPlanckLaw(
        lambda x: -x,
        lambda x: (strength * (x**2 / 2 + floor))[:, None],
        rate,
        Grid(-12.0, 12.0, 4000),
    )
    truth = rate * strength * floor / (2 - rate * strength / 2)
    law = OrnsteinUhlenbeckLaw([[1.0]], [[strength * floor]], rate)
    return Case(law, solver, [truth])


def noise_that_does_not_grow():
    # The floored law expects noise that grows with the loss; it stays at the floor: V = ησc₀/2.
    rate, strength, floor = 0.2, 5.0, 0.3
    covariance = np.array([[strength * floor]])
    solver = FokkerPlanckLaw(lambda x: -x, covariance, rate, Grid(-3.0, 3.0, 1200))
    law = FlooredLossScaledLaw([[1.0]], rate * strength, floor)
    return Case(law, solver, [rate * strength * floor / 2])


def noise_that_is_not_isotropic():
    # Of the same trace, 1.6 and 0.4 along the axes: V_i = ηC_i/(2h_i).
    curvatures, covariance, rate = np.array([1.0, 2.0]), np.array([1.6, 0.4]), 0.1
    solver = FokkerPlanckLaw(
        lambda x: -curvatures * x, np.diag(covariance), rate, Grid([-1.8, -0.7], [1.8, 0.7], 160)
    )
    law = Gibbs(problems.quadratic(np.diag(curvatures)), rate * covariance.mean() / 2)
    return Case(law, solver, rate * covariance / (2 * curvatures))


def noise_that_varies_across_the_gradient():
    # c(y) = 1 + y² scales the noise of x too: 2V_y = η(1 + V_y), 2V_x = η(1 + V_y).
    rate = 0.25
    solver = FokkerPlanckLaw(
        lambda x: -x,
        lambda x: (1 + x[1] ** 2) * np.eye(2),
        rate,
        Grid([-4.0, -4.0], [4.0, 4.0], 200),
    )
    across = rate / (2 - rate)
    law = OrnsteinUhlenbeckLaw(np.eye(2), np.eye(2), rate)
    return Case(law, solver, [rate * (1 + across) / 2, across])


def learning_rate_that_is_not_small():
    # ηh = 0.6: the chain's variance is larger by 1/(1 − ηh/2) than that of its SDE.
    rate = 0.6
    solver = DiscreteChainLaw(lambda x: -x, [[1.0]], rate, Grid(-6.0, 6.0, 600))
    law = OrnsteinUhlenbeckLaw([[1.0]], [[1.0]], rate)
    return Case(law, solver, [rate / (2 - rate)])


def large_steps_with_momentum():
    # The continuous model of the heavy ball misses 1/(1 − ηh/(2(1+β))), here 1.25.
    rate, momentum = 0.6, 0.5
    solver = DiscreteChainLaw(lambda x: -x, [[1.0]], rate, Grid(-7.0, 7.0, 160), momentum=momentum)
    truth = HeavyBallGaussian([[1.0]], [[1.0]], rate, momentum).covariance()
    return Case(PhaseSpaceGaussian([[1.0]], [[1.0]], rate, momentum), solver, truth[0])


def loss_that_is_not_quadratic():
    # L = x²/2 + x⁴ at temperature 0.3, against the quadratic at its minimum.
    rate, variance = 0.2, 3.0
    temperature = rate * variance / 2
    weight = [
        quad(lambda x, n=n: x**n * np.exp(-(x**2 / 2 + x**4) / temperature), -4, 4)[0]
        for n in (0, 2)
    ]
    solver = FokkerPlanckLaw(lambda x: -x - 4 * x**3, [[variance]], rate, Grid(-3.0, 3.0, 1200))
    return Case(HeavyBallGaussian([[1.0]], [[variance]], rate), solver, [weight[1] / weight[0]])


@pytest.mark.parametrize(
    "build",
    [
        noise_that_grows_with_the_loss,
        noise_that_does_not_grow,
        noise_that_is_not_isotropic,
        noise_that_varies_across_the_gradient,
        learning_rate_that_is_not_small,
        large_steps_with_momentum,
        loss_that_is_not_quadratic,
    ],
    ids=lambda build: build.__name__,
)
def test_the_law_fails_and_the_solver_does_not(build):
    case = build()
    solved = np.diagonal(case.solver.covariance())[: len(case.variances)]
    np.testing.assert_allclose(solved, case.variances, rtol=0.01)
    predicted = np.diagonal(case.law.covariance())
    assert np.max(np.abs(predicted / case.variances - 1)) > 0.1


def test_a_law_that_can_tell_refuses():
    """Isotropic noise that varies across the gradient has no potential, and the law says so."""
    with pytest.raises(ValueError, match="grad c and grad L are not parallel"):
        EffectivePotentialGibbs(
            problems.quadratic(np.eye(2)), lambda x: 1 + x[1] ** 2, 0.5
        ).require_proper()
