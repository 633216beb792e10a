import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import i0, i1

from statsgd import ImproperLawError
from statsgd.laws.gibbs.gibbs import Gibbs
from statsgd.laws.valleys.curve_laws import CosineCurvature, ValleyEntropyLaw, ValleySharpnessLaw
from statsgd.problems import landscape
from tests.laws.examples import example

VALLEY = CosineCurvature(2.0, 1.5)


def cosine(params):
    return jax.numpy.cos(params[0])


def test_isotropic_noise():
    # p ∝ h^(−1/2); a law h^(−1) would give −0.4514
    law = ValleyEntropyLaw(VALLEY)
    assert_allclose(law.expectation(cosine), -0.232133, atol=5.1e-7)
    ratio = np.diff(law.log_density(np.array([[0.0], [1.0]])))
    assert_allclose(ratio, -0.5 * np.log((2 + 1.5 * np.cos(1.0)) / 3.5), rtol=1e-9)


@pytest.mark.parametrize("temperature", [0.05, 2.0])
def test_isotropic_law_is_the_gibbs_marginal_at_any_temperature(temperature):
    problem = landscape(lambda p: (2 + 1.5 * jax.numpy.cos(p[0])) * p[1] ** 2 / 2, np.zeros(2))
    law = Gibbs(problem, temperature, bounds=([-np.pi, -40.0], [np.pi, 40.0]))
    x, z = np.linspace(-np.pi, np.pi, 41), np.linspace(-12, 12, 801)
    joint = np.exp(law.log_density(np.stack(np.meshgrid(x, z, indexing="ij"), -1)))
    marginal = joint.sum(axis=1)
    expected = (2 + 1.5 * np.cos(x)) ** -0.5
    assert_allclose(marginal / marginal[0], expected / expected[0], rtol=1e-5)


def test_label_like_noise_gives_von_mises():
    law = ValleySharpnessLaw(VALLEY, 1.0, 1.0)
    # concentration κ = c h₁/(2w) = 0.75 about π: E cos = −I₁(κ)/I₀(κ)
    assert_allclose(law.expectation(cosine), -i1(0.75) / i0(0.75), rtol=1e-9)
    assert_allclose(law.expectation(cosine), -0.350887, atol=5.1e-7)
    assert law.exact_draws
    draws = np.asarray(law.draw(jax.random.key(0), (20_000,)))[:, 0]
    error = np.cos(draws).std() / np.sqrt(len(draws))
    assert abs(np.cos(draws).mean() + 0.350887) < 4 * error < 0.1 * 0.35
    assert np.all(np.abs(draws) <= np.pi)


@pytest.mark.parametrize(("learning_rate", "value"), [(0.1, -0.381896), (0.05, -0.365731)])
def test_discrete_correction(learning_rate, value):
    # p ∝ (1 − ηh/2)^(c/(ηw))
    law = ValleySharpnessLaw(VALLEY, 1.0, 1.0, learning_rate=learning_rate)
    assert law.exact_draws
    assert_allclose(law.expectation(cosine), value, atol=5.1e-7)
    draws = law.draw(jax.random.key(1), (20_000,))[:, 0]
    assert abs(np.cos(draws).mean() - value) < 4 * np.cos(draws).std() / np.sqrt(20_000)


def test_sgd_follows_the_corrected_law():
    # L = h(x)z²/2 with C = diag(w, ch), η = 0.1, c = w = 1, 12 relaxation times of 200 steps from
    # x uniform. 8000 chains: standard error 0.007, so the uncorrected −0.351 is 4σ away, an
    # h^(−1/2) law 20σ.
    rng = np.random.default_rng(0)
    n, eta = 8000, 0.1
    x, z = rng.uniform(-np.pi, np.pi, n), np.zeros(n)
    total = []
    for step in range(3200):
        h, slope = 2 + 1.5 * np.cos(x), -1.5 * np.sin(x) * z**2 / 2
        first, second = rng.standard_normal((2, n))
        x, z = x - eta * (slope + first), z - eta * (h * z + np.sqrt(h) * second)
        if step >= 1600 and step % 400 == 0:
            total.append(np.cos(x))
    means = np.mean(total, axis=0)
    error = means.std() / np.sqrt(n)
    assert abs(means.mean() + 0.3766) < 4 * np.hypot(error, 0.0013)


def test_endless_curves_need_walls():
    widening = example("ValleySharpnessLaw", 2)
    # (c/(2w)) Tr H = x² + 3: a normal law of variance ½
    assert_allclose(widening.covariance(), [[0.5]], rtol=1e-8)
    # p ∝ (1+x²)^(−4): Student with ν = 7, variance 1/(ν−2)
    heavy = ValleyEntropyLaw(lambda p: (1 + p[0] ** 2) ** 8, None)
    assert_allclose(heavy.covariance(), [[0.2]], rtol=1e-6)
    with pytest.raises(ImproperLawError, match="tr H bounded along the positive side"):
        ValleyEntropyLaw(VALLEY, None).mean()
    with pytest.raises(ImproperLawError, match=r"learning_rate\*h = 2.1 must be below 2"):
        ValleySharpnessLaw(VALLEY, 1.0, 1.0, learning_rate=0.6).mean()
    with pytest.raises(ValueError, match="amplitude must be below mean"):
        CosineCurvature(1.0, 1.5)
