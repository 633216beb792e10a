"""Clipped gradients: what is left of normal noise, and which law speaks about them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, norm

import statsgd
from statsgd import SGD, OptaxDynamics, noise, problems
from statsgd.laws import AdaptiveGaussian, LinearOptimiserGaussian, applicable
from statsgd.laws.minimum import Adam, ClippedOptimiser, LinearOptimiser, SignDescent
from statsgd.laws.minimum.clipping import Clipping, clipped_covariance, clipping_of

HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]])
BOWL = problems.landscape(lambda x: 0.5 * x @ jnp.asarray(HESSIAN) @ x, np.zeros(2))
LINE = problems.landscape(lambda x: 0.5 * x @ x, np.zeros(1))
SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])
KICKS = noise.Anisotropic(SKEW)


def clipped(clip, optimiser, kicks=KICKS):
    return OptaxDynamics(optax.chain(clip, optimiser), kicks)


@pytest.mark.parametrize("bound", [0.05, 0.8, 4.0])
def test_covariance_of_clipped_normal_numbers(bound):
    found = clipped_covariance(SKEW, bound)
    for i in range(2):
        sigma = np.sqrt(SKEW[i, i])
        inside = quad(lambda x, s=sigma: x**2 * norm.pdf(x, scale=s), -bound, bound)[0]
        wanted = inside + bound**2 * 2 * norm.sf(bound / sigma)
        assert found[i, i] == pytest.approx(wanted, rel=1e-9)
    # Price: the slope of E f(x)f(y) in Cov(x, y) is P(|x| < b, |y| < b), here by quadrature.
    cross = [clipped_covariance(SKEW + c * np.eye(2)[::-1], bound)[0, 1] for c in (-1e-3, 1e-3)]
    slope = 0.6 / 1.0
    rest = np.sqrt(0.8 - 0.6**2)

    def both(x):
        ends = [(edge - slope * x) / rest for edge in (-bound, bound)]
        return norm.pdf(x) * (norm.cdf(ends[1]) - norm.cdf(ends[0]))

    assert np.diff(cross)[0] / 2e-3 == pytest.approx(quad(both, -bound, bound)[0], rel=1e-4)


def test_limits_are_the_linear_law_and_sign_descent():
    linear = LinearOptimiser.sgd(0.1, 0.9)
    never = AdaptiveGaussian(HESSIAN, SKEW, ClippedOptimiser(linear, 50.0, 2))
    plain = LinearOptimiserGaussian(HESSIAN, SKEW, linear)
    np.testing.assert_allclose(never.covariance(), plain.covariance(), rtol=1e-9)
    always = ClippedOptimiser(LinearOptimiser.sgd(1e3), 1e-4, 2)
    signs = AdaptiveGaussian(HESSIAN, SKEW, SignDescent(0.1, 2))
    law = AdaptiveGaussian(HESSIAN, SKEW, always)
    np.testing.assert_allclose(law.covariance(), signs.covariance(), rtol=1e-3)


@pytest.mark.parametrize(
    ("bound", "rate", "beta"),
    [pytest.param(0.7, 0.1, 0.0, marks=pytest.mark.slow), (1.0, 0.05, 0.9)],
)
def test_simulation(bound, rate, beta):
    # 4 standard errors of a variance over 2·10⁴ runs: .04.
    dynamics = clipped(optax.clip(bound), optax.sgd(rate, beta))
    law = AdaptiveGaussian.from_dynamics(BOWL, dynamics)
    start = np.random.default_rng(0).multivariate_normal(np.zeros(2), law.covariance(), 20_000)
    run = statsgd.simulate(
        BOWL, dynamics, steps=200, replicas=20_000, seed=1, start=np.float32(start), progress=False
    )
    ends = run["endpoints"].params.values
    ratio = np.diag(np.linalg.solve(law.covariance(), np.cov(ends.T)))
    assert np.all(np.abs(ratio - 1) < 4 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize(
    ("clip", "by_norm"), [(optax.clip(0.5), False), (optax.clip_by_global_norm(0.5), True)]
)
def test_clipping_is_found_by_updates(clip, by_norm):
    found, linear = clipping_of(clipped(clip, optax.sgd(0.1, 0.9)), BOWL)
    assert found.by_norm == by_norm
    assert found.bound == pytest.approx(0.5, rel=1e-6)
    assert linear.as_sgd(KICKS).momentum == pytest.approx(0.9)
    for other in (optax.chain(optax.sgd(0.1, 0.9), clip), optax.sgd(0.1), optax.adam(0.1)):
        assert clipping_of(OptaxDynamics(other, KICKS), BOWL) is None


def test_share_of_clipped_steps():
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(2), SKEW, 10**6)
    by_element, by_norm = Clipping(2.5, False), Clipping(3.0, True)
    # Of two elements both can be clipped: the sum over them is up to twice the share.
    share = np.mean(np.max(np.abs(draws), axis=1) > 2.5)
    assert share < by_element.share(SKEW) < 2 * share
    share = np.mean(np.linalg.norm(draws, axis=1) > 3.0)
    assert by_norm.share(SKEW) == pytest.approx(share, rel=0.08)
    assert Clipping(5.0, True).share(np.eye(3)) == pytest.approx(chi2.sf(25, 3), rel=0.02)
    assert Clipping(0.1, True).share(SKEW) == 1


@pytest.mark.parametrize("clip", [optax.clip, optax.clip_by_global_norm])
def test_a_bound_that_is_rarely_reached_is_left_out(clip):
    law = LinearOptimiserGaussian.from_dynamics(BOWL, clipped(clip(20.0), optax.sgd(0.1, 0.9)))
    plain = LinearOptimiserGaussian.from_dynamics(BOWL, SGD(0.1, KICKS, 0.9))
    np.testing.assert_allclose(law.covariance(), plain.covariance(), rtol=1e-6)
    adam = AdaptiveGaussian.from_dynamics(BOWL, clipped(clip(20.0), optax.adam(0.1)))
    free = AdaptiveGaussian(HESSIAN, SKEW, Adam(0.1, dimension=2))
    np.testing.assert_allclose(adam.covariance(), free.covariance(), rtol=1e-6)


def test_a_bound_that_is_often_reached_names_who_speaks():
    by_norm, sgd = optax.clip_by_global_norm(1.0), optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"by global norm at 1 is reached .* no law speaks"):
        LinearOptimiserGaussian.from_dynamics(BOWL, clipped(by_norm, sgd))
    with pytest.raises(ValueError, match=r"by element at 1 is reached .*AdaptiveGaussian speaks"):
        LinearOptimiserGaussian.from_dynamics(BOWL, clipped(optax.clip(1.0), sgd))
    with pytest.raises(
        ValueError, match="follow its gradients, but clipping of gradients by global"
    ):
        AdaptiveGaussian.from_dynamics(BOWL, clipped(by_norm, optax.adam(0.1)))
    kicks = noise.Isotropic(1.0)
    table = applicable(LINE, clipped(optax.clip(1.0), sgd, kicks), progress=False).set_index("law")
    assert list(table.index[table.applies]) == ["AdaptiveGaussian"]
    assert "0.001" in table.loc["LinearOptimiserGaussian", "reason"]
