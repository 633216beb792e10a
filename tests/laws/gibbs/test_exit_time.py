import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd.laws.gibbs.escape import mean_first_passage_1d
from statsgd.laws.gibbs.exit_time import mean_exit_time_1d, mean_exit_time_ball, mean_exit_time_box
from statsgd.problems.landscapes import quadratic, quartic_wells

BOWL = quadratic([[1.0]])


@pytest.mark.parametrize(("diffusion", "time"), [(0.25, 4.501602), (0.1, 66.2282)])
def test_interval(diffusion, time):
    assert_allclose(mean_exit_time_1d(BOWL, diffusion, 0.0, -1.0, 1.0), time, rtol=1e-6)
    ball = mean_exit_time_ball(1.0, diffusion, 1.0, 1)
    assert_allclose(mean_exit_time_1d(BOWL, diffusion, 0.0, -1.0, 1.0), ball, rtol=1e-9)


@pytest.mark.parametrize(("learning_rate", "time"), [(0.01, 5.298), (0.002, 4.840)])
def test_chain_overshoots(learning_rate, time):
    shifted = mean_exit_time_1d(BOWL, 0.25, 0.0, -1.0, 1.0, learning_rate=learning_rate)
    assert_allclose(shifted, time, atol=5.1e-4)
    ball = mean_exit_time_ball(1.0, 0.25, 1.0, 1, learning_rate=learning_rate)
    assert_allclose(ball, shifted, rtol=1e-9)


def test_sgd_exits_at_the_shifted_time():
    # η = 0.01, D = 0.25: 5.298 predicted within 1–2 %, SDE 4.50. 4000 chains: 1.6 %.
    rng = np.random.default_rng(0)
    x, times, alive = np.zeros(4000), np.zeros(4000), np.arange(4000)
    for step in range(1, 20_000):
        y = 0.99 * x[alive] + np.sqrt(2 * 0.25 * 0.01) * rng.standard_normal(len(alive))
        x[alive] = y
        out = np.abs(y) > 1
        times[alive[out]] = 0.01 * step
        alive = alive[~out]
        if not len(alive):
            break
    assert not len(alive)
    error = times.std() / np.sqrt(len(times))
    assert abs(times.mean() - 5.298) < 4 * error + 0.02 * 5.298 < 0.1 * 5.298


@pytest.mark.parametrize(("dimension", "time"), [(2, 1.841936), (3, 1.081883)])
def test_ball(dimension, time):
    assert_allclose(mean_exit_time_ball(1.0, 0.25, 1.0, dimension), time, rtol=1e-6)
    free = mean_exit_time_ball(0.0, 0.25, 1.0, dimension)
    assert_allclose(free, 1 / (2 * dimension * 0.25))  # R²/(2nD)
    assert_allclose(mean_exit_time_ball(1e-6, 0.25, 1.0, dimension), free, rtol=1e-5)


def test_multiplicative_noise_changes_the_time_by_factors():
    # drift −2(f−1), B² = 2D = 0.4(2(f−1)² + 1), against B² = 0.4
    problem = quadratic([[2.0]], [1.0])
    time = mean_exit_time_1d(problem, lambda p: 0.2 * (2 * (p[0] - 1) ** 2 + 1), 1.0, 0.0, 2.0)
    assert_allclose(time, 7.61111, atol=5.1e-6)
    assert_allclose(mean_exit_time_1d(problem, 0.2, 1.0, 0.0, 2.0), 33.1141, atol=5.1e-5)


def test_exit_over_a_far_wall_is_a_first_passage():
    # L = x⁴/4 − x²/2, D = 0.05, from −1 to 0: the left end is never reached
    time = mean_exit_time_1d(quartic_wells(), 0.05, -1.0, -3.0, 0.0)
    assert_allclose(time, 361.904, atol=6e-4)
    passage = mean_first_passage_1d(quartic_wells(), 0.05, -1.0, 0.0)
    assert_allclose(time, passage, rtol=1e-6)


def test_box():
    def diffusion(params):
        return jnp.diag(jnp.array([0.2, 0.3])) + 0 * params[0]

    bowl = quadratic(np.diag([1.0, 3.0]))
    time = mean_exit_time_box(bowl, diffusion, [0.0, 0.0], [-1.0, -1.0], [1.0, 1.0])
    assert_allclose(time, 5.588, atol=6e-4)


def test_box_with_correlated_noise():
    # Pure diffusion on a square, D = I: 64/π⁴ Σ ± 1/(mn(m²+n²)) over odd m, n at the centre.
    # Correlated axes of either sign are mirror images and slower to leave.
    free = quadratic(np.zeros((2, 2)))

    def diffusion(rho):
        return lambda params: jnp.array([[1.0, rho], [rho, 1.0]]) + 0 * params[0]

    times = [
        mean_exit_time_box(free, diffusion(rho), [0.0, 0.0], [-1.0, -1.0], [1.0, 1.0], points=81)
        for rho in (0.0, 0.5, -0.5)
    ]
    odd = np.arange(1, 200, 2)
    m, n = np.meshgrid(odd, odd)
    sign = (-1.0) ** ((m + n) // 2 - 1)
    series = 64 / np.pi**4 * np.sum(sign / (m * n * (m**2 + n**2)))
    assert_allclose(times[0], series, rtol=1e-3)
    assert_allclose(times[1], times[2], rtol=1e-9)
    assert times[1] > times[0]


def test_refusals():
    with pytest.raises(ValueError, match="start must lie between low and high"):
        mean_exit_time_1d(BOWL, 0.25, 2.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="infinite or ill-posed: D = 0 at 0"):
        mean_exit_time_1d(BOWL, lambda p: p[0] ** 2, 0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"n·Dn = 0 on the boundary along axis 1"):
        mean_exit_time_box(
            quadratic(np.eye(2)),
            lambda p: jnp.diag(jnp.array([0.2, 0.0])) + 0 * p[0],
            [0.0, 0.0],
            [-1.0, -1.0],
            [1.0, 1.0],
        )
