"""What quadrature knows of laws of the loss with one parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import t as student_t

from statsgd.laws import FlooredPowerOfLossLaw, LossScaledLaw, ScalarNoiseLaw
from statsgd.laws.law import IntractableError
from statsgd.laws.loss_noise.loss_potential import half_square


def root_of_square(params):
    return jnp.sqrt(1 + jnp.sum(params**2))


# On a quadratic the shifted power is Student-t with ν = 1 + 4/ε and variance 2c₀ε/(4 − ε).
@pytest.mark.parametrize(
    "epsilon", [0.8, *(pytest.param(e, marks=pytest.mark.slow) for e in (3.0, 3.8))]
)
def test_shifted_power_of_a_quadratic_is_student(epsilon):
    floor, nu = 0.5, 1 + 4 / epsilon
    laws = (
        FlooredPowerOfLossLaw(half_square, 1, epsilon, floor),
        ScalarNoiseLaw(half_square, 1, lambda s: s + 0.5, epsilon, codimension=1),
    )
    exact = student_t(nu, scale=np.sqrt(2 * floor / nu))
    x = np.array([-40.0, -1.0, 0.0, 0.3, 7.0])
    for law in laws:
        np.testing.assert_allclose(law.log_density(x[:, None]), exact.logpdf(x), rtol=1e-8)
        np.testing.assert_allclose(law.cdf(x[:, None])[:, 0], exact.cdf(x), rtol=1e-7)
        np.testing.assert_allclose(law.mean(), [0.0], atol=1e-8)
        variance = 2 * floor * epsilon / (4 - epsilon)
        np.testing.assert_allclose(law.covariance(), [[variance]], rtol=1e-7)


def test_moments_that_do_not_exist():
    law = FlooredPowerOfLossLaw(half_square, 1, 5.0, 0.5)  # ν = 1.8
    assert np.isinf(law.covariance())
    np.testing.assert_allclose(law.mean(), [0.0], atol=1e-8)
    # (1 + x²)^(−α/2) with α = 1.5: Student-t with ν = ½.
    heavy = LossScaledLaw(root_of_square, 1, 4.0, codimension=None, growth=1.0)
    levels = np.array([0.001, 0.3, 0.9])
    expected = student_t.ppf(levels, 0.5) * np.sqrt(2)
    np.testing.assert_allclose(heavy.quantile(levels)[:, 0], expected, rtol=1e-6)
    assert np.isnan(heavy.mean())
    assert np.isinf(heavy.covariance())


@pytest.mark.parametrize(
    "build",
    [
        # |x|^(−1.1) far out; |x|^(−1.28) of a loss that overflows; |x|^(−0.8) at zero loss.
        lambda: LossScaledLaw(root_of_square, 1, 20.0, codimension=None, growth=1.0),
        lambda: ScalarNoiseLaw(
            lambda v: (1 + v[0] ** 2) ** 8,
            1,
            lambda s: s,
            25.0,
            codimension=None,
            growth=16.0,
            reading="anti_ito",
        ),
        lambda: ScalarNoiseLaw(half_square, 1, lambda s: s**0.4, 1.0, codimension=1),
    ],
    ids=["tail", "overflow", "zero loss"],
)
def test_what_quadrature_cannot_resolve_is_refused(build):
    law = build()
    law.require_proper()
    assert not law.exact_draws
    assert law.starting_points(jax.random.key(0), 3) is None
    for read in (law.mean, law.covariance, law.log_normalizer, law.quadrature):
        with pytest.raises(IntractableError):
            read()
    for read, argument in ((law.cdf, np.ones(1)), (law.quantile, np.array(0.5))):
        with pytest.raises(IntractableError):
            read(argument)
    with pytest.raises(IntractableError):
        law.draw(jax.random.key(0))


def test_draws_and_normaliser_on_a_circle():
    law = LossScaledLaw(lambda v: 1.2 - jnp.cos(v[0] - 1), 1, 1.5, codimension=None, periodic=True)
    mass = quad(lambda x: (1.2 - np.cos(x)) ** (-7 / 3), -np.pi, np.pi)[0]
    np.testing.assert_allclose(law.log_normalizer(), np.log(mass), rtol=1e-9)
    assert law.log_density(np.array([3.5])) == -np.inf
    n = 20_000
    draws = law.draw(jax.random.key(0), (n,))
    assert np.all(np.abs(draws) <= np.pi)
    cosine = np.cos(draws[:, 0] - 1)
    weighted = quad(lambda x: np.cos(x) * (1.2 - np.cos(x)) ** (-7 / 3), -np.pi, np.pi)[0]
    assert abs(cosine.mean() - weighted / mass) < 4 * cosine.std() / np.sqrt(n)
