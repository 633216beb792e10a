"""Heavy-ball laws against known values of the continuous model and of the discrete chain."""

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian, PhaseSpaceGaussian
from tests.statistical import assert_printed, assert_variance_within

SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])
TILTED = np.array([[2.0, 0.3], [0.3, 0.7]])


def diagonal(law, variable, other=None):
    return np.diagonal(law.covariance(variable, other))


def test_published_mode_variances():
    # Vx = ησ²ρ/(2S(1−β)h), Vv = σ²ρ/(S(1−β²)), h = ρ + λ.
    law = PhaseSpaceGaussian.hessian_noise(np.diag([4, 0.5]), 0.5, 8, 0.1, 0.9, 0.1)
    for value, printed in zip(diagonal(law, "params"), ("0.03048780", "0.02604167"), strict=True):
        assert_printed(value, printed)
    buffer = diagonal(law, "momentum_buffer")
    assert_printed(buffer[0], "1.31578947")
    assert_printed(buffer[1], "0.16447368")
    assert_printed(law.friction / 2, "0.52631579")
    assert_printed(law.frequencies()[1], "6.56946685")
    assert_printed(law.frequencies()[0], "2.51312345")


def test_no_momentum_no_decay():
    law = PhaseSpaceGaussian.hessian_noise([[2.0]], 1, 1, 0.3)
    assert_printed(law.covariance()[0, 0], "0.15")
    assert_printed(law.covariance("momentum_buffer")[0, 0], "2.0")


def test_phase_space_density_and_modified_loss():
    law = PhaseSpaceGaussian.hessian_noise(TILTED, 0.5, 8, 0.1, 0.9, 0.05, [0.2, -0.1])
    at, velocity = np.array([0.3, -0.05]), np.array([0.3, -0.4])
    top = law.log_density(np.array([0.2, -0.1]), np.zeros(2))
    assert_printed(top, "0.81673111")
    assert_printed(law.log_density(at, -velocity) - top, "-0.73343511")
    # κΨ with κ = S(1−β²), Ψ = (1/σ²){ xᵀH⁻¹(H+λI)x/(η(1+β)) + ½ vᵀH⁻¹v }.
    x, inverse = at - [0.2, -0.1], np.linalg.inv(TILTED)
    psi = x @ inverse @ (TILTED + 0.05 * np.eye(2)) @ x / 0.19 + velocity @ inverse @ velocity / 2
    np.testing.assert_allclose(law.modified_loss(at, velocity), 8 * 0.19 * psi / 0.5, rtol=1e-10)


@pytest.mark.parametrize(
    ("momentum", "position", "crossed"),
    [
        (0.0, ("0.025", "0.02347188", "0.08"), "0.01760391"),
        (0.9, ("0.25", "0.04549763", "0.8"), "0.34123223"),
    ],
)
def test_continuous_law_with_noise_that_does_not_commute(momentum, position, crossed):
    law = PhaseSpaceGaussian(np.diag([2.0, 0.5]), SKEW, 0.1, momentum)
    for value, printed in zip(law.covariance()[np.triu_indices(2)], position, strict=True):
        assert_printed(value, printed)
    # Cov(θ₁, v₂), and v = −m.
    assert_printed(-law.covariance("params", "momentum_buffer")[0, 1], crossed)


def test_continuous_law_solves_its_lyapunov_equation():
    # dz = Az dt + √(2D) dW with z = (x, v): AP + PAᵀ + 2D = 0.
    law = PhaseSpaceGaussian(TILTED, SKEW, 0.1, 0.7, 0.05)
    d, a = 2, law.force_factor
    drift = np.block(
        [
            [np.zeros((d, d)), np.eye(d)],
            [-a * (TILTED + 0.05 * np.eye(d)), -law.friction * np.eye(d)],
        ]
    )
    spread = np.zeros((4, 4))
    spread[2:, 2:] = 2 * 2 * SKEW / (0.1 * 1.7**2)
    expected = solve_continuous_lyapunov(drift, -spread)
    flip = np.diag([1, 1, -1, -1])
    np.testing.assert_allclose(law.joint, flip @ expected @ flip, rtol=1e-9, atol=1e-12)


def test_current_rotates_along_level_sets():
    law = PhaseSpaceGaussian.hessian_noise(TILTED, 0.5, 8, 0.1, 0.9, 0.05)
    x, v = np.array([0.3, -0.05]), np.array([0.3, -0.4])
    position, velocity = law.current_velocity(x, v)
    np.testing.assert_allclose(position, v, rtol=1e-12)
    stiffness = TILTED + 0.05 * np.eye(2)
    np.testing.assert_allclose(velocity, -law.force_factor * stiffness @ x, rtol=1e-8)


def test_current_is_divergence_free():
    # ∇·J = p (∇·u + u·∇log p) = 0 for the current J = u p, here with general C.
    law = PhaseSpaceGaussian(TILTED, SKEW, 0.1, 0.7, 0.05)
    z, step = np.array([0.3, -0.2, 0.5, 0.7]), 1e-5

    def current(z):
        return np.concatenate(law.current_velocity(z[:2], z[2:]))

    def log_density(z):
        return law.log_density(z[:2], -z[2:])

    shifts = step * np.eye(4)
    divergence = sum((current(z + e) - current(z - e)) @ e for e in shifts) / (2 * step**2)
    score = np.array([log_density(z + e) - log_density(z - e) for e in shifts]) / (2 * step)
    assert abs(divergence + current(z) @ score) < 1e-6 * np.linalg.norm(current(z) * score)


@pytest.mark.parametrize(
    ("settings", "position", "buffer", "cross"),
    [
        (
            (np.diag([4, 0.5]), np.diag([4, 0.5]) / 16, 0.1, 0.9, 0.1),
            ("0.03417512", "0.02645945"),
            ("1.47492625", "0.16711230"),
            ("-0.07374631", "-0.00835561"),
        ),
        (([[2.0]], [[0.3]], 0.5, 0.5), ("0.1125",), ("0.6",), ("-0.15",)),
        (([[2.0]], [[2.0]], 0.3), ("0.21428571",), ("2.85714286",), ("-0.42857143",)),
    ],
)
def test_exact_chain_values(settings, position, buffer, cross):
    law = HeavyBallGaussian(*settings)
    for values, printed in (
        (diagonal(law, "params"), position),
        (diagonal(law, "momentum_buffer"), buffer),
        (diagonal(law, "params", "momentum_buffer"), cross),
    ):
        for value, text in zip(values, printed, strict=True):
            assert_printed(value, text)


@pytest.mark.parametrize(
    ("rate", "momentum", "position", "buffer", "cross"),
    [
        (
            0.1,
            0.0,
            ("0.02777778", "0.025", "0.08205128"),
            ("1.11111111", "0.625", "0.82051282"),
            None,
        ),
        (
            0.1,
            0.9,
            ("0.26388889", "0.04578313", "0.81066667"),
            ("5.55555556", "0.60240964", "4.26666667"),
            ("-0.27777778", "-0.37349398", "0.31325301", "-0.21333333"),
        ),
        (
            0.3,
            0.5,
            ("0.1875", "0.1125", "0.50526316"),
            ("1.66666667", "0.625", "1.12280702"),
            ("-0.25", "-0.2625", "0.075", "-0.16842105"),
        ),
    ],
)
def test_exact_chain_with_noise_that_does_not_commute(rate, momentum, position, buffer, cross):
    law = HeavyBallGaussian(np.diag([2.0, 0.5]), SKEW, rate, momentum)
    pairs = [(law.covariance()[np.triu_indices(2)], position)]
    pairs.append((law.covariance("momentum_buffer")[np.triu_indices(2)], buffer))
    if cross is not None:
        pairs.append((law.covariance("params", "momentum_buffer").ravel(), cross))
    for values, printed in pairs:
        for value, text in zip(values, printed, strict=True):
            assert_printed(value, text)


def test_exact_chain_solves_its_lyapunov_equation():
    # z' = Fz + Gξ with z = (x, m): P = FPFᵀ + GCGᵀ.
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 5))
    hessian, covariance = a @ a.T / 5, b @ b.T
    eta, beta, decay = 0.2, 0.8, 0.3
    full = hessian + decay * np.eye(5)
    step = np.block([[np.eye(5) - eta * full, -eta * beta * np.eye(5)], [full, beta * np.eye(5)]])
    push = np.concatenate([-eta * np.eye(5), np.eye(5)])
    expected = solve_discrete_lyapunov(step, push @ covariance @ push.T)
    law = HeavyBallGaussian(hessian, covariance, eta, beta, decay)
    np.testing.assert_allclose(law.joint, expected, rtol=1e-8, atol=1e-10)


def test_continuous_law_misses_the_discrete_inflation():
    # Both blocks of the chain are the model's times 1/(1 − ηh/(2(1+β))) when C commutes with H.
    h, eta, beta = np.array([4.0, 0.5]), 0.3, 0.5
    model = PhaseSpaceGaussian(np.diag(h), np.diag(h), eta, beta)
    chain = HeavyBallGaussian(np.diag(h), np.diag(h), eta, beta)
    inflation = 1 / (1 - eta * h / (2 * (1 + beta)))
    for variable in ("params", "momentum_buffer"):
        ratio = diagonal(chain, variable) / diagonal(model, variable)
        np.testing.assert_allclose(ratio, inflation, rtol=1e-10)


def test_simulated_chain_has_the_exact_law_and_not_the_continuous_one():
    # ηh/(2(1+β)) = 1/6 for the sharp mode: the two laws differ by 1.2 there. 20 000 endpoints.
    hessian = np.diag([2.0, 0.5])
    problem = problems.landscape(lambda x: 0.5 * x @ hessian @ x, np.zeros(2))
    sgd = SGD(0.25, noise.Anisotropic(SKEW), momentum=0.5)
    tree = simulate(problem, sgd, steps=250, replicas=20_000, seed=3, progress=False)
    law = HeavyBallGaussian.from_sgd(problem, sgd)
    ends = tree["endpoints"]["params"].values
    assert_variance_within(ends, diagonal(law, "params"), mean=0)
    buffer = tree["momentum_buffer"]["params"].values
    assert_variance_within(buffer, diagonal(law, "momentum_buffer"), mean=0)
    cross = law.covariance("params", "momentum_buffer")
    product = ends[:, :, None] * buffer[:, None, :]
    error = product.std(axis=0) / np.sqrt(len(product))
    assert np.all(np.abs(product.mean(axis=0) - cross) < 4 * error)
    continuous = PhaseSpaceGaussian.from_sgd(problem, sgd, noise="measured")
    with pytest.raises(AssertionError, match="sigmas"):
        assert_variance_within(ends, diagonal(continuous, "params"), mean=0)


@pytest.mark.slow
def test_constant_noise_law_fails_when_noise_grows_with_the_loss():
    # C = σ(L + c₀)I: the law frozen at the minimum is too small by 1/(1 − Q), here 1.5.
    problem = problems.landscape(lambda x: 0.5 * x @ x, np.zeros(2))
    sgd = SGD(0.1, noise.LossScaled(strength=6.3333, floor=1.0))
    tree = simulate(problem, sgd, steps=300, replicas=20_000, seed=5, progress=False)
    frozen = HeavyBallGaussian.from_sgd(problem, sgd)
    measured = tree["endpoints"]["params"].values.var(axis=0)
    assert np.all(measured > 1.3 * diagonal(frozen, "params"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (([[2.0]], [[1.0]], 1.6, 0.5), r"learning_rate\*h = 3.2 outside \(0, .*= \(0, 3\)"),
        (([[0.0]], [[1.0]], 0.1), r"learning_rate\*h = 0 outside"),
    ],
)
def test_unstable_chain_is_refused(settings, message):
    with pytest.raises(ImproperLawError, match=message):
        HeavyBallGaussian(*settings).require_proper()


def test_noiseless_direction_has_moments_but_no_density():
    law = HeavyBallGaussian(np.eye(2), np.diag([1.0, 0.0]), 0.1)
    np.testing.assert_allclose(diagonal(law, "params"), [0.1 / 1.9, 0], rtol=1e-12)
    with pytest.raises(ImproperLawError, match="positive definite"):
        law.log_density(np.zeros(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.eye(2), 0.1), "hessian must have shape"),
        ((np.array([[1.0, 2.0], [0.0, 1.0]]), np.eye(2), 0.1), "hessian must be symmetric"),
        ((np.eye(2), -np.eye(2), 0.1), "noise_covariance must be positive semi-definite"),
        ((np.eye(2), np.eye(3), 0.1), r"noise_covariance must have shape \(2, 2\)"),
        ((np.eye(2), np.eye(2), 0.0), "learning_rate must be positive"),
        ((np.eye(2), np.eye(2), 0.1, 1.0), r"momentum must be in \[0, 1\)"),
        ((np.full((2, 2), np.nan), np.eye(2), 0.1), "hessian must be finite"),
        ((np.eye(2), np.eye(2), 0.1, 0.0, 0.0, [1.0]), r"location must have shape \(2,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeavyBallGaussian(*arguments)
