"""SGNHT: unknown gradient noise that heats SGHMC is removed."""

import jax
import numpy as np
import pytest

from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import SGHMC, SGNHT
from statsgd.problems import empirical_risk
from tests.kernels.stochastic import walk
from tests.kernels.test_sghmc import lyapunov
from tests.statistical import assert_mean_within

DIMENSION, CHAINS = 16, 500


@pytest.mark.slow
def test_thermostat_corrects_where_sghmc_is_too_hot():
    # ±√d along each axis: data of unit covariance.
    data = np.concatenate([np.eye(DIMENSION), -np.eye(DIMENSION)]) * np.sqrt(DIMENSION)
    number = len(data)
    problem = empirical_risk(
        lambda params, y: ((params - y) ** 2).sum() / 2 / number, data, np.zeros(DIMENSION)
    )
    # The loss is divided by N, so that U has λ = 1 and its gradient noise C = 1 in each direction.
    h, friction = 0.1, 0.5
    noise = Minibatch(1)
    covariance = number**2 * noise.covariance(problem, np.zeros(DIMENSION, np.float32))
    np.testing.assert_allclose(covariance, np.eye(DIMENSION), atol=1e-5)
    settings = {"step_size": h, "friction": friction, "temperature": 0.4}
    start = np.sqrt(0.4) * np.random.default_rng(0).standard_normal((CHAINS, DIMENSION))
    hot = walk(SGHMC.from_problem(problem, noise, **settings), start, 300)
    cool = walk(SGNHT.from_problem(problem, noise, inertia=0.3, **settings), start, 600)

    def square(state):
        return np.mean(np.asarray(state.z, float) ** 2, axis=1)

    expected = lyapunov(h, friction, 1.0, 1.0, 0.4)[0, 0]
    assert expected > 1.2 * 0.4
    assert_mean_within(square(hot), expected)
    # The thermostat holds the midpoint velocity at T, and with it λ Var x.
    assert_mean_within(square(cool), 0.4)
    # α has centre −ln(1 − hA − h²C/(2T))/h and variance T/(dμ).
    alpha = np.asarray(cool.core.thermostat, float)
    assert_mean_within(alpha, -np.log(1 - h * friction - h**2 / (2 * 0.4)) / h)
    assert_mean_within((alpha - alpha.mean()) ** 2, 0.4 / (DIMENSION * 0.3), resolve=1.5)
    assert not np.any(jax.device_get(cool.diverging))
