"""The domain that a law states: its numbers, what `applicable` makes of them, and that it holds."""

import numpy as np
import pytest

from statsgd import SGD, noise
from statsgd.comparison import accuracy
from statsgd.laws import (
    DiagonalNetworkLaw,
    InfiniteDepthNetworkLaw,
    InterpolationLaw,
    LinearRegressionGaussian,
    NoiseEquilibrium,
    SaturatingLossScaledLaw,
    TorusPowerOfLossLaw,
    applicable,
)
from statsgd.laws.domain import SmallNumber, outside
from statsgd.laws.minimum import regression_shape
from statsgd.problems import (
    diagonal_linear_network,
    landscapes,
    linear_network,
    linear_regression,
)
from studies.atlas_families import FAMILIES
from studies.atlas_families.family import Effort

# By the atlas: a setting near the border of the domain, and the next one outside it.
BORDERS = {
    "SaturatingLossScaledLaw": ((0.01, 6.0), (0.03, 8.0)),
    "TorusPowerOfLossLaw": ((0.01, 10.0), (0.03, 10.0)),
    "DiagonalNetworkLaw": ((0.01, 0.6), (0.03, 0.9)),
    "InfiniteDepthNetworkLaw": ((0.01, 0.01), (0.01, 0.1)),
    "InterpolationLaw": ((0.01, 0.1), (0.1, 0.1)),
    "NoiseEquilibrium": ((0.1, 0.03), (0.1, 0.1)),
    "LinearRegressionGaussian": ((0.1, 2.0), (0.1, 1.0)),
}


def shown(law, problem, sgd):
    return [(number.name, number.value) for number in law.small_numbers(problem, sgd)]


def close(found, expected, rel=1e-6):
    assert [name for name, _ in found] == [name for name, _ in expected]
    values = np.array([[pair[1] for pair in pairs] for pairs in (found, expected)])
    np.testing.assert_allclose(*values, rtol=rel)


def test_numbers_say_which_of_them_are_too_large():
    small, large = SmallNumber("ηh", 0.1, 0.1), SmallNumber("T ÷ T_c", 0.3, 0.1)
    assert outside([small]) == ""
    assert outside([small, large]) == "outside its domain: T ÷ T_c = 0.3 > 0.1"
    assert not SmallNumber("ηh", np.nan, 0.1).small


def test_applicable_says_where_a_law_leaves_its_domain(monkeypatch):
    laws = {"SaturatingLossScaledLaw": SaturatingLossScaledLaw}
    monkeypatch.setattr("statsgd.laws.overview.LAWS", laws)
    bowl = landscapes.quadratic(np.eye(3))

    def told(step):
        sgd = SGD(step, noise.LossScaled(8.0 / step, saturation=1.0))
        return applicable(bowl, sgd).set_index("law").loc["SaturatingLossScaledLaw"]

    # α = 5/4, so that 1 − 2α/q = 1/6.
    assert told(0.01)["applies"]
    assert not told(0.1)["applies"]
    assert told(0.1)["reason"] == "outside its domain: ηh ÷ (1 − 2α/q) = 0.6 > 0.1"


def test_loss_scaled_laws_need_steps_small_next_to_the_way_to_collapse():
    # At ε = 8 and q = 3 α = 5/4; the largest curvature is 9.
    bowl = landscapes.quadratic(np.diag([1.0, 4.0, 9.0]))
    sgd = SGD(0.001, noise.LossScaled(8e3, saturation=1.0))
    law = SaturatingLossScaledLaw.from_sgd(bowl, sgd)
    expected = [("ηh ÷ (1 − 2α/q)", 0.009 * 6), ("ηh√q", 0.009 * np.sqrt(3))]
    close(shown(law, bowl, sgd), expected)
    expected = [("η ÷ (1 − 2α/q)", 0.006), ("ηε", 0.008)]
    close(shown(TorusPowerOfLossLaw(3, 8.0), bowl, sgd), expected)


def test_networks_need_small_steps_and_distance_from_collapse():
    # x = ±√½, ±√(3/2) and y = x ± 1: b1 = b2 = 1, a1 = a2 = ¼, a3 = 5/4, g(1) = 1.
    x = np.sqrt([0.5, 1.5]).repeat(4) * np.tile([1.0, 1.0, -1.0, -1.0], 2)
    y = x + np.tile([1.0, -1.0], 4)
    sgd = SGD(0.01, noise.Minibatch(1))
    two = diagonal_linear_network(x, y)
    expected = [("ηA(f*)b₁", 0.02), ("ηA(f*)b₁ ÷ (T_c/T − 1)", 0.02 / (0.8 / 0.01 - 1))]
    close(shown(DiagonalNetworkLaw.from_sgd(two, sgd), two, sgd), expected)
    # A(1) = P M^(2/P−1) = 4/√2.
    four = diagonal_linear_network(x, y, num_layers=4, width=2)
    kernel = 4 / np.sqrt(2)
    expected = [("ηA(f*)b₁", 0.01 * kernel), ("TA(f*)g(f*) ÷ b₁f*²", 0.01 * kernel)]
    close(shown(DiagonalNetworkLaw.from_sgd(four, sgd), four, sgd), expected)
    # Three hidden layers of width two, where A = D f²/M.
    expected = [("1 ÷ D", 1 / 3), ("ηA(f*)b₁", 0.015), ("TA(f*)g(f*) ÷ b₁f*²", 0.015)]
    close(shown(InfiniteDepthNetworkLaw.from_sgd(four, sgd), four, sgd), expected)
    noiseless, decayed = (
        diagonal_linear_network(x, 2 * x),
        SGD(0.01, noise.Minibatch(1), weight_decay=0.1),
    )
    law = InterpolationLaw.from_sgd(noiseless, decayed)
    close(shown(law, noiseless, decayed), [("ηA(κ)b₁", 0.04)])


def test_noise_equilibria_need_little_scatter_across_the_orbit():
    # Of uw fitted to x = ±1, y = x ± σ: at u = w = 1 both H = 2aaᵀ, a = (1, 1), and C = 2σ²H.
    x = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    y = x + 0.3 * np.array([[1.0], [-1.0], [1.0], [-1.0]])
    start = {"weights": [np.array([[2.0]]), np.array([[0.5]])]}
    problem, sgd = linear_network(x, y, [1], start), SGD(0.05, noise.Minibatch(1))
    law = NoiseEquilibrium.from_sgd(problem, sgd, np.diag([1.0, -1.0]), start)
    np.testing.assert_allclose(law.mean(), [1, 1], rtol=1e-5)
    expected = [("ηh", 0.05 * 4), ("(η/2) Tr CH⁺ ÷ |θ|²", 0.05 * 0.3**2 / 2)]
    close(shown(law, problem, sgd), expected, 1e-4)


def test_regression_needs_a_shape_that_is_nearly_normal():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 6))
    sgd = SGD(0.05, noise.Minibatch(2))
    plane = linear_regression(inputs[:, :2], rng.normal(size=30))
    shape = regression_shape(plane, sgd)
    law = LinearRegressionGaussian.from_sgd(plane, sgd)
    expected = [
        ("|skewness|", np.abs(shape.skewness).max()),
        ("|excess kurtosis|", np.abs(shape.excess_kurtosis).max()),
    ]
    close(shown(law, plane, sgd), expected)
    space = linear_regression(inputs, rng.normal(size=30))
    law = LinearRegressionGaussian.from_sgd(space, sgd)
    close(shown(law, space, sgd), [("feedback gain", float(law.feedback_gain))])


def test_fourth_moments_that_are_infinite_are_outside_the_domain():
    # θ is multiplied by 1 − x² = −2 once in ten times, else by 0.7: E f² = 0.841, E f⁴ = 1.82.
    inputs = np.sqrt([[3.0]] + 9 * [[0.3]])
    problem, sgd = linear_regression(inputs, np.arange(10.0) % 2), SGD(1.0, noise.Minibatch(1))
    law = LinearRegressionGaussian.from_sgd(problem, sgd)
    law.require_proper()
    assert all(number.value == np.inf for number in law.small_numbers(problem, sgd))


@pytest.mark.parametrize("law", BORDERS)
def test_families_are_bounded_by_what_their_laws_state(law):
    inside, beyond = BORDERS[law]
    assert FAMILIES[law].valid(*inside)
    assert not FAMILIES[law].valid(*beyond)


@pytest.mark.slow
@pytest.mark.parametrize("law", BORDERS)
def test_laws_are_within_five_per_cent_in_their_domain_and_not_far_beyond(law):
    inside, beyond = (
        accuracy(cell.truth, cell.law).total_variation
        for cell in (FAMILIES[law].cell(Effort(20_000, 0), *at) for at in BORDERS[law])
    )
    assert inside.value < 0.05 < beyond.value
