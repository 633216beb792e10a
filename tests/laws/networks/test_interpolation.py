import jax
import numpy as np
import pytest
from scipy import integrate, stats

from statsgd import SGD, ImproperLawError, noise
from statsgd.laws import InterpolationLaw
from statsgd.laws.networks import absorption_probability
from statsgd.problems import diagonal_linear_network
from tests.laws.examples import example


def test_law_with_decay():
    # b1 = κ = 1, a1 = 2, T = .2, λ = .1.
    law = InterpolationLaw(1, 2, 1, 0.2, 0.1)
    np.testing.assert_allclose([law.exponent, law.rate], [1.1875, 0.0625], rtol=1e-12)
    np.testing.assert_allclose(law.mean()[0], 0.946974, atol=5e-7)
    np.testing.assert_allclose(law.covariance()[0, 0], 0.0047536, atol=5e-8)
    np.testing.assert_allclose(law.quantile(0.5)[0], 0.966170, atol=5e-7)
    # Z = Γ(h−½) U(h−½, h+2, c).
    np.testing.assert_allclose(law.table.log_normalizer, law.exact_log_normalizer(), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_density_and_draws(index):
    law = example("InterpolationLaw", index)

    def density(f):
        return float(np.exp(law.log_density(np.array([f]))))

    kappa = float(law.teacher_slope)
    total = integrate.quad(density, 0, kappa / 2)[0] + integrate.quad(density, kappa / 2, kappa)[0]
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    draws = np.asarray(law.draw(jax.random.key(0), (4000,)))[:, 0]
    assert stats.kstest(draws, lambda f: law.cdf(f[:, None])[:, 0]).pvalue > 1e-4
    assert np.isneginf(law.log_density(np.array([kappa + 0.1])))


def test_absorption_without_decay():
    # I_{f₀/κ}(½ − h, 1 + h) above T_c = b1/(a1κ) = ½.
    probability = absorption_probability(1, 2, 1, [0.75, 1.0], [0.25, 0.5])
    np.testing.assert_allclose(probability, [0.838459, 0.881380], atol=5e-7)
    assert absorption_probability(1, 2, 1, 0.4, 0.1) == 1
    assert absorption_probability(1, 2, 1, 5.0, 1.2) == 1


def test_absorption_probability_against_the_diffusion():
    # df = [−2A(f−1) + TgAA'] dt + 2A√(Tg) dW with A = 2f, g = 2(f−1)², stepped in s = ln f:
    # ds = [−4(f−1) − 4Tg] dt + 4√(Tg) dW.
    rng = np.random.default_rng(0)
    t, dt, runs = 0.75, 2e-3, 1500
    s = np.full(runs, np.log(0.25))
    for _ in range(12_000):
        f = np.exp(s)
        g = 2 * (f - 1) ** 2
        drift = -4 * (f - 1) - 4 * t * g
        s = s + drift * dt + 4 * np.sqrt(t * g * dt) * rng.standard_normal(runs)
        s = np.minimum(s, 0.5)
    share = np.mean(s > -1)
    expected = absorption_probability(1, 2, 1, t, 0.25)
    error = np.sqrt(expected * (1 - expected) / runs)
    assert abs(share - expected) < 4 * error + 0.01


def test_conditions():
    with pytest.raises(ImproperLawError, match="both f = 0 and f = κ absorb"):
        InterpolationLaw(1, 2, 1, 0.2, 0.0).mean()
    with pytest.raises(ImproperLawError, match=r"T=0.5 ≥ \(b1-λ/\(2κ\)\)/\(a1κ\)=0.475"):
        InterpolationLaw(1, 2, 1, 0.5, 0.1).mean()


def test_from_sgd():
    x = np.array([1.0, -2, 0.5, 1.5])
    sgd = SGD(0.01, noise.Minibatch(1), weight_decay=0.1)
    law = InterpolationLaw.from_sgd(diagonal_linear_network(x, 0.8 * x), sgd)
    np.testing.assert_allclose(
        [law.input_moment, law.input_variance, law.teacher_slope, law.noise_scale],
        [np.mean(x**2), np.var(x**2), 0.8, 0.01],
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="use DiagonalNetworkLaw"):
        InterpolationLaw.from_sgd(diagonal_linear_network(x, 0.8 * x + [0, 0, 0, 1]), sgd)
    with pytest.raises(ValueError, match="num_layers = 2"):
        InterpolationLaw.from_sgd(diagonal_linear_network(x, x, num_layers=3), sgd)
