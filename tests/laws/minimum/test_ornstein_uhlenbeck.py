"""The first-order law against known covariances, its posterior-optimal rate, and SGD."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from statsgd import SGD, ImproperLawError, noise, problems
from statsgd.laws import HeavyBallGaussian, OrnsteinUhlenbeckLaw
from statsgd.laws.minimum import optimal_learning_rate, posterior_divergence
from tests.statistical import assert_printed

SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])
THREE = np.array([[1, 0.3, -0.2], [0.3, 0.6, 0.1], [-0.2, 0.1, 0.5]])


def test_covariances():
    # V_ij = ηC_ij/((1−β)(h_i+h_j)).
    two = OrnsteinUhlenbeckLaw(np.diag([2, 0.5]), SKEW, 0.1).covariance()
    np.testing.assert_allclose(two, [[0.025, 0.024], [0.024, 0.08]], rtol=1e-12)
    tilted = OrnsteinUhlenbeckLaw(np.diag([1, 2]), [[1, 0.5], [0.5, 1]], 0.1).covariance()
    np.testing.assert_allclose(tilted, [[0.05, 1 / 60], [1 / 60, 0.025]], rtol=1e-12)
    three = OrnsteinUhlenbeckLaw(np.diag([1, 0.4, 0.1]), THREE, 0.2).covariance()
    printed = {(0, 0): ".1", (0, 1): ".04285714", (0, 2): "-.03636364"}
    printed |= {(1, 1): ".15", (1, 2): ".04", (2, 2): ".5"}
    for (i, j), value in printed.items():
        assert_printed(three[i, j], value)


def test_off_the_axes_it_solves_the_lyapunov_equation():
    hessian, decay = np.array([[2.5, -1.5], [-1.5, 2.5]]), 0.2
    law = OrnsteinUhlenbeckLaw(hessian, SKEW, 0.1, 0.7, decay)
    h, v = hessian + decay * np.eye(2), law.covariance()
    np.testing.assert_allclose(h @ v + v @ h, 0.1 * SKEW / (1 - 0.7), rtol=1e-12)


def test_rate_nearest_to_the_posterior():
    # η* = 2d(1−β)/(N tr C), and the divergence there, for the law and for the chain.
    best = optimal_learning_rate(SKEW, 1000)
    assert_printed(best, ".00222222")
    hessian = np.diag([2, 0.5])

    def divergence(law, rate):
        return posterior_divergence(law(hessian, SKEW, rate), 1000)

    assert_printed(divergence(OrnsteinUhlenbeckLaw, best), ".17604994")
    assert divergence(OrnsteinUhlenbeckLaw, 1.01 * best) > divergence(OrnsteinUhlenbeckLaw, best)
    chain = minimize_scalar(
        lambda rate: divergence(HeavyBallGaussian, rate),
        bounds=(1e-3, 4e-3),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert_printed(chain.x, ".00221917")
    assert_printed(chain.fun, ".17594069")
    assert optimal_learning_rate(SKEW, 1000, 0.9) == pytest.approx(best / 10)


def test_it_is_the_limit_of_the_chain_and_fails_at_large_rates():
    hessian = np.diag([2.0, 0.5])

    def excess(rate):
        chain = HeavyBallGaussian(hessian, np.eye(2), rate, 0.5).covariance()
        law = OrnsteinUhlenbeckLaw(hessian, np.eye(2), rate, 0.5).covariance()
        return np.diagonal(chain) / np.diagonal(law)

    # 1/(1 − ηh/(2(1+β))), where the noise commutes with the curvature.
    np.testing.assert_allclose(excess(0.75), 1 / (1 - 0.75 * np.array([2, 0.5]) / 3), rtol=1e-12)
    np.testing.assert_allclose(excess(1e-6), 1, rtol=1e-6)


def test_from_sgd():
    problem = problems.landscape(lambda x: x[0] ** 2 + 0.25 * x[1] ** 2, np.ones(2))
    law = OrnsteinUhlenbeckLaw.from_sgd(problem, SGD(0.1, noise.Anisotropic(SKEW)))
    np.testing.assert_allclose(law.covariance(), [[0.025, 0.024], [0.024, 0.08]], rtol=1e-5)
    assert law.variables == ("params",)


def test_refusals():
    flat = OrnsteinUhlenbeckLaw(np.diag([1.0, 0.0]), np.eye(2), 0.1)
    with pytest.raises(ImproperLawError, match=r"eigenvalue 0 ≤ 0 \(mode 0\)"):
        flat.covariance()
    law = OrnsteinUhlenbeckLaw(np.eye(2), np.eye(2), 0.1)
    with pytest.raises(ValueError, match="no momentum_buffer"):
        law.log_density(np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="variable must be one of"):
        law.covariance("momentum_buffer")
    with pytest.raises(ValueError, match="num_examples"):
        optimal_learning_rate(SKEW, 0)
