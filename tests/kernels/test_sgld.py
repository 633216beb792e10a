"""SGLD: its stationary variance on a Gaussian mean model."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import SGLD, sgld_variance
from tests.kernels.stochastic import mean_problem, normal_scores, walk
from tests.statistical import assert_printed, assert_variance_within

CHAINS = 20000


def variance(epsilon, noise_ratio, temperature=1.0):
    """V·h = (T + εC/(2h))/(1 − ε/2)."""
    return (temperature + epsilon * noise_ratio / 2) / (1 - epsilon / 2)


# V·h − 1 = (1 + εM/2)/(1 − ε/2) − 1 for C = hM.
TABLE = [(20, 0.01, ".10552764"), (20, 0.1, "1.10526316"), (5, 0.1, ".31578947")]


@pytest.mark.parametrize(
    ("batches", "epsilon", "printed"),
    [pytest.param(*row, marks=pytest.mark.slow) if row != TABLE[1] else row for row in TABLE],
)
def test_variance_on_independent_batches(batches, epsilon, printed):
    assert_printed(variance(epsilon, batches) - 1, printed)
    # Data of population variance s² = 1: C = N² s²/(s⁴S) = hM for batches with replacement.
    number = 20 if batches == 20 else 10
    problem = mean_problem(normal_scores(number, 0))
    noise = Minibatch(number // batches)
    kernel = SGLD.from_problem(problem, noise, step_size=epsilon / number)
    start = np.random.default_rng(1).standard_normal(CHAINS) / np.sqrt(number)
    end = walk(kernel, {"x": start}, int(4 / epsilon))
    assert_variance_within(end.z["x"], (1 + float(printed)) / number)


def test_variance_is_where_a_step_keeps_it():
    # θ ← (1 − hλ)θ − hξ + √(2hT)ζ, Var ξ = C.
    h, curvature, noise, temperature = 0.3, np.array([0.5, 2.0]), 1.7, np.array([0.4, 1.0])
    value = sgld_variance(h, curvature, noise, temperature)
    after = (1 - h * curvature) ** 2 * value + h**2 * noise + 2 * h * temperature
    np.testing.assert_allclose(after, value, rtol=1e-12)
    # The printed ones, at N = 20.
    for batches, epsilon, printed in TABLE:
        assert_printed(20 * sgld_variance(epsilon / 20, 20, 20 * batches) - 1, printed)
    with pytest.raises(ValueError, match=r"step_size\*curvature must be below 2, got 2"):
        sgld_variance(1.0, 2.0)


def test_temperature_and_preconditioner():
    # U = ½λx², T = .5, P = 4: V = T/(λ(1 − hPλ/2)) with hPλ = .4, an exact gradient.
    kernel = SGLD(
        potential_fn=lambda z: 1.5 * jnp.sum(z["x"] ** 2),
        step_size=0.4 / 12,
        temperature=0.5,
        preconditioner=4.0,
    )
    end = walk(kernel, {"x": np.zeros((CHAINS, 1))}, 40)
    assert_variance_within(end.z["x"][:, 0], 0.5 / (3 * (1 - 0.2)))
