"""The next order in the step: on chains whose law is known, its own order, and what it leaves."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from statsgd import SGD, noise
from statsgd.laws import DiagonalNetworkLaw, InfiniteDepthNetworkLaw, InterpolationLaw
from statsgd.laws.bases.next_order import next_order
from statsgd.laws.grids import DiscreteChainLaw, Grid
from statsgd.laws.grids.discrete_chain import FiniteNoise
from statsgd.laws.law import IntractableError
from statsgd.laws.networks.growth import FactorShrinkage, LogitSteps, LogSlopeSteps
from statsgd.problems import diagonal_linear_network

# Inputs of two sizes with Var x² = ¼, and labels with symmetric noise: a3 = ¼ + σ².
INPUTS = np.sqrt([0.5, 1.5]).repeat(4) * np.tile([1.0, 1.0, -1.0, -1.0], 2)
SIGNS = np.tile([1.0, -1.0], 4)
# Squares that are skewed.
SKEWED = np.array([0.3, 0.5, 0.8, 2.0])


class LinearSteps(eqx.Module):
    """s ← (1 − η)s + √(2η) ξ for normal ξ: an autoregression of variance 1/(1 − η/2)."""

    rate: float

    def __call__(self, s):
        mean, variance = -self.rate * s, 2 * self.rate
        return (
            mean,
            mean**2 + variance,
            mean**3 + 3 * mean * variance,
            mean**4 + 6 * mean**2 * variance + 3 * variance**2,
        )


def standard_normal(s):
    return -(s**2) / 2


@pytest.mark.parametrize("rate", [0.01, 0.02])
def test_an_autoregression_is_as_wide_as_its_chain_but_for_the_square_of_the_step(rate):
    found = next_order(standard_normal, LinearSteps(rate), -4.0, 0.0, 4.0)
    s = found.knots
    density = np.exp(-(s**2) / 2 + found.values - found.values.max())
    density /= integrate.simpson(density, x=s)
    # Of the normal law of the chain, cut off at four.
    chain = np.exp(-(s**2) / 2 * (1 - rate / 2))
    chain /= integrate.simpson(chain, x=s)
    missed = integrate.simpson(s**2 * (density - chain), x=s)
    assert abs(missed) < 2 * rate**2
    assert rate / 3 < integrate.simpson(s**2 * chain, x=s) - 0.9988 < rate


class Narrow(eqx.Module):
    """The autoregression, and its density, in units of a width."""

    width: float

    def density(self, s):
        return standard_normal(s / self.width)

    def __call__(self, s):
        steps = LinearSteps(0.001)(s / self.width)
        return tuple(m * self.width ** (i + 1) for i, m in enumerate(steps))


def test_narrow_densities_take_more_knots_or_are_refused():
    narrow = Narrow(0.002)
    found = next_order(narrow.density, narrow, -4.0, 0.0, 4.0)
    assert len(found.knots) > 1001
    assert found.error < 1e-5
    # (log p/p₀)' of the chain, whose variance is one over 1 − η/2, within a deviation of the mode.
    inside = np.abs(found.knots) < narrow.width
    expected = 0.0005 * found.knots[inside] / narrow.width**2
    np.testing.assert_allclose(found.slopes[inside], expected, rtol=0.01, atol=1e-6)
    lost = Narrow(0.0003)
    with pytest.raises(IntractableError, match="discrete correction"):
        next_order(lost.density, lost, -4.0, 0.0, 4.0)


def test_it_is_a_cubic_between_knots_and_constant_beyond():
    found = next_order(standard_normal, LinearSteps(0.002), -4.0, 0.0, 4.0)
    between = np.asarray(found(jnp.array([-9.0, -4.0, 1.003, 4.0, 9.0])))
    np.testing.assert_allclose(between[[0, 4]], between[[1, 3]], atol=1e-6)
    at = np.asarray(found(jnp.array([0.0])))[0]
    # log of the ratio of both normal densities is ηs²/4, to first order in η.
    np.testing.assert_allclose(between[2] - at, 0.002 * 1.003**2 / 4, rtol=0.03)


def test_far_out_where_steps_are_long_nothing_is_corrected():
    # √m₂ |s| exceeds one from |s| = 1/√(2η + η²s²) on.
    found = next_order(standard_normal, LinearSteps(0.1), -4.0, 0.0, 4.0)
    reach = np.sqrt((-0.2 + np.sqrt(0.04 + 0.04)) / 0.02)
    inside = found.slopes != 0
    assert np.abs(np.abs(found.knots[inside]).max() - reach) < 0.01


@pytest.mark.parametrize("batch", [1, 2])
def test_factors_shrink_with_the_moments_of_all_batches(batch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4), rng.normal(size=4)
    problem = diagonal_linear_network(x, y, num_layers=3, width=2, loss_factor=0.5)
    eta, decay, f = 0.1, 0.2, 0.7
    sgd = SGD(eta, noise.Minibatch(batch), weight_decay=decay)
    u = (f / 2) ** (1 / 3)
    batches = np.stack(np.meshgrid(*[np.arange(4)] * batch), axis=-1).reshape(-1, batch)
    # dL/du of a factor, over u.
    z = eta * (decay + u * np.mean((x[batches] * f - y[batches]) * x[batches], axis=1))
    expected = [np.mean(z**power) for power in (1, 2, 3, 4)]
    np.testing.assert_allclose(FactorShrinkage.of(problem, sgd)(f), expected, rtol=1e-5)


def test_steps_of_both_coordinates_have_the_moments_of_the_chain_to_fourth_order():
    f, kappa = 0.7, 1.5
    errors = []
    for eta in (0.02, 0.01):
        problem = diagonal_linear_network(SKEWED, kappa * SKEWED)
        sgd = SGD(eta, noise.Minibatch(1), weight_decay=0.3)
        shrinkage = FactorShrinkage.of(problem, sgd)
        z = eta * (0.3 + 2 * SKEWED**2 * (f - kappa))
        after = f * (1 - z) ** 2
        ratio = after / (kappa - after) * (kappa - f) / f
        steps = {"log": 2 * np.log(1 - z), "logit": np.log(ratio)}
        given = {
            "log": LogSlopeSteps(shrinkage)(np.log(f)),
            "logit": LogitSteps(shrinkage, np.float64(kappa))(np.log(f / (kappa - f))),
        }
        errors.append(
            [
                abs(float(given[name][k - 1]) - np.mean(steps[name] ** k))
                for name in steps
                for k in (1, 2, 3, 4)
            ]
        )
    # What is left is of fifth order.
    assert np.all(np.array(errors[0]) > 24 * np.array(errors[1]))


def chain(step, low, high, examples):
    """The exact law of a chain on s, whose step depends on which of the examples is drawn."""
    factor = FiniteNoise(lambda s: step(s[0])[:, None], np.full(examples, 1 / examples))
    probe = np.linspace(low, high, 9)[2:-2]
    kick = min(np.std(np.asarray(step(jnp.asarray(s)))) for s in probe)
    wide = 0.15 * (high - low)
    cells = int(np.clip(14 * (high - low + 2 * wide) / kick, 400, 6000))
    return DiscreteChainLaw(lambda s: 0 * s, factor, 1.0, Grid(low - wide, high + wide, cells))


def distance(truth, law, slope_of):
    """Total variation over cells of the chain's grid."""
    edges = np.linspace(truth.grid.lower[0], truth.grid.upper[0], 801)
    law_masses = np.diff(law.cdf(slope_of(edges)[:, None])[:, 0])
    return 0.5 * np.abs(np.diff(truth.cdf(edges[:, None])[:, 0]) - law_masses).sum()


def network_errors(law, layers, width, step_size, label_std):
    """Distance from the chain without and with the correction; A(1) = P M^(2/P−1) for one."""
    eta = step_size / (layers * width ** (2 / layers - 1))
    targets = INPUTS + label_std(eta) * SIGNS
    problem = diagonal_linear_network(INPUTS, targets, num_layers=layers, width=width)
    sgd = SGD(eta, noise.Minibatch(1))
    plain, corrected = (law.from_sgd(problem, sgd, discrete_correction=on) for on in (False, True))

    def step(s):
        gradient = 2 * (INPUTS**2 * jnp.exp(s) - INPUTS * targets)
        scale = jnp.exp((layers - 2) / layers * (s - np.log(width)))
        return layers * jnp.log(jnp.abs(1 - eta * gradient * scale))

    low, high = np.log(plain.quantile([1e-5, 1 - 1e-5])[:, 0])
    truth = chain(step, low, high, len(INPUTS))
    return [distance(truth, found, np.exp) for found in (plain, corrected)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::statsgd.laws.grids.grid.GridWarning")
def test_halving_the_step_halves_what_the_diffusion_limit_misses_and_quarters_the_rest():
    # T = η is 0.8 of T_c, where the mass near zero falls as a low power.
    plain, corrected = np.transpose(
        [
            network_errors(DiagonalNetworkLaw, 2, 1, step, lambda eta: np.sqrt(0.8 / eta - 0.25))
            for step in (0.04, 0.02, 0.01)
        ]
    )
    assert np.all((plain[:-1] / plain[1:] > 1.8) & (plain[:-1] / plain[1:] < 2.3))
    assert np.all(corrected[:-1] / corrected[1:] > 3.5)
    assert corrected[-1] < 0.001 < 0.01 < plain[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::statsgd.laws.grids.grid.GridWarning")
def test_a_deep_network_is_corrected_for_its_depth_too():
    plain, corrected = network_errors(InfiniteDepthNetworkLaw, 101, 100, 0.01, lambda eta: 1.0)
    assert corrected < 0.005 < 0.02 < plain


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::statsgd.laws.grids.grid.GridWarning")
def test_skewed_noise_leaves_the_step_instead_of_its_root():
    inputs, errors = SKEWED / np.sqrt(np.mean(SKEWED**2)), []
    for step_size in (0.02, 0.01, 0.005):
        eta, decay = step_size / 2, 0.1
        problem = diagonal_linear_network(inputs, inputs)
        sgd = SGD(eta, noise.Minibatch(1), weight_decay=decay)
        laws = [
            InterpolationLaw.from_sgd(problem, sgd, discrete_correction=on) for on in (False, True)
        ]

        def step(s, eta=eta, decay=decay):
            f = 1 / (1 + jnp.exp(-s))
            z = eta * (2 * inputs**2 * (f - 1) + decay)
            return 2 * jnp.log(1 - z) - jnp.log1p(f / (1 - f) * (2 * z - z**2))

        low, high = np.asarray(laws[0].coordinate_of(laws[0].quantile([1e-6, 1 - 1e-6])[:, 0]))
        truth = chain(step, low, high, len(inputs))
        errors.append([distance(truth, law, lambda s: 1 / (1 + np.exp(-s))) for law in laws])
    plain, corrected = np.transpose(errors)
    # By √2 and by 2.
    assert np.all((plain[:-1] / plain[1:] > 1.3) & (plain[:-1] / plain[1:] < 1.6))
    assert np.all(corrected[:-1] / corrected[1:] > 1.8)
    assert np.all(corrected < plain / 3)


@pytest.mark.slow
def test_a_corrected_law_is_normalised_and_refuses_what_it_cannot_correct():
    targets = INPUTS + SIGNS
    problem, sgd = diagonal_linear_network(INPUTS, targets), SGD(0.02, noise.Minibatch(1))
    law = DiagonalNetworkLaw.from_sgd(problem, sgd, discrete_correction=True)
    slopes = np.geomspace(1e-4, 20, 100_001)
    density = np.exp(law.log_density(slopes[:, None]))
    np.testing.assert_allclose(integrate.trapezoid(density, slopes), 1, rtol=1e-5)
    mean = integrate.trapezoid(density * slopes, slopes)
    np.testing.assert_allclose(law.mean()[0], mean, rtol=1e-5)
    assert law.density_modes()[0] == pytest.approx(slopes[np.argmax(density)], rel=1e-3)
    for wrong, words in (
        (SGD(0.02, noise.Minibatch(1), 0.5), "momentum = 0, got 0.5"),
        (SGD(0.02, noise.Minibatch(2, "without_replacement")), "with replacement"),
    ):
        with pytest.raises(ValueError, match=words):
            DiagonalNetworkLaw.from_sgd(problem, wrong, discrete_correction=True)
    single = diagonal_linear_network(INPUTS, targets, num_layers=1)
    with pytest.raises(ValueError, match="num_layers must be at least 2"):
        DiagonalNetworkLaw.from_sgd(single, sgd, discrete_correction=True)
