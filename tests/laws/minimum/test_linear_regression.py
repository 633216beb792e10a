"""Minibatch regression: exact second moments against known values and against SGD."""

import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian, LinearRegressionGaussian, PhaseSpaceGaussian
from statsgd.laws.loss_noise import regression_tail_index
from statsgd.laws.minimum import critical_learning_rate, gaussian_critical_learning_rate
from tests.statistical import assert_mean_within, assert_printed, assert_variance_within

INPUTS = np.array([[1, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])
TARGETS = np.array([1, -1, 0.5, 2, 0, -1.5])


def six_examples():
    return problems.linear_regression(INPUTS, TARGETS)


@pytest.mark.parametrize(
    ("settings", "position", "buffer", "gain"),
    [
        (
            (np.diag([2, 1, 0.5]), 0.5, 16, 0.1, 0.9),
            ("0.02006314", "0.01883764", "0.01827937"),
            ("0.42238186", "0.19829096", "0.09620721"),
            "0.11987884",
        ),
        (([[1.0]], 1.0, 4, 0.5), ("0.1",), ("0.4",), "0.09090909"),
        (
            (np.diag([2, 1, 0.5]), 0.5, 8, 0.2),
            ("0.00851554", "0.00743611", "0.00699290"),
            None,
            "0.05296509",
        ),
    ],
)
def test_gaussian_inputs(settings, position, buffer, gain):
    # Cov θ = (σ²/S)(1 + κ/S) ηG⁻¹, G = 2(1−β) − ((1−β)/(1+β) + 1/S)ηA, T = Tr[ηAG⁻¹]; gain = T/S.
    law = LinearRegressionGaussian.gaussian_inputs(*settings)
    for value, printed in zip(np.diagonal(law.covariance()), position, strict=True):
        assert_printed(value, printed)
    assert_printed(law.feedback_gain, gain)
    if buffer is not None:
        values = np.diagonal(law.covariance("momentum_buffer"))
        for value, printed in zip(values, buffer, strict=True):
            assert_printed(value, printed)


def test_constant_noise_and_the_continuous_model_are_too_small():
    # The same setting with C = σ²A/S at the minimum: the chain, and ησ²/(2S(1−β)) of the model.
    inputs, noise_scale, size = np.diag([2, 1, 0.5]), 0.5, 16
    chain = HeavyBallGaussian(inputs, noise_scale * inputs / size, 0.1, 0.9)
    printed = ("0.01649306", "0.01604730", "0.01583333")
    for value, text in zip(np.diagonal(chain.covariance()), printed, strict=True):
        assert_printed(value, text)
    model = PhaseSpaceGaussian.hessian_noise(inputs, noise_scale, size, 0.1, 0.9)
    np.testing.assert_allclose(np.diagonal(model.covariance()), 0.015625, rtol=1e-12)


@pytest.mark.parametrize(
    ("reach", "size", "index", "published"), [(0.5, 4, "9.978384", 12), (0.3, 1, "5.305901", 5.667)]
)
def test_tail_index_is_below_the_published_approximation(reach, size, index, published):
    # The root of E|1 − (ηa/S)χ²_S|^α = 1, against 2S/(ηa) − S.
    assert_printed(regression_tail_index(reach, size), index)
    assert 2 * size / reach - size == pytest.approx(published, abs=5e-4)


def test_one_dimensional_closed_form():
    # β = 0: Var = ησ²/(S(2 − ηa(1 + 2/S))).
    eta, a, s, sigma2 = 0.3, 1.7, 5, 0.4
    law = LinearRegressionGaussian.gaussian_inputs([[a]], sigma2, s, eta)
    expected = eta * sigma2 / (s * (2 - eta * a * (1 + 2 / s)))
    np.testing.assert_allclose(law.covariance()[0, 0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "batch_size", "printed"),
    [([[1.0]], 4, "1.33333333"), (np.diag([2, 1, 0.5]), 4, "0.64245344")],
)
def test_largest_stable_learning_rate_for_gaussian_inputs(inputs, batch_size, printed):
    assert_printed(gaussian_critical_learning_rate(inputs, batch_size), printed)


def test_largest_stable_learning_rate_for_equal_modes():
    # d equal modes at β = 0: ηa < 2S/(S + d + 1).
    d, s, a = 7, 3, 0.8
    value = gaussian_critical_learning_rate(a * np.eye(d), s)
    np.testing.assert_allclose(value, 2 * s / ((s + d + 1) * a), rtol=1e-8)


@pytest.mark.parametrize(
    ("scheme", "momentum", "decay", "location", "position", "buffer"),
    [
        (
            "without_replacement",
            0.0,
            0.0,
            ("0.605734767", "-0.716845878"),
            ("0.004663562", "0.000328958", "0.003861049"),
            ("0.11215449", "0.00084597", "0.09276041"),
        ),
        (
            "without_replacement",
            0.5,
            0.1,
            ("0.562752047", "-0.664792863"),
            ("0.009114297", "0.000944868", "0.008925787"),
            ("0.15794400", "0.00646043", "0.15465555"),
        ),
        (
            "with_replacement",
            0.0,
            0.0,
            ("0.605734767", "-0.716845878"),
            ("0.005895402", "0.000399633", "0.004894531"),
            ("0.14180615", "0.00066619", "0.11761845"),
        ),
    ],
)
def test_finite_data(scheme, momentum, decay, location, position, buffer):
    sgd = SGD(0.1, noise.Minibatch(2, scheme), momentum, decay)
    law = LinearRegressionGaussian.from_sgd(six_examples(), sgd)
    for values, printed in (
        (law.mean(), location),
        (law.covariance()[np.triu_indices(2)], position),
        (law.covariance("momentum_buffer")[np.triu_indices(2)], buffer),
    ):
        for value, text in zip(values, printed, strict=True):
            assert_printed(value, text)


def test_constant_noise_on_finite_data_is_too_small():
    # Noise as it is at the minimum, η .1, β .5, λ .1, two examples without repeats.
    sgd = SGD(0.1, noise.Minibatch(2, "without_replacement"), 0.5, 0.1)
    chain = HeavyBallGaussian.from_sgd(six_examples(), sgd).covariance()[np.triu_indices(2)]
    for value, text in zip(chain, ("0.00839105", "0.00103660", "0.00810487"), strict=True):
        assert_printed(value, text)


def test_finite_data_against_the_vectorised_linear_system():
    # vec P = [I − (1−p)F⊗F − (p/N)Σ F_i⊗F_i]⁻¹ vec(p G G_c Gᵀ), solved without the series.
    eta, beta, decay, batch = 0.15, 0.6, 0.05, 3
    problem = six_examples()
    law = LinearRegressionGaussian.from_sgd(problem, SGD(eta, noise.Minibatch(batch), beta, decay))
    eye = np.eye(2)

    def step(hessian):
        full = hessian + decay * eye
        return np.block([[eye - eta * full, -eta * beta * eye], [full, beta * eye]])

    p, n = 1 / batch, len(INPUTS)
    mean = step(INPUTS.T @ INPUTS / n)
    system = np.eye(16) - (1 - p) * np.kron(mean, mean)
    for x in INPUTS:
        each = step(np.outer(x, x))
        system -= p / n * np.kron(each, each)
    push = np.concatenate([-eta * eye, eye])
    gradients = (INPUTS @ law.mean() - TARGETS)[:, None] * INPUTS
    covariance = np.cov(gradients.T, bias=True)
    expected = np.linalg.solve(system, (p * push @ covariance @ push.T).ravel()).reshape(4, 4)
    np.testing.assert_allclose(law.joint, expected, rtol=1e-8)


def test_finite_data_variance_threshold():
    sgd = SGD(0.1, noise.Minibatch(2, "without_replacement"))
    assert_printed(critical_learning_rate(six_examples(), sgd), "0.903251968")


def test_full_batch_does_not_move():
    sgd = SGD(0.1, noise.Minibatch(6, "without_replacement"), 0.5)
    law = LinearRegressionGaussian.from_sgd(six_examples(), sgd)
    assert np.all(law.joint == 0)


def noiseless(inputs):
    """Data that one θ fits exactly."""
    x = np.asarray(inputs, dtype=float)
    return problems.linear_regression(x, x @ np.full(x.shape[1], 2.0))


def test_threshold_where_the_data_leave_no_noise_at_the_minimum():
    # E(1 − ηx²)² = 1 at η = 2E x²/E x⁴.
    found = critical_learning_rate(noiseless([[1], [2], [4]]), SGD(0.1, noise.Minibatch(1)))
    assert found == pytest.approx(14 / 91, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_threshold_of_full_batches_is_that_of_the_mean(beta):
    sgd = SGD(0.1, noise.Minibatch(6, "without_replacement"), beta, 0.2)
    top = np.linalg.eigvalsh(INPUTS.T @ INPUTS / 6)[-1] + 0.2
    assert critical_learning_rate(six_examples(), sgd) == pytest.approx(2 * (1 + beta) / top)


def test_interpolating_data_are_refused_above_their_threshold():
    # E(1 − ηx²)² = 1 at 10/41 for x = (1, 3), and 1.69 a step at η = .3.
    problem = noiseless([[1], [3]])
    assert critical_learning_rate(problem, SGD(0.1, noise.Minibatch(1))) == pytest.approx(10 / 41)
    above = LinearRegressionGaussian.from_sgd(problem, SGD(0.3, noise.Minibatch(1)))
    # η E(x² − h)²/(2h − ηh²), h = 5.
    assert above.feedback_gain == pytest.approx(0.3 * 16 / 2.5)
    with pytest.raises(ImproperLawError, match=r"gain 1\.92 ≥ 1"):
        above.covariance()
    below = LinearRegressionGaussian.from_sgd(problem, SGD(0.24, noise.Minibatch(1)))
    np.testing.assert_array_equal(below.covariance(), [[0.0]])
    np.testing.assert_allclose(below.mean(), [2.0])
    # One example above the bound of the batch size is enough.
    enough = int(np.ceil(above.critical_batch_size))
    LinearRegressionGaussian.from_sgd(problem, SGD(0.3, noise.Minibatch(enough))).require_proper()


def test_residuals_that_are_rounding_are_no_noise():
    law = LinearRegressionGaussian.from_sgd(noiseless(INPUTS), SGD(0.1, noise.Minibatch(2), 0.5))
    np.testing.assert_array_equal(law.joint, 0)


def test_noise_in_one_direction_does_not_hide_that_another_diverges():
    # Noise at the minimum along the first axis only; along the second E(1 − .3x²)² = 1.69.
    inputs, targets = [[1, 0], [1, 0], [0, np.sqrt(2)], [0, np.sqrt(18)]], [1.0, -1.0, 0.0, 0.0]
    law = LinearRegressionGaussian.from_sgd(
        problems.linear_regression(inputs, targets), SGD(0.3, noise.Minibatch(1))
    )
    with pytest.raises(ImproperLawError, match="the noise feedback has gain"):
        law.covariance()


@pytest.mark.parametrize(("beta", "decay"), [(0.0, 0.0), (0.7, 0.0), (0.4, 0.3)])
def test_threshold_of_noiseless_data_is_where_second_moments_begin_to_grow(beta, decay):
    # The spectral radius of E[T⊗T] over all examples, T the step of (θ, m).
    features = np.random.default_rng(2).standard_normal((5, 3))
    sgd = SGD(0.1, noise.Minibatch(1), beta, decay)
    found = critical_learning_rate(noiseless(features), sgd)
    eye = np.eye(3)

    def growth(eta):
        steps = [np.outer(x, x) + decay * eye for x in features]
        steps = [np.block([[eye - eta * g, -eta * beta * eye], [g, beta * eye]]) for g in steps]
        squares = np.mean([np.kron(step, step) for step in steps], axis=0)
        return np.abs(np.linalg.eigvals(squares)).max()

    assert growth(found) == pytest.approx(1, abs=1e-9)
    assert growth(1.01 * found) > 1 > growth(0.99 * found)


def test_directions_without_inputs_count_for_nothing():
    sgd = SGD(0.1, noise.Minibatch(1))
    flat = noiseless([[1, 0, 1], [3, 0, 3]])
    assert critical_learning_rate(flat, sgd) == pytest.approx(10 / 41 / 2)
    assert critical_learning_rate(noiseless(np.zeros((2, 2))), sgd) == np.inf


def test_fresh_inputs_without_label_noise():
    law = LinearRegressionGaussian.gaussian_inputs([[1.0]], 0.0, 4, 0.5)
    np.testing.assert_array_equal(law.covariance(), [[0.0]])
    # E(1 − ηa²)² = 1 − 2η + 3η² at S = 1.
    with pytest.raises(ImproperLawError, match="feedback has gain"):
        LinearRegressionGaussian.gaussian_inputs([[1.0]], 0.0, 1, 0.67).covariance()


@pytest.mark.parametrize(
    "scheme", ["with_replacement", pytest.param("without_replacement", marks=pytest.mark.slow)]
)
def test_simulated_moments(scheme):
    # 20 000 endpoints see a factor of 1.05; freezing the noise at the minimum is off by more.
    problem = six_examples()
    sgd = SGD(0.1, noise.Minibatch(2, scheme), momentum=0.5, weight_decay=0.1)
    tree = simulate(problem, sgd, steps=150, replicas=20_000, seed=1, progress=False)
    law = LinearRegressionGaussian.from_sgd(problem, sgd)
    ends = tree["endpoints"]["params"].values
    assert_mean_within(ends, law.mean())
    assert_variance_within(ends, np.diagonal(law.covariance()), mean=law.mean(), resolve=1.05)
    assert_variance_within(
        tree["momentum_buffer"]["params"].values,
        np.diagonal(law.covariance("momentum_buffer")),
        mean=0,
        resolve=1.05,
    )
    frozen = np.diagonal(HeavyBallGaussian.from_sgd(problem, sgd).covariance())
    with pytest.raises(AssertionError, match="sigmas"):
        assert_variance_within(ends, frozen, mean=law.mean(), resolve=1.05)


@pytest.mark.slow
def test_fresh_gaussian_inputs_simulated():
    import jax
    import jax.numpy as jnp

    scale = np.sqrt([2.0, 1.0, 0.5])

    def draw(key):
        x_key, y_key = jax.random.split(key)
        x = scale * jax.random.normal(x_key, (3,))
        return x, jnp.sqrt(0.5) * jax.random.normal(y_key)

    problem = problems.population_risk(
        lambda theta, example: 0.5 * (example[0] @ theta - example[1]) ** 2,
        draw,
        np.zeros(3),
        exact_loss=lambda theta: 0.5 * jnp.sum(scale**2 * theta**2) + 0.25,
    )
    sgd = SGD(0.2, noise.Minibatch(8, "fresh"))
    tree = simulate(problem, sgd, steps=200, replicas=20_000, seed=2, progress=False)
    law = LinearRegressionGaussian.gaussian_inputs(np.diag(scale**2), 0.5, 8, 0.2)
    ends = tree["endpoints"]["params"].values
    assert_variance_within(ends, np.diagonal(law.covariance()), mean=0, resolve=1.06)


def test_equivalent_chain_has_the_mean_noise_and_the_same_moments():
    # Gaussian inputs: E C = (APA + Tr[AP]A + σ²A)/S with P = Cov θ.
    inputs, noise_scale, size = np.array([[2.0, 0.3], [0.3, 0.5]]), 0.5, 16
    law = LinearRegressionGaussian.gaussian_inputs(inputs, noise_scale, size, 0.1, 0.9, [1.0, 2.0])
    p = law.covariance()
    mean = inputs @ p @ inputs + (np.trace(inputs @ p) + noise_scale) * inputs
    np.testing.assert_allclose(law.equivalent_chain().noise_covariance, mean / size, rtol=1e-10)
    finite = LinearRegressionGaussian.from_sgd(six_examples(), SGD(0.1, noise.Minibatch(2), 0.5))
    for one in (law, finite):
        chain = one.equivalent_chain()
        np.testing.assert_allclose(chain.joint, one.joint, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(chain.mean(), one.mean())


def test_too_small_a_batch_is_refused_with_the_threshold():
    law = LinearRegressionGaussian.gaussian_inputs(np.diag([2, 1, 0.5]), 0.5, 4, 0.65)
    with pytest.raises(ImproperLawError, match=r"batch_size must be above 4\.12\d+, got 4"):
        law.require_proper()
    bound = float(law.critical_batch_size)
    # The bound is the batch size at which the critical learning rate is 0.65.
    eta = 0.65

    def gain(s):
        a = np.array([2, 1, 0.5])
        return np.sum(eta * a / (2 - (1 + 1 / s) * eta * a)) / s

    np.testing.assert_allclose(gain(bound), 1, rtol=1e-8)


def test_too_large_a_rate_on_finite_data_is_refused():
    problem = six_examples()
    law = LinearRegressionGaussian.from_sgd(problem, SGD(0.95, noise.Minibatch(2)))
    with pytest.raises(ImproperLawError, match="batch_size must be above"):
        law.require_proper()
    # Proportional to C/Σ₁ = 1/S: one example above the bound is enough.
    enough = int(np.ceil(law.critical_batch_size))
    LinearRegressionGaussian.from_sgd(problem, SGD(0.95, noise.Minibatch(enough))).require_proper()


@pytest.mark.usefixtures("unchecked")
def test_other_problems_and_noises_are_refused():
    landscape = problems.landscape(lambda x: x @ x, np.zeros(2))
    with pytest.raises(ValueError, match="linear_regression problems, got Landscape"):
        LinearRegressionGaussian.from_sgd(landscape, SGD(0.1, noise.Isotropic(1.0)))
    with pytest.raises(ValueError, match=r"i\.i\.d\. Minibatch noise"):
        LinearRegressionGaussian.from_sgd(six_examples(), SGD(0.1, noise.Isotropic(1.0)))
