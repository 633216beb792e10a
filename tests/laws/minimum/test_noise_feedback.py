"""Linear optimisers on linear regression, whose noise follows the state: exact second moments."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import solve_discrete_lyapunov

from statsgd import SGD, OptaxDynamics, noise, problems
from statsgd.laws import (
    EpochNoiseGaussian,
    ImproperLawError,
    LinearOptimiserGaussian,
    LinearRegressionGaussian,
)
from statsgd.laws.minimum import LinearOptimiser
from tests.statistical import assert_printed

sgd = LinearOptimiser.sgd
INPUTS = np.array([[1.0, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])
PROBLEM = problems.linear_regression(INPUTS, [1.0, -1, 0.5, 2, 0, -1.5])
BATCHES = noise.Minibatch(2, "without_replacement")
CURVATURES = np.diag([2.0, 1.0, 0.5])


def assert_all_printed(matrix, printed):
    for value, text in zip(matrix[np.triu_indices(len(matrix))], printed, strict=True):
        assert_printed(value, text)


def from_data(**options):
    return LinearOptimiserGaussian.from_dynamics(PROBLEM, SGD(0.1, BATCHES, **options))


def test_nesterov_on_six_examples():
    law = from_data(momentum=0.9, nesterov=True)
    assert_all_printed(law.covariance(), (".03428444", ".00142613", ".02985926"))
    buffer = law.covariance("momentum_buffer")
    assert_all_printed(buffer, (".37466036", "-.00527498", ".32625324"))
    assert_all_printed(1e4 * law.average(0.99).covariance(), ("4.871546", ".429157", "4.236539"))
    assert_all_printed(
        1e4 * law.average(length=100).covariance(), ("9.705573", ".855752", "8.440454")
    )
    half = from_data(momentum=0.5, nesterov=True)
    assert_all_printed(half.covariance(), (".00960985", ".00058110", ".00804118"))
    decayed = from_data(momentum=0.5, nesterov=True, weight_decay=0.1)
    assert_all_printed(decayed.covariance(), (".00918746", ".00094253", ".00899713"))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5, "weight_decay": 0.1}])
def test_heavy_ball_is_a_special_case(options):
    special = LinearRegressionGaussian.from_sgd(PROBLEM, SGD(0.1, BATCHES, **options))
    general = from_data(**options)
    np.testing.assert_allclose(general.covariance(), special.covariance(), rtol=1e-8)
    np.testing.assert_allclose(general.mean(), special.mean(), atol=1e-6)
    assert general.feedback_gain == pytest.approx(float(special.feedback_gain), rel=1e-7)


@pytest.mark.parametrize(
    ("nesterov", "variances", "gain", "averages"),
    [
        (
            True,
            (".00917829", ".01099690", ".01293910"),
            ".06685610",
            ("8.971418", "17.82315", "35.39116"),
        ),
        (
            False,
            (".02006314", ".01883764", ".01827937"),
            ".11987884",
            ("10.45666", "20.02177", "38.91126"),
        ),
    ],
)
def test_fresh_gaussian_inputs(nesterov, variances, gain, averages):
    optimiser = sgd(0.1, 0.9, nesterov=nesterov)
    law = LinearOptimiserGaussian.gaussian_inputs(CURVATURES, 0.5, 16, optimiser)
    for value, text in zip(np.diag(law.covariance()), variances, strict=True):
        assert_printed(value, text)
    smoothed = 1e5 * np.diag(law.average(0.99).covariance())
    for value, text in zip(smoothed, averages, strict=True):
        assert_printed(value, text)
    # W = Σ u h²/(S − u h²) is one where the gain is, and T = σ²W/(1−W).
    w = float(gain)
    total = np.sum(np.diag(CURVATURES) * np.diag(law.covariance()))
    assert total == pytest.approx(0.5 * w / (1 - w), rel=1e-6)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "limit"),
    [(0.0, False, 1.33333333), (0.9, False, 0.36190476), (0.9, True, 0.71915323)],
)
def test_largest_learning_rate_on_one_mode(momentum, nesterov, limit):
    for factor, stable in ((0.9999, True), (1.0001, False)):
        optimiser = sgd(factor * limit, momentum, nesterov=nesterov)
        law = LinearOptimiserGaussian.gaussian_inputs([[1.0]], 1.0, 4, optimiser)
        assert (law.feedback_gain < 1) == stable
        if stable:
            law.require_proper()
        else:
            with pytest.raises(ImproperLawError, match=r"feeds itself with gain 1\.000"):
                law.require_proper()


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        pytest.param({}, 0.90325197, marks=pytest.mark.slow),
        pytest.param({"momentum": 0.5}, 0.73062973, marks=pytest.mark.slow),
        pytest.param({"momentum": 0.5, "nesterov": True}, 0.60435352, marks=pytest.mark.slow),
        ({"momentum": 0.9, "nesterov": True}, 0.43210174),
    ],
)
def test_largest_learning_rate_on_six_examples(options, limit):
    def gain(rate):
        dynamics = SGD(rate, BATCHES, **options)
        return LinearOptimiserGaussian.from_dynamics(PROBLEM, dynamics).feedback_gain

    assert gain(0.9999 * limit) < 1 < gain(1.0001 * limit)


def test_one_rate_for_each_parameter():
    # vec P = [A⊗A + p(mean A_i⊗A_i − A⊗A)] vec P + vec noise, all of it at once.
    rates, hessian = np.diag([0.1, 0.3]), PROBLEM.hessian_matrix()
    scaled = optax.chain(
        optax.stateless(lambda updates, params: updates * jnp.array([1.0, 3.0])), optax.sgd(0.1)
    )
    law = LinearOptimiserGaussian.from_dynamics(PROBLEM, OptaxDynamics(scaled, BATCHES))
    mean = np.eye(2) - rates @ hessian
    steps = [np.eye(2) - rates @ np.outer(x, x) for x in INPUTS]
    p = 4 / (2 * 5)
    twice = (1 - p) * np.kron(mean, mean) + p / 6 * sum(np.kron(a, a) for a in steps)
    theta = PROBLEM.minimiser(0.0)
    gradients = (INPUTS @ theta - np.asarray(PROBLEM.targets))[:, None] * INPUTS
    kicks = p * rates @ gradients.T @ gradients @ rates / 6
    expected = np.linalg.solve(np.eye(4) - twice, kicks.ravel()).reshape(2, 2)
    np.testing.assert_allclose(law.covariance(), expected, rtol=1e-6)


def test_reshuffled_epochs_end_where_the_epoch_law_says():
    batches = noise.Minibatch(2, "reshuffle")
    heavy = SGD(0.1, batches, 0.5, 0.1)
    special = EpochNoiseGaussian.from_sgd(PROBLEM, heavy)
    general = LinearOptimiserGaussian.from_dynamics(PROBLEM, heavy)
    np.testing.assert_allclose(general.covariance(), special.covariance(), rtol=1e-8)
    # Nesterov: Σ over two epochs ago and older is geometric; one epoch by its own covariance,
    # C(δ_ij − 1/M) M/(M−1).
    law = LinearOptimiserGaussian.from_dynamics(PROBLEM, SGD(0.1, batches, 0.5, nesterov=True))
    chain = LinearOptimiserGaussian(
        law.hessian, law.noise_covariance, sgd(0.1, 0.5, nesterov=True)
    ).chain()
    a, kick = chain.transition, chain.noise
    powers = [np.linalg.matrix_power(a, i) for i in range(3)]
    q = sum(
        1.5 * ((i == j) - 1 / 3) * powers[i] @ kick @ powers[j].T
        for i in range(3)
        for j in range(3)
    )
    expected = solve_discrete_lyapunov(powers[2] @ a, q)[:2, :2]
    np.testing.assert_allclose(law.covariance(), expected, rtol=1e-8)
    np.testing.assert_allclose(law.after(50).covariance(), expected, rtol=1e-8)
