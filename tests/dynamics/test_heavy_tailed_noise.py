"""Stable, Student-t and recorded noise: draws against their laws, and refusals by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma
from scipy.stats import kstest
from scipy.stats import t as student_t

from statsgd import SGD, measures, problems
from statsgd.dynamics.noise import noise_covariance
from statsgd.dynamics.noise.stable_numbers import positive_stable
from statsgd.noise import Empirical, Stable, StudentT, TraceMatched
from statsgd.running import stream_key
from tests.statistical import assert_mean_within

BOWL = problems.landscape(lambda p: 0.5 * jnp.sum(p**2), np.zeros(3))
NUMBER = 100_000


def draws(noise, number=NUMBER, problem=BOWL):
    at = jnp.zeros(problem.dimension)
    keys = jax.random.split(stream_key(5), number)
    drawn = jax.jit(jax.vmap(lambda key: noise.draw(key, problem, at)))(keys)
    return np.asarray(drawn, dtype=np.float64)


@pytest.mark.parametrize("form", ["isotropic", "independent"])
@pytest.mark.parametrize(
    "alpha", [0.7, 1.5, *(pytest.param(a, marks=pytest.mark.slow) for a in (1.0, 2.0))]
)
def test_stable_draws_have_their_characteristic_function(alpha, form):
    x = draws(Stable(alpha, 0.5, form))
    for u in ([1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.8, -1.1, 0.5]):
        u = np.array(u)
        size = np.linalg.norm(u) ** alpha if form == "isotropic" else np.sum(np.abs(u) ** alpha)
        assert_mean_within(np.cos(x @ u), np.exp(-(0.5**alpha) * size))
        assert_mean_within(np.sin(x @ u), 0.0)


@pytest.mark.parametrize(
    ("form", "constant"),
    [
        # P(|ξ| > r) ~ constant · r^(−1.5) in three dimensions.
        ("isotropic", 2**1.5 * gamma(2.25) / (gamma(1.5) * gamma(0.25))),
        ("independent", 6 * gamma(1.5) * np.sin(0.75 * np.pi) / np.pi),
    ],
)
def test_norms_have_the_tail_of_their_form(form, constant):
    # At r = 40 the next term of the series is below a hundredth.
    norm = np.linalg.norm(draws(Stable(1.5, 1.0, form), 4 * NUMBER), axis=1)
    expected = 4 * NUMBER * constant * 40**-1.5
    assert abs(np.sum(norm > 40) - expected) < 4 * np.sqrt(expected) + 0.02 * expected


def test_single_precision_reaches_far_into_the_tail():
    # Of 4·10⁶ numbers the largest is about (8·10⁶ c)^(2/3): c = 0.1995, quartiles of a maximum.
    x = np.abs(draws(Stable(1.5, 1.0, "independent"), 1_300_000))
    scaled = x.max() / (2 * x.size * gamma(1.5) * np.sin(0.75 * np.pi) / np.pi) ** (2 / 3)
    assert 1 / 12 < scaled**1.5 < 3000  # of an exponential number, between e^(−12) and 1/3000


@pytest.mark.parametrize("index", [0.35, 0.75, 1.0])
def test_positive_stable_numbers_have_their_laplace_transform(index):
    a = np.asarray(positive_stable(stream_key(2), index, (NUMBER,)), dtype=np.float64)
    for t in (0.3, 2.0):
        expected = np.exp(-(t**index))
        if index < 1:
            assert_mean_within(np.exp(-t * a), expected)
        else:
            np.testing.assert_allclose(np.exp(-t * a), expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["isotropic", "independent"])
def test_student_draws_follow_scipys_law(form):
    x = draws(StudentT(1.5, 0.5, form), 20_000)
    assert kstest(x[:, 1] / 0.5, student_t(1.5).cdf).pvalue > 1e-4
    # Isotropic: a coordinate of any direction; independent: the sizes have nothing in common.
    large = np.abs(x) > np.quantile(np.abs(x), 0.99)
    both = np.mean(large[:, 0] & large[:, 1])
    assert (both > 2e-3) if form == "isotropic" else (both < 4e-4)


def test_records_are_drawn_again_about_the_gradient():
    records = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, -1.0], [1.0, 4.0, 2.0]])
    noise = Empirical(records)
    at = jnp.array([1.0, 2.0, 3.0])
    keys = jax.random.split(stream_key(0), 300)
    drawn = np.asarray(jax.vmap(lambda key: noise.draw(key, BOWL, at))(keys)) - np.asarray(at)
    expected = np.unique(records - records.mean(axis=0), axis=0)
    np.testing.assert_allclose(np.unique(drawn.round(5), axis=0), expected, atol=1e-5)
    np.testing.assert_allclose(
        noise_covariance(BOWL, np.asarray(at), noise), np.cov(records.T, bias=True), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (Stable(1.5, 0.3), "Stable noise has one for alpha = 2 alone, got alpha = 1.5"),
        (StudentT(2.0, 0.3), "StudentT noise has one for dof > 2, got dof = 2"),
    ],
)
def test_no_variance_is_refused_by_name(noise, words):
    bowl = problems.landscape(lambda p: 0.5 * jnp.sum(p**2), np.zeros(1))
    with pytest.raises(ValueError, match=words):
        noise.covariance(bowl, jnp.zeros(1))
    with pytest.raises(ValueError, match=words):
        noise_covariance(bowl, np.zeros(1), noise)
    with pytest.raises(ValueError, match=words):
        SGD(0.1, noise).diffusion_limit(bowl)
    with pytest.raises(ValueError, match=words):
        TraceMatched(noise).check(bowl)
    with pytest.raises(ValueError, match=words):
        measures.noise_operator(noise)
    traced = jax.jit(lambda alike: alike.covariance(bowl, jnp.zeros(1)))(noise)
    assert np.all(np.isinf(traced))


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    for alpha in (0.0, -1.0, 2.1, np.nan, "two"):
        with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\], got"):
            Stable(alpha, 1.0)
    with pytest.raises(ValueError, match="scale must be positive and finite, got 0"):
        Stable(1.5, 0)
    with pytest.raises(ValueError, match="form must be one of 'isotropic', 'independent', got"):
        Stable(1.5, 1.0, "round")
    with pytest.raises(ValueError, match="scale must be one number for isotropic noise"):
        StudentT(3.0, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"have shape \(3,\) for this problem"):
        Stable(1.5, [1.0, 2.0], "independent").check(BOWL)
    with pytest.raises(ValueError, match="dof must be positive"):
        StudentT(0.0, 1.0)
    with pytest.raises(ValueError, match="gradients must be finite, got 1 NaN"):
        Empirical([[0.0, np.nan], [1.0, 2.0]])
    with pytest.raises(ValueError, match="gradients must have at least two rows"):
        Empirical(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"gradients must have shape \(n, 3\)"):
        Empirical(np.ones((4, 2))).check(BOWL)
