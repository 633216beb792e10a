import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import integrate, stats

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws import DiagonalNetworkLaw, InfiniteDepthNetworkLaw, LinearRegressionGaussian
from statsgd.laws.networks import DataMoments
from statsgd.precision import in_double_precision
from statsgd.problems import diagonal_linear_network, linear_regression
from tests.laws.examples import example

GAUSSIAN = DataMoments.teacher(1, 2, 1, 1)  # x ~ N(0, 1), κ = σ = 1
UNIT_LABELS = DataMoments(1, 1, 0, 0, 1)
QUARTILES = [0.25, 0.5, 0.75]


def shown(value, expected, digits):
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=0.5 * 10.0**-digits)


def two_layer_log_density(f, m, t, decay=0.0):
    # The published closed form for P = 2.
    b2 = m.b2 - decay / 2
    root = np.sqrt(m.delta)
    return (
        (-1.5 + b2 / (2 * m.a3 * t)) * np.log(f)
        - (1 + b2 / (4 * m.a3 * t)) * np.log(m.noise(f))
        - (m.a3 * m.b1 - m.a2 * b2) / (2 * t * m.a3 * root) * np.arctan((m.a1 * f - m.a2) / root)
    )


@pytest.mark.parametrize(
    ("t", "mean", "variance", "quartiles", "mode"),
    [
        (0.02, 0.97828, 0.04263, (0.8392, 0.9658, 1.1017), 0.94761),
        (0.05, 0.93763, 0.11980, (0.7174, 0.9107, 1.1184), 0.88641),
        (0.1, 0.84494, 0.25127, (0.5325, 0.8061, 1.0856), 0.80321),
        (0.2, 0.58091, 0.37210, (0.0991, 0.4713, 0.8991), 0.57143),
        (0.25, 0.40372, 0.33701, (0.0028, 0.1474, 0.6819), None),
    ],
)
def test_two_layers_gaussian_inputs(t, mean, variance, quartiles, mode):
    # Moments and quantiles of the closed form at κ = σ = 1.
    law = DiagonalNetworkLaw(2, 1, GAUSSIAN, t)
    shown(law.mean()[0], mean, 5)
    shown(law.covariance()[0, 0], variance, 5)
    shown(law.quantile(QUARTILES)[:, 0], quartiles, 4)
    assert len(law.density_modes()) == (mode is not None)
    if mode is not None:
        shown(law.density_modes()[0], mode, 5)
    # Identity b1 E f − b2 + T E g = 0.
    assert abs(law.mean() - 1 + t * law.expectation(GAUSSIAN.noise)) < 1e-9


def test_fluctuation_inversion():
    # The variance of f peaks at .607 T_c with value .37217.
    variance = [
        float(DiagonalNetworkLaw(2, 1, GAUSSIAN, t).covariance()[0, 0])
        for t in (0.2014, 0.2024, 0.2034)
    ]
    shown(variance[1], 0.37217, 5)
    assert variance[1] > max(variance[0], variance[2])


def test_weak_teacher():
    # κ = .1, σ = 1.
    moments = DataMoments.teacher(1, 2, 0.1, 1)
    law = DiagonalNetworkLaw(2, 1, moments, 0.03)
    shown(law.critical_noise_scale, 0.0980392, 7)
    shown(law.mean()[0], 0.069690, 6)
    shown(law.covariance()[0, 0], 0.004242, 6)
    shown(law.quantile(0.5), 0.05103, 5)
    law = DiagonalNetworkLaw(2, 1, moments, 0.01)
    shown(law.mean()[0], 0.089962, 6)
    shown(law.covariance()[0, 0], 0.001807, 6)


def test_two_layer_law_is_the_published_closed_form():
    for moments, decay, width in (
        (GAUSSIAN, 0.2, 3),
        (DataMoments(1.55, 0.99, 2.035, 1.503, 1.1164), 0, 1),
    ):
        law = DiagonalNetworkLaw(2, width, moments, 0.08, decay)
        f = np.array([0.01, 0.3, 0.8, 2.0, 30.0])
        gap = law.log_density(f[:, None]) - two_layer_log_density(f, moments, 0.08, decay)
        np.testing.assert_allclose(gap, gap[0], atol=1e-10)


@pytest.mark.parametrize("layers", [2, 3, 4, 7])
def test_drift_integral_against_quadrature(layers):
    # log p(f₂) − log p(f₁) from the definition of the law.
    moments, width, t = DataMoments.teacher(1, 2, 0.8, 0.6), 2, 0.1
    law = DiagonalNetworkLaw(layers, width, moments, t)

    def integrand(f):
        return (moments.b1 * f - moments.b2) / (law.tangent_kernel(f) * moments.noise(f))

    for f in (0.3, 0.7, 5.0):
        integral = integrate.quad(integrand, 1.0, f, epsabs=1e-12)[0]
        expected = (
            -1.5 * np.log(law.tangent_kernel(f) / law.tangent_kernel(1.0))
            - np.log(moments.noise(f) / moments.noise(1.0))
            - integral / t
        )
        gap = law.log_density(np.array([f])) - law.log_density(np.array([1.0]))
        np.testing.assert_allclose(gap, expected, rtol=1e-9)


def test_three_layers():
    # P = 3, M = 2, κ = .8, σ = .6, T = .1.
    law = DiagonalNetworkLaw(3, 2, DataMoments.teacher(1, 2, 0.8, 0.6), 0.1)
    shown(law.mean()[0], 0.72440, 5)
    shown(law.quantile(QUARTILES)[:, 0], [0.55606, 0.70583, 0.86096], 5)
    # E[u^(P−2)(b1 f − b2) + T g u^(2P−4)] = 0 with u = (f/M)^(1/P).
    m = law.moments
    identity = law.expectation(
        lambda f: (f / 2) ** (1 / 3) * (m.b1 * f - m.b2) + 0.1 * m.noise(f) * (f / 2) ** (2 / 3)
    )
    assert abs(identity) < 1e-9


@pytest.mark.parametrize(("layers", "exponent"), [(2, -3.5), (3, -4), (4, -4.25)])
def test_tail_exponent(layers, exponent):
    # p ~ f^(−5+3/P).
    law = DiagonalNetworkLaw(layers, 1, GAUSSIAN, 0.1)
    low, high = law.log_density(np.array([[1e8], [1e10]]))
    np.testing.assert_allclose((high - low) / np.log(100), exponent, atol=1e-4)


def test_infinite_depth():
    # Finite depth tends to it: with M^(1−2/P)/D for M/D the rest is O(1/P).
    limit = InfiniteDepthNetworkLaw(GAUSSIAN, 1.0, 0.5)
    deep = DiagonalNetworkLaw(401, round(400 ** (401 / 399)), GAUSSIAN, 0.5)
    np.testing.assert_allclose(deep.quantile(QUARTILES), limit.quantile(QUARTILES), rtol=0.01)
    low, high = limit.log_density(np.array([[1e8], [1e10]]))
    np.testing.assert_allclose((high - low) / np.log(100), -5, atol=1e-4)
    half = InfiniteDepthNetworkLaw(GAUSSIAN, 0.5, 0.25)  # only (M/D)/T matters
    np.testing.assert_allclose(half.mean(), limit.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("moments", "t", "decay", "concentration", "rate"),
    [
        (DataMoments(1, 0.05, 0, 0, 1), 0.01, 0.0, 2.0, 50.0),
        (DataMoments(1, 0.05, 0, 0, 1), 0.025, 0.0, 0.5, 20.0),
        (DataMoments(1, 0.05, 0, 0, 1), 0.01, 0.04, 1.0, 50.0),
        (DataMoments(1, 0.08, 0, 0, 1), 0.02, 0.0, 1.5, 25.0),
    ],
)
def test_pure_label_noise_two_layers_is_gamma(moments, t, decay, concentration, rate):
    # Gamma((T_c/T − 1)/2, b1/(2 T a3)).
    law = DiagonalNetworkLaw(2, 1, moments, t, decay)
    exact = stats.gamma(concentration, scale=1 / rate)
    np.testing.assert_allclose(law.mean()[0], exact.mean(), rtol=1e-9)
    np.testing.assert_allclose(law.covariance()[0, 0], exact.var(), rtol=1e-8)
    f = np.array([0.001, 0.02, 0.1])
    np.testing.assert_allclose(law.log_density(f[:, None]), exact.logpdf(f), rtol=1e-9)
    np.testing.assert_allclose(law.cdf(f[:, None])[:, 0], exact.cdf(f), atol=1e-8)
    np.testing.assert_allclose(law.quantile(QUARTILES)[:, 0], exact.ppf(QUARTILES), rtol=1e-6)


def test_gamma_values():
    law = DiagonalNetworkLaw(2, 1, DataMoments(1, 0.05, 0, 0, 1), 0.01)
    shown(law.quantile(0.5), 0.033567, 6)
    shown(law.density_modes()[0], 0.02, 9)  # (b2 − 3 a3 T)/b1
    assert law.critical_noise_scale == 0.05
    decayed = DiagonalNetworkLaw(2, 1, DataMoments(1, 0.05, 0, 0, 1), 0.01, 0.04)
    shown(decayed.critical_noise_scale, 0.03, 9)


def test_pure_label_noise_four_layers_is_inverse_gaussian():
    # √f ~ GIG(−5/2, K b1, K b2), K = √M/(T a3).
    for width, t, root_mean, mean in ((1, 0.1, 0.827068, 0.751880), (4, 0.3, 0.757825, 0.658979)):
        law = DiagonalNetworkLaw(4, width, UNIT_LABELS, t)
        shown(law.expectation(jnp.sqrt)[0], root_mean, 6)
        shown(law.mean()[0], mean, 6)
        k = np.sqrt(width) / t
        root = stats.geninvgauss(-2.5, k)
        f = np.array([0.2, 0.7, 1.5])
        np.testing.assert_allclose(law.cdf(f[:, None])[:, 0], root.cdf(np.sqrt(f)), atol=1e-8)
    shown(DiagonalNetworkLaw(4, 1, UNIT_LABELS, 0.1).covariance()[0, 0], 0.261745, 6)


def test_pure_label_noise_three_layers():
    law = DiagonalNetworkLaw(3, 2, UNIT_LABELS, 0.2)
    shown(law.mean()[0], 0.72953, 5)
    shown(law.covariance()[0, 0], 0.31321, 5)
    shown(law.quantile(QUARTILES)[:, 0], [0.35014, 0.57720, 0.93639], 5)


@pytest.mark.parametrize(
    ("eta", "variance", "discrete", "nu", "scale", "quartile"),
    [
        (0.02, 0.0208333, 0.0212766, 26, 0.138675, 0.094860),
        (0.10, 0.125, 0.142857, 6, 0.288675, 0.207141),
    ],
)
def test_one_layer_is_student_t(eta, variance, discrete, nu, scale, quartile):
    # StudentT(1 + b1/(T a1), κ, √(σ² b1/(a1 ν))), T = η at S = 1.
    law = DiagonalNetworkLaw(1, 1, GAUSSIAN, eta)
    named = law.exact_distribution()
    np.testing.assert_allclose(float(named.df), nu, rtol=1e-6)
    shown(float(named.scale), scale, 6)
    shown(law.covariance()[0, 0], variance, 7)
    shown(law.discrete_variance(eta), discrete, 6)
    shown(law.quantile(0.75) - 1, quartile, 6)
    f = np.array([-1.0, 0.9, 3.0])
    exact = stats.t(nu, 1, np.sqrt(1 / (2 * nu)))
    np.testing.assert_allclose(law.log_density(f[:, None]), exact.logpdf(f), atol=1e-9)


def test_one_layer_with_decay_is_pearson():
    law = DiagonalNetworkLaw(1, 1, GAUSSIAN, 0.05, 0.5)
    assert law.exact_distribution() is None
    shown(law.mean()[0], 0.8, 9)
    shown(law.covariance()[0, 0], 0.0469565, 7)
    shown(law.quantile(QUARTILES)[:, 0], [0.66782, 0.81031, 0.94395], 5)
    np.testing.assert_allclose(law.expectation(lambda f: f), 0.8, rtol=1e-9)
    np.testing.assert_allclose(law.expectation(lambda f: (f - 0.8) ** 2), 0.0469565, rtol=1e-5)


def test_one_layer_with_constant_squared_input_is_normal():
    # Normal(b2/b1λ, √(T a3/b1λ)).
    law = DiagonalNetworkLaw(1, 1, DataMoments(1, 0.5, 0, 0, 2), 0.1, 0.2)
    exact = stats.norm(0.5 / 1.1, np.sqrt(0.2 / 1.1))
    np.testing.assert_allclose(law.log_density(np.array([0.3])), exact.logpdf(0.3), rtol=1e-9)
    np.testing.assert_allclose(law.covariance()[0, 0], exact.var(), rtol=1e-12)


def test_one_layer_variance_becomes_infinite():
    # At T = b1/a1 = 1/2.
    assert np.isinf(DiagonalNetworkLaw(1, 1, GAUSSIAN, 0.5).covariance())
    assert np.isfinite(DiagonalNetworkLaw(1, 1, GAUSSIAN, 0.45).covariance())


@pytest.mark.slow
@pytest.mark.parametrize("index", range(6))
def test_density_integrates_to_one(index):
    law = example("DiagonalNetworkLaw", index)
    s = float(law.table.center) + np.linspace(-100, 60, 160_001)
    f = in_double_precision(law.slope_at, s)
    log_jacobian = in_double_precision(law.log_jacobian, s)
    density = np.exp(law.log_density(f[:, None]) + log_jacobian)
    np.testing.assert_allclose(density.sum() * 1e-3, 1, rtol=1e-8)
    np.testing.assert_allclose((f * density).sum() * 1e-3, law.mean()[0], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(6))
def test_draws_follow_the_law(index):
    law = example("DiagonalNetworkLaw", index)
    # Kolmogorov–Smirnov at 1e-4 level of 4000 draws: a scale factor 1.1 would be seen.
    draws = np.asarray(law.draw(jax.random.key(3), (4000,)))[:, 0]
    assert stats.kstest(draws, lambda f: law.cdf(f[:, None])[:, 0]).pvalue > 1e-4


def test_weights_carry_the_slope_and_the_conserved_ratios():
    law = DiagonalNetworkLaw(2, 2, DataMoments(1, 0.05, 0, 0, 1), 0.01, ratios=[1.0, 2.0])
    trace = numpyro.handlers.trace(numpyro.handlers.seed(law.model, 0)).get_trace()
    weights, slope = trace["weights"]["value"], trace["params"]["value"][0]
    np.testing.assert_allclose(jnp.sum(jnp.prod(weights, 1)), slope, rtol=1e-5)
    np.testing.assert_allclose(weights[1] / weights[0], 2, rtol=1e-5)
    deep = DiagonalNetworkLaw(3, 2, UNIT_LABELS, 0.2).weights(0.7)
    np.testing.assert_allclose(deep, (0.35) ** (1 / 3) * np.ones((2, 3)), rtol=1e-6)


def test_collapse():
    # T_c = 1/3 at κ = σ = 1: above it the only law is the point mass at zero.
    assert DiagonalNetworkLaw(2, 1, GAUSSIAN, 0.3).collapse_weight == 0
    with pytest.raises(ImproperLawError, match=r"T=0.34 ≥ critical T_c=\(b2-λ/2\)/a3=0.333333"):
        DiagonalNetworkLaw(2, 1, GAUSSIAN, 0.34).mean()
    assert DiagonalNetworkLaw(2, 1, GAUSSIAN, 0.34).collapse_weight == 1
    assert DiagonalNetworkLaw(3, 1, GAUSSIAN, 5.0).collapse_weight == 0
    with pytest.raises(ImproperLawError, match="only the zero network"):
        DiagonalNetworkLaw(3, 1, GAUSSIAN, 0.1, 0.1).draw(jax.random.key(0))
    with pytest.raises(ImproperLawError, match="interpolated"):
        DiagonalNetworkLaw(2, 1, DataMoments.teacher(1, 2, 1, 0), 0.1).log_density(np.ones(1))
    with pytest.raises(ImproperLawError, match="flip the sign"):
        DiagonalNetworkLaw(2, 1, DataMoments.teacher(1, 2, -1, 1), 0.1).mean()
    with pytest.raises(ImproperLawError, match="T_c="):  # λ ≥ 2 b2
        DiagonalNetworkLaw(2, 1, GAUSSIAN, 0.1, 2.0).mean()
    with pytest.raises(ImproperLawError, match="must be below 1"):
        DiagonalNetworkLaw(4, 1, UNIT_LABELS, 0.1).discrete_variance(0.3)


def test_traces_and_maps_over_its_parameters():
    scales = jnp.array([0.05, 0.1, 0.2])

    def log_density(t):
        return DiagonalNetworkLaw(2, 1, GAUSSIAN, t).log_density(jnp.array([0.7]))

    values = jax.jit(jax.vmap(log_density))(scales)
    exact = [
        DiagonalNetworkLaw(2, 1, GAUSSIAN, t).log_density(np.array([0.7])) for t in (0.05, 0.1, 0.2)
    ]
    np.testing.assert_allclose(values, exact, atol=2e-4)  # float32
    law = DiagonalNetworkLaw(3, 2, GAUSSIAN, 0.1)
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), law, law)
    density = eqx.filter_vmap(lambda one: one.log_density(jnp.array([0.7])))
    mapped = eqx.filter_jit(density)(stacked)
    np.testing.assert_allclose(mapped, law.log_density(np.array([0.7])), atol=2e-4)
    gradient = jax.jit(jax.grad(lambda f: law.log_density(f[None])))(0.7)
    step = 1e-4
    above, below = law.log_density(np.array([[0.7 + step], [0.7 - step]]))
    numeric = (above - below) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3)


@pytest.mark.slow
def test_conditions_on_endpoints():
    law = DiagonalNetworkLaw(2, 1, GAUSSIAN, 0.1)
    obs = np.array([[0.5], [1.0]])
    log_joint, _ = numpyro.infer.util.log_density(law.model, (obs,), {}, {})
    np.testing.assert_allclose(log_joint, np.sum(law.log_density(obs)), rtol=1e-4)


@pytest.mark.parametrize(("momentum", "eta"), [(0.0, 0.025), (0.5, 0.0125)])
@pytest.mark.slow
def test_two_layer_sgd_has_the_gamma_law(momentum, eta):
    # x = ±1, y = κx ± 1, κ = .05: Gamma(.5, scale .05) at T = η/(1−β) = .025. 8000 runs: standard
    # error 1.6 % of the mean, which a factor 1.1 in T would change by 10 %; the law is O(ηκ) off.
    kappa = 0.05
    problem = diagonal_linear_network([1, 1, -1, -1], [kappa + 1, kappa - 1, 1 - kappa, -kappa - 1])
    sgd = SGD(eta, noise.Minibatch(1), momentum=momentum)
    law = DiagonalNetworkLaw.from_sgd(problem, sgd)
    shown(law.mean()[0], 0.025, 7)
    shown(law.covariance()[0, 0], 1.25e-3, 8)
    run = simulate(
        problem,
        sgd,
        steps=4000,
        replicas=8000,
        seed=5,
        progress=False,
        start=np.full((1, 2), 0.2),
    )
    slopes = np.prod(run["endpoints"]["params"].values.astype(np.float64), axis=-1).sum(-1)
    assert not run["run"]["diverged"].values.any()
    error = slopes.std() / np.sqrt(len(slopes))
    assert abs(slopes.mean() - law.mean()[0]) < 4 * error
    distance = stats.kstest(slopes, lambda f: law.cdf(f[:, None])[:, 0]).statistic
    assert distance < 1.95 / np.sqrt(len(slopes)) + 0.005
    wrong = DiagonalNetworkLaw(2, 1, law.moments, 1.1 * law.noise_scale)
    assert abs(slopes.mean() - wrong.mean()[0]) > 4 * error


@pytest.mark.slow
def test_three_layer_sgd():
    # x = ±1, y = ±(1 ± 1): b1 = b2 = a3 = 1; T = η = .01, where the discrete factor is 2.4 %.
    # 8000 runs: standard error 1.6 % of the variance.
    problem = diagonal_linear_network([1, 1, -1, -1], [2, 0, -2, 0], num_layers=3, width=2)
    sgd = SGD(0.01, noise.Minibatch(1))
    law = DiagonalNetworkLaw.from_sgd(problem, sgd)
    run = simulate(problem, sgd, steps=300, replicas=8000, seed=0, progress=False)
    slopes = np.prod(run["endpoints"]["params"].values.astype(np.float64), axis=-1).sum(-1)
    assert abs(slopes.mean() - law.mean()[0]) < 4 * slopes.std() / np.sqrt(8000) + 1e-3
    ratio = slopes.var() / law.discrete_variance(0.01)
    assert abs(ratio - 1) < 4 * np.sqrt(2 / 8000)


def test_one_layer_is_linear_regression():
    # The discrete variance is exact: the same as that of least squares on six examples.
    x, y = np.array([1, -1, 2, 0.5, -0.5, 1.5]), np.array([1.0, 0, 1, 1, -1, 2])
    network = diagonal_linear_network(x, y, num_layers=1, loss_factor=0.5)
    for sampling in ("with_replacement", "without_replacement"):
        sgd = SGD(0.1, noise.Minibatch(2, sampling))
        law = DiagonalNetworkLaw.from_sgd(network, sgd)
        exact = LinearRegressionGaussian.from_sgd(linear_regression(x[:, None], y), sgd)
        np.testing.assert_allclose(law.mean(), exact.mean(), rtol=1e-6)
        variance = law.discrete_variance(0.1)
        np.testing.assert_allclose(variance, exact.covariance()[0, 0], rtol=1e-6)


def test_sgd_outside_the_assumptions_is_refused(unchecked):
    problem = diagonal_linear_network([1.0, 2, -1], [1.0, 1, 0])
    with pytest.raises(ValueError, match="Minibatch noise, got NoNoise"):
        DiagonalNetworkLaw.from_sgd(problem, SGD(0.1, noise.NoNoise()))
    with pytest.raises(ValueError, match="width must be 1"):
        DiagonalNetworkLaw(1, 2, GAUSSIAN, 0.1)
    with pytest.raises(ValueError, match="moments must be DataMoments"):
        DiagonalNetworkLaw(2, 1, (1, 1, 2, 2, 3), 0.1)
