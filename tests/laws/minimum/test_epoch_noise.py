import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import integrate

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws import EpochNoiseGaussian, HeavyBallGaussian
from statsgd.laws.minimum import crossover_curvature
from statsgd.problems import linear_regression
from tests.laws.examples import example

RESHUFFLE = pytest.mark.skipif(
    "reshuffle" not in noise.Minibatch.SAMPLING, reason="no reshuffled minibatches to read"
)
# Six examples in one dimension: H = 1.458333, w* = .8, Σ₁(w*) = .623333.
X6, Y6 = np.array([1, -1, 2, 0.5, -0.5, 1.5]), np.array([1.0, 0, 1, 1, -1, 2])
# Six examples in two dimensions.
XQ = np.array([[1, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])
YQ = np.array([1, -1, 0.5, 2, 0, -1.5])


def one_mode(h, eta, beta, batches, phase=0, c=1.0):
    return EpochNoiseGaussian([[h]], [[c]], eta, batches, beta, phase=phase)


@pytest.mark.parametrize(
    ("eta", "h", "beta", "batches", "white", "average", "end", "velocity"),
    [
        (0.1, 1, 0, 20, 5.263158e-2, 2.466983e-2, 1.418040e-2, 1.083700e-2),
        (0.1, 0.1, 0, 20, 5.025126e-1, 3.364538e-2, 1.769393e-3, 1.009761e-2),
        (0.02, 0.5, 0.9, 20, 2.005277e-1, 4.573635e-2, 2.923711e-2, 1.311343e-3),
        (0.05, 0.3, 0.5, 7, 1.675042e-1, 8.127547e-3, 2.050579e-3, 2.623769e-3),
    ],
)
def test_variance_of_one_mode(eta, h, beta, batches, white, average, end, velocity):
    # P₀ = A^M P₀ A^Mᵀ + Q_M at epoch ends, the mean of all P_j at a random step; v = −ηm.
    rtol = 3e-7
    mixture = one_mode(h, eta, beta, batches, "random")
    np.testing.assert_allclose(mixture.covariance()[0, 0], average, rtol=rtol)
    buffer = mixture.covariance("momentum_buffer")[0, 0]
    np.testing.assert_allclose(eta**2 * buffer, velocity, rtol=rtol)
    np.testing.assert_allclose(one_mode(h, eta, beta, batches).covariance()[0, 0], end, rtol=rtol)
    plain = HeavyBallGaussian([[h]], [[1.0]], eta, beta)
    np.testing.assert_allclose(plain.covariance()[0, 0], white, rtol=rtol)


def test_white_velocity():
    # Var v = 2η²c/((1−β)[2(1+β) − ηh]), third row of the table above.
    law = HeavyBallGaussian([[0.5]], [[1.0]], 0.02, 0.9)
    velocity = 0.02**2 * law.covariance("momentum_buffer")[0, 0]
    np.testing.assert_allclose(velocity, 2.110818e-3, rtol=3e-7)


@pytest.mark.parametrize(
    ("eta", "h", "beta", "batches", "phase", "variance"),
    [(0.1, 0.1, 0, 20, 10, 4.964732e-2), (0.05, 0.3, 0.5, 7, 3, 1.106941e-2)],
)
def test_middle_of_the_epoch(eta, h, beta, batches, phase, variance):
    law = one_mode(h, eta, beta, batches, phase)
    np.testing.assert_allclose(law.covariance()[0, 0], variance, rtol=5e-7)


@pytest.mark.parametrize(
    ("h", "eta", "beta", "batches", "white", "average", "end"),
    [
    (1, 0.1, 0, 10, 0.05263158, (0.01592859, 1.09341268), (0.00482029, 1.14485950, -0.03769084)),
    (0.2, 0.1, 0.5, 20, 0.5033557, (0.10173212, 1.26808736), (0.02128691, 1.34271495, 0.02511112)),
    (0.01, 0.1, 0, 10, 5.00250125, (0.01830587, 1.00099917), (4.59017e-5, 1.00199302, -0.00049871)),
    ],
)  # fmt: skip
def test_joint_law_of_one_mode(h, eta, beta, batches, white, average, end):
    mixture, boundary = one_mode(h, eta, beta, batches, "random"), one_mode(h, eta, beta, batches)
    half = 6e-9
    plain = HeavyBallGaussian([[h]], [[1.0]], eta, beta).covariance()[0, 0]
    np.testing.assert_allclose(plain, white, atol=half)
    np.testing.assert_allclose(np.diagonal(mixture.joint), average, atol=half)
    np.testing.assert_allclose(
        [boundary.joint[0, 0], boundary.joint[1, 1], boundary.joint[0, 1]], end, atol=half
    )


def test_average_against_the_closed_form():
    # β = 0, a = 1−ηh: η²c/(1−a²) {1 − 2a[M(1−a) − (1−a^M)]/[M(M−1)(1−a)²]}, and at the boundary
    # η²c/(M−1) [M(1−a^2M)/(1−a²) − ((1−a^M)/(1−a))²]/(1−a^2M).
    eta, h, m = 0.1, 0.7, 9
    a = 1 - eta * h
    average = eta**2 / (1 - a**2)
    average *= 1 - 2 * a * (m * (1 - a) - (1 - a**m)) / (m * (m - 1) * (1 - a) ** 2)
    np.testing.assert_allclose(one_mode(h, eta, 0, m, "random").covariance()[0, 0], average)
    end = m * (1 - a ** (2 * m)) / (1 - a**2) - ((1 - a**m) / (1 - a)) ** 2
    end *= eta**2 / (m - 1) / (1 - a ** (2 * m))
    np.testing.assert_allclose(one_mode(h, eta, 0, m).covariance()[0, 0], end)


def test_long_epochs():
    # η = .005, β = .9, M = 1000, c = h: around the crossover curvature.
    cross = crossover_curvature(0.005, 1000, 0.9)
    np.testing.assert_allclose(cross, 0.0599401, atol=5e-8)
    for ratio, variance in ((100, 2.50559e-2), (1, 1.34936e-2), (0.01, 2.413015e-4)):
        h = ratio * cross
        law = one_mode(h, 0.005, 0.9, 1000, "random", c=h)
        np.testing.assert_allclose(law.covariance()[0, 0], variance, rtol=3e-6)
        if ratio == 1:
            white = HeavyBallGaussian([[h]], [[h]], 0.005, 0.9).covariance()[0, 0]
            np.testing.assert_allclose(law.covariance()[0, 0] / white, 0.5445, atol=0.01)
    end = one_mode(cross, 0.005, 0.9, 1000, c=cross).covariance()[0, 0]
    np.testing.assert_allclose(end, 9.82504e-3, rtol=1e-6)


def test_flat_limits():
    # Boundary, β = .9: a floor that momentum leaves. β = 0: η³ h c M(M+1)/24.
    floor = one_mode(1e-7, 0.02, 0.9, 200).covariance()[0, 0]
    np.testing.assert_allclose(floor, 0.155102, atol=6e-7)
    h, m = 1e-5, 50
    flat = one_mode(h, 0.1, 0, m).covariance()[0, 0]
    np.testing.assert_allclose(flat, 0.1**3 * h * m * (m + 1) / 24, rtol=1e-4)
    average = one_mode(h, 0.1, 0, m, "random").covariance()[0, 0]
    np.testing.assert_allclose(average, 0.01 * (m + 1) / 6, rtol=1e-3)
    # s = ηhM: average/white → 1 − 2(s−1+e^(−s))/s², boundary/white → 1 − (2/s) tanh(s/2).
    s, m = 2.0, 4000
    h = s / (0.1 * m)
    white = 0.1 / (h * (2 - 0.1 * h))
    np.testing.assert_allclose(
        one_mode(h, 0.1, 0, m, "random").covariance()[0, 0] / white,
        1 - 2 * (s - 1 + np.exp(-s)) / s**2,
        rtol=2e-3,
    )
    ratio = one_mode(h, 0.1, 0, m).covariance()[0, 0] / white
    np.testing.assert_allclose(ratio, 1 - 2 / s * np.tanh(s / 2), rtol=2e-3)


def test_steep_modes_see_white_noise():
    steep = one_mode(10.0, 0.1, 0.5, 5000, "random").covariance()[0, 0]
    white = HeavyBallGaussian([[10.0]], [[1.0]], 0.1, 0.5).covariance()[0, 0]
    np.testing.assert_allclose(steep, white, rtol=1e-3)


def epochs(transition, vectors, eta, runs, count, rng):
    """States (θ, m) after each step of `count` epochs, by shuffling fixed noise vectors."""
    m, d = vectors.shape
    state, states = np.zeros((runs, 2 * d)), []
    for _ in range(count):
        order = rng.permuted(np.tile(np.arange(m), (runs, 1)), axis=1)
        for step in range(m):
            noise_vector = vectors[order[:, step]]
            state = state @ transition.T + np.concatenate([-eta * noise_vector, noise_vector], 1)
            states.append(state)
    return np.array(states).reshape(count, m, runs, 2 * d)


def test_against_shuffled_noise_with_momentum_and_decay():
    # Non-commuting H and C, β = .5, λ = .1. 3000 runs of 12 epochs after relaxation: the standard
    # error of a variance is at most √(2/3000) = 2.6 % (epochs are correlated in the flat mode).
    rng = np.random.default_rng(0)
    h, eta, beta, decay, m = np.diag([2.0, 0.5]), 0.2, 0.5, 0.1, 6
    vectors = rng.normal(size=(m, 2)) @ np.array([[1, 0.6], [0, 0.6]])
    vectors -= vectors.mean(0)
    c = vectors.T @ vectors / m
    stiff, eye = h + decay * np.eye(2), np.eye(2)
    transition = np.block([[eye - eta * stiff, -eta * beta * eye], [stiff, beta * eye]])
    states = epochs(transition, vectors, eta, 3000, 20, rng)[8:]
    for phase in (0, 2, "random"):
        law = EpochNoiseGaussian(h, c, eta, m, beta, decay, phase=phase)
        if phase == "random":
            sample = states.reshape(-1, 4)
        else:
            sample = states[:, (phase - 1) % m].reshape(-1, 4)
        measured = sample.T @ sample / len(sample)
        scale = np.sqrt(np.diagonal(law.joint))
        gap = np.abs(measured - law.joint) / np.outer(scale, scale)
        assert np.max(gap) < 4 * 0.026 / np.sqrt(4)
    white = HeavyBallGaussian(h, c, eta, beta, decay)
    assert np.all(np.diagonal(white.covariance()) > 1.3 * scale[:2] ** 2)


def test_random_phase_is_a_mixture():
    law = one_mode(0.2, 0.1, 0.5, 20, "random")
    x = np.linspace(-3, 3, 3001)
    p = np.exp(law.log_density(x[:, None])) * 0.002
    density = [p.sum(), (x**2 * p).sum(), (x**4 * p).sum()]
    variances = law.phase_covariances[:, 0, 0]
    exact = [1, variances.mean(), 3 * np.mean(variances**2)]
    np.testing.assert_allclose(density, exact, rtol=1e-6)
    assert density[2] > 1.05 * 3 * density[1] ** 2  # not Gaussian
    x, m = np.meshgrid(np.linspace(-2, 2, 401), np.linspace(-8, 8, 401), indexing="ij")
    joint = np.exp(law.log_density(x[..., None], m[..., None])).sum() * 0.01 * 0.04
    np.testing.assert_allclose(joint, 1, atol=1e-4)
    draws = law.draw_variables(jax.random.key(0), (8000,))
    for name in ("params", "momentum_buffer"):
        error = law.covariance(name)[0, 0] * np.sqrt(3 / 8000)
        assert abs(np.var(draws[name]) - law.covariance(name)[0, 0]) < 4 * error
    tail = integrate.quad(lambda t: np.exp(law.log_density(np.array([t]))), 0, 0.3)[0]
    np.testing.assert_allclose(law.cdf(np.array([0.3])), 0.5 + tail, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1, 2], ids=("end", "inside", "random"))
def test_model_conditions_and_traces(index):
    law = example("EpochNoiseGaussian", index)
    obs = np.asarray(law.location) + 0.1 * np.ones((3, law.dimension))
    log_joint, _ = numpyro.infer.util.log_density(law.model, (obs,), {}, {})
    np.testing.assert_allclose(log_joint, 3 * law.log_density(obs[0]), rtol=1e-4)
    value = jax.jit(lambda x: law.log_density(x))(jnp.asarray(obs[0]))
    np.testing.assert_allclose(value, law.log_density(obs[0]), rtol=1e-4)


def test_learning_rates_can_be_traced():
    def variance(eta):
        return EpochNoiseGaussian([[1.0]], [[1.0]], eta, 20).covariance()[0, 0]

    rates = jnp.array([0.05, 0.1])
    values = jax.jit(jax.vmap(variance))(rates)
    np.testing.assert_allclose(values[1], 1.418040e-2, rtol=1e-4)


def test_tiny_data_set_additive_law():
    # Multiplicative noise left out: boundary 2.240087e-4, average 1.727591e-3 at η = .1, S = 2.
    h, sigma = np.mean(X6**2), np.var((0.8 * X6 - Y6) * X6)
    np.testing.assert_allclose([h, sigma], [1.458333, 0.623333], atol=5e-7)
    c = sigma * 4 / (2 * 5)
    np.testing.assert_allclose(one_mode(h, 0.1, 0, 3, c=c).covariance(), 2.240087e-4, rtol=3e-7)
    mixture = one_mode(h, 0.1, 0, 3, "random", c=c)
    np.testing.assert_allclose(mixture.covariance(), 1.727591e-3, rtol=3e-7)


@RESHUFFLE
@pytest.mark.parametrize(("beta", "phase"), [(0.0, 0), (0.5, 3)])
@pytest.mark.slow
def test_reshuffled_sgd(beta, phase):
    # One input x² = .5 for all examples: the curvature is the same in every batch, so the law is
    # exact. 8000 runs: standard error 1.6 % of the variance.
    targets = np.random.default_rng(3).normal(size=32)
    problem = linear_regression(np.full((32, 1), np.sqrt(0.5)), targets)
    sgd = SGD(0.1, noise.Minibatch(4, "reshuffle"), momentum=beta)
    law = EpochNoiseGaussian.from_sgd(problem, sgd, phase=phase)
    assert law.num_batches == 8
    run = simulate(problem, sgd, steps=8 * 50 + phase, replicas=8000, seed=1, progress=False)
    sample = run["endpoints"]["params"].values.reshape(-1).astype(np.float64)
    error = np.sqrt(2 / 8000)
    assert abs(sample.var() / law.covariance()[0, 0] - 1) < 4 * error
    assert abs(sample.mean() - law.mean()[0]) < 4 * sample.std() / np.sqrt(8000)


@RESHUFFLE
@pytest.mark.parametrize("phase", [pytest.param(0, marks=pytest.mark.slow), "random"])
def test_a_single_batch_an_epoch_does_not_fluctuate(phase):
    problem = linear_regression(XQ, YQ)
    sgd = SGD(0.1, noise.Minibatch(len(XQ), "reshuffle"), momentum=0.5)
    law = EpochNoiseGaussian.from_sgd(problem, sgd, phase=phase)
    np.testing.assert_array_equal(law.joint, 0)
    np.testing.assert_allclose(law.mean(), np.linalg.lstsq(XQ, YQ, rcond=None)[0], rtol=1e-6)
    draws = law.draw_variables(jax.random.key(0), (5,))
    np.testing.assert_allclose(draws["params"], np.tile(law.mean(), (5, 1)), rtol=1e-6)
    np.testing.assert_array_equal(draws["momentum_buffer"], 0)


@RESHUFFLE
def test_batches_must_fill_the_epoch():
    problem = linear_regression(XQ, YQ)
    with pytest.raises(ValueError, match="remainder 2"):
        EpochNoiseGaussian.from_sgd(problem, SGD(0.1, noise.Minibatch(4, "reshuffle")))


def test_refusals():
    problem = linear_regression(XQ, YQ)
    with pytest.raises(ValueError, match="sampled by 'reshuffle'"):
        EpochNoiseGaussian.from_sgd(problem, SGD(0.1, noise.Minibatch(2)))
    with pytest.raises(ValueError, match="num_batches must be at least 2"):
        one_mode(1.0, 0.1, 0, 1)
    with pytest.raises(ValueError, match="phase must be below num_batches = 5, got 5"):
        one_mode(1.0, 0.1, 0, 5, 5)
    with pytest.raises(ValueError, match="phase must be 'random'"):
        one_mode(1.0, 0.1, 0, 5, "end")
    with pytest.raises(ImproperLawError, match=r"outside \(0, 2\(1\+momentum\)\) = \(0, 3\)"):
        one_mode(2.0, 2.0, 0.5, 5).mean()


def test_transients_of_epochs_are_sums_over_all_pairs_of_steps():
    # Kicks a_n = Fⁿ G, with 1 on the diagonal of their correlations, −1/(M−1) within an epoch.
    hessian, c = np.array([[1.5, 0.4], [0.4, 0.8]]), np.array([[1.0, 0.6], [0.6, 0.8]])
    eta, beta, batches, steps, decay = 0.1, 0.7, 4, 11, 0.1
    law = EpochNoiseGaussian(hessian, c, eta, batches, beta, decay, [0.5, -1.0])
    stiffness, eye = hessian + decay * np.eye(2), np.eye(2)
    f = np.block([[eye - eta * stiffness, -eta * beta * eye], [stiffness, beta * eye]])
    g = np.concatenate([-eta * eye, eye])
    kicks = [np.linalg.matrix_power(f, steps - 1 - n) @ g for n in range(steps)]
    epoch = np.arange(steps) // batches
    shared = np.where(epoch[:, None] == epoch, -1 / (batches - 1), 0.0)
    np.fill_diagonal(shared, 1.0)
    expected = sum(
        shared[n, k] * kicks[n] @ c @ kicks[k].T for n in range(steps) for k in range(steps)
    )
    power, spread = np.linalg.matrix_power(f, steps), 0.2 * c
    start = np.array([2.0, 1.0])
    mean, covariance = law.state_after(steps, mean=start, covariance=spread)
    inside = power[:, :2] @ spread @ power[:, :2].T
    np.testing.assert_allclose(covariance, expected + inside, rtol=1e-10, atol=1e-14)
    minimum = np.array([0.5, -1.0, 0, 0])
    moved = minimum + power[:, :2] @ (start - minimum[:2])
    np.testing.assert_allclose(mean, moved, rtol=1e-12)
    later = law.after(steps, mean=start, covariance=spread)
    np.testing.assert_array_equal(later.covariance(), covariance[:2, :2])
    # From the end of an epoch on, a run of epochs goes on as if it began.
    whole = law.state_after(8, mean=start)
    onward = law.state_after(3, mean=whole[0], covariance=whole[1])
    for one, other in zip(onward, law.state_after(11, mean=start), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("phase", [0, 3])
def test_late_transients_of_epochs_are_stationary(phase):
    law = EpochNoiseGaussian(np.diag([2.0, 0.02]), np.eye(2), 0.1, 5, 0.9, phase=phase)
    _, covariance = law.state_after(50_000 + phase, mean=[1.0, 1.0])
    np.testing.assert_allclose(covariance, law.joint, rtol=1e-7, atol=1e-12)
    single = EpochNoiseGaussian([[1.0]], [[0.0]], 0.1, 1)
    assert single.after(7, mean=[1.0]).covariance() == 0
    with pytest.raises(ValueError, match="mean must have shape"):
        law.after(3, mean=np.zeros(3))
