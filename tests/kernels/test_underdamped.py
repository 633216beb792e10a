"""BAOAB and OBABO: moments on a mode, time reversal, detailed balance, and SGD's own kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise
from statsgd.kernels import BAOAB, OBABO, baoab, obabo
from statsgd.kernels.preconditioner import as_preconditioner
from statsgd.kernels.underdamped import at
from statsgd.laws import PhaseSpaceGaussian
from statsgd.problems import landscape
from tests.statistical import assert_mean_within, assert_variance_within

INVERSE_MASS = np.array([[2.0, 0.6], [0.6, 1.0]])


def parameters(step_size, friction, inverse_mass, temperature=1.0):
    given = {
        "step_size": step_size,
        "friction": friction,
        "temperature": temperature,
        "preconditioner": as_preconditioner("preconditioner", inverse_mass),
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), given)


def path(step, potential, settings, start, steps, seed=0):
    """Positions and velocities `(steps, walkers, d)` of independent walkers from rest."""

    @jax.jit
    def go(start, keys):
        def one(position, key):
            state = at(position, jnp.zeros_like(position), potential, settings)

            def move(state, key):
                state, info = step(key, state, potential, settings)
                return state, (state.position, state.velocity, info.accept_prob)

            return jax.lax.scan(move, state, jax.random.split(key, steps))[1]

        return jax.vmap(one, out_axes=1)(start, keys)

    keys = jax.random.split(jax.random.key(seed), len(start))
    return [np.asarray(x, float) for x in go(jnp.asarray(start, jnp.float32), keys)]


def test_moments_on_a_mode_are_those_of_the_table():
    # ω² 3, s .5, ζ 1.3, u = (sω)²/4: BAOAB has E v²/V∞ = 1 − u = .8125 and E x²ω²/V∞ = 1.
    settings = parameters(0.5, 1.3, 1.0, temperature=0.7)
    start = np.zeros((40000, 1))
    x, v, _ = path(baoab.step, lambda x: 1.5 * jnp.sum(x**2), settings, start, 60)
    assert_variance_within(x[-1, :, 0], 0.7 / 3)
    assert_variance_within(v[-1, :, 0], 0.7 * 0.8125)
    # Position and velocity are independent in both the law and the scheme.
    assert abs(np.corrcoef(x[-1, :, 0], v[-1, :, 0])[0, 1]) < 4 / np.sqrt(40000)


@pytest.mark.slow
def test_obabo_without_its_test_has_the_inflation_of_the_table(monkeypatch):
    # OBABO: E x²ω²/V∞ = 1/(1 − u) = 1.23076923 where every proposal is taken.
    monkeypatch.setattr(obabo, "choose", lambda accepted, new, old: new)
    settings = parameters(0.5, 1.3, 1.0)
    x, v, _ = path(
        obabo.step, lambda x: 1.5 * jnp.sum(x**2), settings, np.zeros((40000, 1)), 60, seed=1
    )
    assert_variance_within(x[-1, :, 0], 1.23076923 / 3)
    assert_variance_within(v[-1, :, 0], 1.0)


def quartic(x):
    return jnp.sum(x**4 / 4 + 0.3 * x**2 - 0.2 * x)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "square"), [(obabo.step, 0.5456), (baoab.step, 0.5439)])
def test_anharmonic_well_has_the_printed_moments(step, square):
    # M⁻¹ 2, ζ 1, s .2, 5·10⁴ walkers: x² by Metropolised OBABO and BAOAB; E x² .54547206 exactly.
    settings = parameters(0.2, 1.0, 2.0)
    start = np.random.default_rng(0).normal(0, 0.7, (50000, 1))
    x, _, _ = path(step, quartic, settings, start, 150)
    tail = np.mean(x[-40::8, :, 0] ** 2, axis=0)
    # The printed values were simulated to ±.001.
    assert abs(tail.mean() - square) < 0.001 + 4 * tail.std() / np.sqrt(len(tail))
    if step is obabo.step:
        assert_mean_within(x[-1, :, 0] ** 2, 0.54547206)


def test_obabo_reversed_returns_to_where_it_was():
    # Without friction the step is BAB, taken or not: BAB then reversed BAB is the identity.
    settings = parameters(0.3, 0.0, INVERSE_MASS)

    def potential(x):
        return jnp.sum(x**4) / 4 + jnp.sum(x[:1] * x[1:])

    with jax.enable_x64(True):
        settings = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), settings)
        for seed in range(6):
            values = np.random.default_rng(seed).normal(size=(2, 2))
            state = at(jnp.asarray(values[0]), jnp.asarray(values[1]), potential, settings)
            key = jax.random.key(seed)
            there, info = obabo.step(key, state, potential, settings)
            back = at(there.position, -there.velocity, potential, settings)
            if np.allclose(there.position, state.position):
                # Refused: the velocity is reversed.
                np.testing.assert_allclose(there.velocity, -state.velocity)
                continue
            again = jax.random.key(seed + 1)
            home, returning = obabo.step(again, back, potential, settings)
            # min(1, e^−δ) there and min(1, e^δ) back: detailed balance of the deterministic move.
            ratio = float(info.accept_prob / returning.accept_prob)
            np.testing.assert_allclose(np.log(ratio), float(state.energy - there.energy), atol=1e-9)
            if np.allclose(home.position, back.position):
                continue
            np.testing.assert_allclose(home.position, state.position, atol=1e-12)
            np.testing.assert_allclose(home.velocity, -state.velocity, atol=1e-12)


def test_obabo_keeps_the_joint_law_and_is_reversible_in_it():
    # At stationarity E f(z₀)g(z₁) = E g(Rz₀)f(Rz₁), R reversing the velocity; dense mass, T = .7.
    temperature, number = 0.7, 60000
    random = np.random.default_rng(2)
    settings = parameters(0.9, 0.8, INVERSE_MASS, temperature)
    position = np.sqrt(temperature) * random.normal(size=(number, 2)) / [1.0, np.sqrt(3.0)]
    velocity = np.sqrt(temperature) * random.multivariate_normal([0, 0], INVERSE_MASS, number)

    @jax.jit
    def move(x, v, key):
        def one(x, v, key):
            def potential(x):
                return (x[0] ** 2 + 3 * x[1] ** 2) / 2

            state, info = obabo.step(key, at(x, v, potential, settings), potential, settings)
            return state.position, state.velocity, info.accept_prob

        return jax.vmap(one)(x, v, jax.random.split(key, number))

    x, v, accepted = (
        np.asarray(a, float)
        for a in move(jnp.float32(position), jnp.float32(velocity), jax.random.key(0))
    )
    assert 0.5 < accepted.mean() < 0.95
    assert_mean_within(v[:, 0] * v[:, 1], temperature * 0.6)
    assert_variance_within(v, temperature * np.diagonal(INVERSE_MASS), mean=0.0)
    assert_variance_within(x, temperature / np.array([1.0, 3.0]), mean=0.0)

    def f(x, v):
        return x[:, 0] * v[:, 0] + v[:, 1] ** 2

    def g(x, v):
        return x[:, 1] ** 2 + x[:, 0] * v[:, 1]

    difference = f(position, velocity) * g(x, v) - g(position, -velocity) * f(x, -v)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(number)


HESSIAN = np.array([[2.0, 0.3], [0.3, 0.7]])


def bowl(hessian, location=(0.0, 0.0)):
    matrix, centre = jnp.asarray(hessian), jnp.asarray(location)

    def loss(params):
        return (params - centre) @ matrix @ (params - centre) / 2

    return landscape(loss, jnp.zeros(2))


def test_heavy_ball_is_the_bbk_integrator():
    # H = [[2,.3],[.3,.7]], λ .05, η .1, β .9, θ₀ = (1,−.5), m₀ = 0, ξ as below: printed θ₁..θ₃, m₃.
    eta, beta, decay = 0.1, 0.9, 0.05
    kicks = np.array([[0.1, -0.2], [-0.3, 0.1], [0.2, 0.2]])
    theta, buffer, heavy = np.array([1.0, -0.5]), np.zeros(2), []
    for kick in kicks:
        buffer = beta * buffer + HESSIAN @ theta + decay * theta + kick
        theta = theta - eta * buffer
        heavy.append(theta)
    printed = [[0.8, -0.4725], [0.500175, -0.4463125], [0.121186, -0.42427556]]
    np.testing.assert_allclose(heavy, printed, rtol=1e-6)
    np.testing.assert_allclose(buffer, [3.78989, -0.22036937], rtol=1e-6)

    # BBK with the kernel's own friction and force: K = ζη/2, f_k = −P∇U(θ_k) − aξ_k.
    sgd = SGD(eta, noise.Isotropic(0.3), beta, decay)
    kernel = BAOAB.from_sgd(bowl(HESSIAN), sgd)
    a = 2 / (eta * (1 + beta))
    gradient = jax.grad(kernel.potential_fn)
    scale = float(kernel.parameters["preconditioner"].root) ** 2
    number = float(kernel.parameters["friction"]) * eta / 2
    np.testing.assert_allclose(number, (1 - beta) / (1 + beta))

    def force(theta, kick):
        return -scale * np.asarray(gradient(jnp.asarray(theta))) - a * kick

    theta = np.array([1.0, -0.5])
    current = force(theta, kicks[0])
    # From rest: the whole-step velocity is half the first one, V₀ = v₁/2.
    whole = -(HESSIAN @ theta + decay * theta + kicks[0]) / 2
    for i in range(3):
        half = (1 - number) * whole + eta / 2 * current
        theta = theta + eta * half
        np.testing.assert_allclose(theta, heavy[i], rtol=1e-5)
        if i < 2:
            current = force(theta, kicks[i + 1])
            whole = (half + eta / 2 * current) / (1 + number)
    np.testing.assert_allclose(half, -buffer, rtol=1e-5)


@pytest.mark.parametrize("shape", ["hessian", pytest.param("isotropic", marks=pytest.mark.slow)])
def test_kernel_of_sgd_has_its_law_and_its_memory(shape):
    eta, beta, decay, centre = 0.1, 0.9, 0.05, np.array([0.2, -0.1])
    model = noise.Anisotropic(0.5 / 8 * HESSIAN) if shape == "hessian" else noise.Isotropic(0.1)
    sgd = SGD(eta, model, beta, decay)
    problem = bowl(HESSIAN, centre)
    law = PhaseSpaceGaussian.from_sgd(problem, sgd, noise="measured")
    kernel = BAOAB.from_sgd(problem, sgd, noise="measured", step_size=eta / 2)
    settings = parameters(eta / 2, kernel.parameters["friction"], 1.0)
    settings["preconditioner"] = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), kernel.parameters["preconditioner"]
    )
    walkers = 20000
    start = np.random.default_rng(1).multivariate_normal(law.mean(), law.covariance(), walkers)
    x, v, _ = path(baoab.step, kernel.potential_fn, settings, start, 240)
    x = x - law.mean()
    q, h = law.modes().vectors, law.modes().curvatures
    first, last = (x[-11] @ q, v[-11] @ q), (x[-1] @ q, v[-1] @ q)
    variance = np.diagonal(q.T @ law.covariance() @ q)
    omega2 = law.force_factor * h
    assert_variance_within(last[0], variance, mean=0.0)
    # The velocity's variance is (1 − u)V∞ with u = (sω)²/4; V∞ = ω²·variance.
    u = (eta / 2) ** 2 * omega2 / 4
    assert_variance_within(last[1], (1 - u) * omega2 * variance, mean=0.0)
    # B(t) after ten steps, t = 5η: e^(−γt) [[c+γs, s], [−ω²s, c−γs]].
    gamma, t = law.friction / 2, 5 * eta
    delta = np.sqrt(omega2 - gamma**2)
    c, s = np.cos(delta * t), np.sin(delta * t) / delta
    decayed = np.exp(-gamma * t)
    for (new, old, scale), value in {
        (0, 0, "x"): decayed * (c + gamma * s) * variance,
        (0, 1, "xv"): decayed * s * omega2 * variance,
        (1, 0, "xv"): -decayed * omega2 * s * variance,
        (1, 1, "v"): decayed * (c - gamma * s) * omega2 * variance,
    }.items():
        products = last[new] * first[old]
        size = {"x": 1.0, "xv": np.sqrt(omega2), "v": omega2}[scale] * variance
        error = products.std(axis=0) / np.sqrt(walkers)
        # The scheme's own error is of order (sω)²/12 of the phase.
        assert np.all(np.abs(products.mean(axis=0) - value) < 4 * error + 0.03 * size)


@pytest.mark.usefixtures("unchecked")
def test_sgd_without_such_a_kernel_is_refused():
    problem = bowl(np.diag([2.0, 0.5]))
    skew = noise.Anisotropic(np.array([[1.0, 0.6], [0.6, 0.8]]))
    for sgd, options, message in (
        (SGD(0.1, skew, 0.9), {"noise": "measured"}, "must commute with the Hessian"),
        (SGD(0.1, noise.Isotropic(0.0), 0.9), {}, "noise.variance must be positive"),
        (SGD(1.99, skew, 0.0), {}, r"step_size\*omega_max must be below 2"),
        (SGD(0.1, skew, 0.9), {"noise": "flat"}, "noise must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            OBABO.from_sgd(problem, sgd, **options)
    with pytest.raises(ValueError, match="friction must be positive"):
        BAOAB(friction=-1.0)


def test_any_loss_with_isotropic_noise_has_a_potential():
    # U = (1−β)(L + λθ²/2)/τ with τ = ηc/2, and P∇U = a(∇L + λθ).
    eta, beta, c, decay = 0.1, 0.5, 0.3, 0.2
    problem = landscape(lambda p: jnp.sum(p**4) / 4, jnp.ones(3))
    kernel = BAOAB.from_sgd(problem, SGD(eta, noise.Isotropic(c), beta, decay))
    theta = jnp.array([0.5, -1.0, 2.0])
    tau = eta * c / 2
    expected = (1 - beta) * (jnp.sum(theta**4) / 4 + decay * jnp.sum(theta**2) / 2) / tau
    np.testing.assert_allclose(kernel.potential_fn(theta), expected, rtol=1e-6)
    push = kernel.parameters["preconditioner"](jax.grad(kernel.potential_fn)(theta))
    a = 2 / (eta * (1 + beta))
    np.testing.assert_allclose(push, a * (theta**3 + decay * theta), rtol=1e-5)
