import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd import SGD, noise, simulate
from statsgd.laws.valleys.basis_pursuit import weighted_basis_pursuit
from statsgd.laws.valleys.diffusion import (
    integrate_valley_flow,
    label_noise_strength,
    return_to_valley,
    sharpness_flow,
    valley_motion,
)
from statsgd.problems import hessian, landscape, population_risk

START = np.array([2.0, 0.5])
HYPERBOLA = landscape(lambda p: (p[0] * p[1] - 1) ** 2, START)
CUBIC = landscape(lambda p: (p[0] * p[1] * p[2] - 1) ** 2, np.array([2.0, 1.0, 0.5]))
ELLIPSE = landscape(lambda p: (p[0] ** 2 + 2 * p[1] ** 2 - 2) ** 2, np.ones(2))


@pytest.mark.parametrize(
    ("covariance", "drift", "spread"),
    [
        ([[1, 0.3], [0.3, 0.5]], (-0.0315897, 0.1054753), 0.829412),
        (np.eye(2), (-0.1799308, 0.1626298), 1.0),
    ],
)
def test_drift_on_a_hyperbola(covariance, drift, spread):
    motion = valley_motion(HYPERBOLA, START, covariance, 1)
    assert_allclose(motion.drift, drift, atol=5.1e-8)
    assert_allclose(np.trace(motion.covariance), spread, atol=5.1e-7)


@pytest.mark.slow
def test_drift_is_half_the_second_derivative_of_the_gradient_flow_limit():
    # Gradient flow of (uw−1)² keeps u² − w² and ends at uw = 1: Φ in closed form.
    def limit(p):
        q = p[0] ** 2 - p[1] ** 2
        u = jnp.sqrt((q + jnp.sqrt(q**2 + 4)) / 2)
        return jnp.stack([u, 1 / u])

    covariance = np.array([[0.7, -0.2], [-0.2, 1.3]])
    point = np.array([0.8, 1.25])
    with jax.enable_x64(True):
        first = np.asarray(jax.jacobian(limit)(point))
        second = np.asarray(jax.hessian(limit)(point))
    motion = valley_motion(HYPERBOLA, point, covariance, 1)
    assert_allclose(motion.drift, 0.5 * np.einsum("ijk,jk->i", second, covariance), rtol=1e-9)
    assert_allclose(motion.covariance, first @ covariance @ first.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("problem", "point", "trace", "flow"),
    [
        (HYPERBOLA, (2.0, 0.5), 8.5, (-0.882353, 0.220588)),
        (CUBIC, (2.0, 1.0, 0.5), 10.5, (-0.75, -1.125, 0.75)),
    ],
)
def test_sharpness_flow(problem, point, trace, flow):
    # −(c/4) P_T ∇Tr H, c = 2δ²/S = 0.5
    assert_allclose(np.trace(hessian(problem, np.array(point))), trace, rtol=1e-9)
    c = label_noise_strength(0.5, 1)
    assert_allclose(sharpness_flow(problem, point, c, 1), flow, atol=5.1e-7)
    # and the general formula with C = cH
    covariance = c * hessian(problem, np.array(point))
    assert_allclose(valley_motion(problem, point, covariance, 1).drift, flow, atol=5.1e-7)


def test_flow_along_the_hyperbola():
    # dq/ds = −(4δ²/S) q for q = u² − w²: 3.75 e^{−0.25} = 2.92050 at s = 0.25
    c = label_noise_strength(0.5, 1)
    end = integrate_valley_flow(
        HYPERBOLA, START, lambda y: sharpness_flow(HYPERBOLA, y, c, 1), 0.25, 1, steps=10
    )
    assert_allclose(end[0] ** 2 - end[1] ** 2, 2.92050, atol=5.1e-6)
    assert_allclose(end[0] * end[1], 1.0, rtol=1e-12)


def test_flow_along_an_ellipse_takes_all_mass_to_the_flat_direction():
    # dθ_i/ds = −(8δ²/S) z_i θ_i (z_i − Σz³θ²/Σz²θ²), z = (1, 2), y = 2, from θ² = (1, ½)
    c = label_noise_strength(0.5, 1)
    start = np.sqrt([1.0, 0.5])
    end = integrate_valley_flow(
        ELLIPSE, start, lambda y: sharpness_flow(ELLIPSE, y, c, 1), 0.2, 1, steps=20
    )
    assert_allclose(end**2, [1.52838, 0.23581], atol=5.1e-6)
    z, squares = np.array([1.0, 2.0]), np.array([1.0, 0.5])
    rate = -8 * 0.25 * z * start * (z - (z**3 @ squares) / (z**2 @ squares))
    assert_allclose(sharpness_flow(ELLIPSE, start, c, 1), rate, rtol=1e-9)


@pytest.mark.slow
def test_label_noise_sgd_follows_the_flow():
    # (uw − y)², y = 1 ± ½, η = 0.01, 2500 steps: simulated q = 2.8914, flow 2.92050.
    def draw_label(key):
        return 1 + 0.5 * jax.random.rademacher(key, (), dtype=jnp.float32)

    problem = population_risk(lambda p, y: (p[0] * p[1] - y) ** 2, draw_label, START)
    sgd = SGD(0.01, noise.Minibatch(1, "fresh"))
    runs = simulate(problem, sgd, steps=2500, replicas=2000, seed=0, progress=False)
    u, w = runs["endpoints"]["params"].values.T
    q = u**2 - w**2
    error = q.std() / np.sqrt(len(q))
    assert abs(q.mean() - 2.8914) < 4 * error + 2e-4
    assert error < 0.005
    # The normal noise slows nothing but adds: dq/dk = −4δ²η²q/(1 − ηR), R about 3.87.
    assert_allclose(q.mean(), 3.75 * np.exp(-0.25 / (1 - 0.01 * 3.87)), atol=4 * error + 1e-3)


def test_newton_returns_to_the_valley():
    back = return_to_valley(HYPERBOLA, START + np.array([0.01, -0.02]), 1)
    assert_allclose(back[0] * back[1], 1.0, rtol=1e-12)


def test_basis_pursuit_recovers_a_sparse_coefficient():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((15, 25))
    truth = np.zeros(25)
    truth[[0, 1]] = 1.0, -0.8
    b = weighted_basis_pursuit(x, x @ truth)
    assert_allclose(b, truth, atol=1e-8)
    with pytest.raises(ValueError, match="must be interpolated"):
        weighted_basis_pursuit([[1.0], [1.0]], [0.0, 1.0])


def test_refusals():
    with pytest.raises(ValueError, match="no gradient noise on the valley"):
        valley_motion(HYPERBOLA, START, np.zeros((2, 2)), 1)
    with pytest.raises(ValueError, match="params must lie on the valley"):
        valley_motion(HYPERBOLA, [2.0, 1.0], np.eye(2), 1)
    with pytest.raises(ValueError, match="rank must be between 1 and d - 1"):
        valley_motion(HYPERBOLA, START, np.eye(2), 2)
