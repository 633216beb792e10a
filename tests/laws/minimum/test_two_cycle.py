import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd.laws.minimum.two_cycle import two_cycle, two_cycle_half_width
from statsgd.problems import landscape

QUARTIC = landscape(lambda p: (1 - p[0] ** 2) ** 2 / 4, np.ones(1))


@pytest.mark.parametrize(
    ("learning_rate", "points", "losses", "multiplier"),
    [
        (1.02, (0.9226058, 1.0626338), (0.0055352, 0.0041726), 0.8392),
        (1.1, (0.8145516, 1.1160630), (0.0283090, 0.0150794), 0.18),
    ],
)
def test_stable_cycle(learning_rate, points, losses, multiplier):
    cycle = two_cycle(QUARTIC, learning_rate, [1.0])
    assert_allclose(cycle.points, points, atol=5.1e-8)
    assert_allclose(cycle.losses, losses, atol=5.1e-8)
    assert_allclose(cycle.multiplier, multiplier, rtol=1e-9)  # 9 − 2(1+η)²
    assert cycle.stable
    # θ = (√(1 + 3/η) ± √(1 − 1/η))/2, and gradient descent ends there
    root = np.sqrt(1 + 3 / learning_rate), np.sqrt(1 - 1 / learning_rate)
    assert_allclose(cycle.points, [(root[0] - root[1]) / 2, (root[0] + root[1]) / 2], rtol=1e-10)
    x = 0.95
    for _ in range(20_000):
        x = x + learning_rate * x * (1 - x**2)
    assert_allclose(np.min(np.abs(cycle.points - x)), 0, atol=1e-10)


def test_cycle_loses_stability():
    cycle = two_cycle(QUARTIC, 1.25, [1.0])
    assert_allclose(cycle.multiplier, -1.125, rtol=1e-9)
    assert not cycle.stable
    edge = np.sqrt(5) - 1
    assert_allclose(two_cycle(QUARTIC, edge, [1.0]).multiplier, -1, rtol=1e-7)


def test_birth_of_the_cycle():
    # a, b, e = 1, 2, 1 at η = 2.005
    problem = landscape(lambda p: p[0] ** 2 / 2 + p[0] ** 3 / 3 + p[0] ** 4 / 24, np.zeros(1))
    assert_allclose(two_cycle_half_width(2.005, 1.0, 2.0, 1.0), 0.0368312, atol=5.1e-8)
    cycle = two_cycle(problem, 2.005, [0.0])
    assert_allclose(np.diff(cycle.points) / 2, 0.0368745, atol=5.1e-8)


def test_refusals():
    with pytest.raises(ValueError, match=r"subcritical: 3b² − ae = -6\.12"):
        two_cycle_half_width(2.005, 1.0, 0.6, 7.2)
    with pytest.raises(ValueError, match=r"learning_rate\*h = 1.8 must exceed 2"):
        two_cycle(QUARTIC, 0.9, [1.0])
