"""Errata of laws near a minimum: centring of the noise, oscillation without momentum, tails."""

import warnings

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

import statsgd
from statsgd import SGD, noise
from statsgd.laws import DiscreteChainLaw, HeavyBallGaussian, PhaseSpaceGaussian
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.laws.loss_noise import regression_tail_index
from statsgd.laws.minimum import PhaseSpaceTransition
from statsgd.problems import landscapes, linear_regression
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register


@register(
    source="Adhikari et al. (2023), arXiv:2306.03521, released code",
    printed="At the minimum with weight decay the noise is the second moment of gradients less "
    "that of the gradient of the loss without decay.",
    correction="The gradient to subtract is the full one, which vanishes there.",
    evidence="The law of the discrete chain with single examples on four examples with x = ±1, "
    "η = 0.05.",
    title="Stationary variance with weight decay",
    x="weight decay λ",
    y="variance of the parameter",
    dense=False,
)
def noise_centring(effort: Effort) -> Curves:
    """The covariance of the noise at a regularised minimum."""
    eta, slope, label = 0.05, 1.0, 0.5
    inputs = np.array([1.0, 1.0, -1.0, -1.0])
    problem = linear_regression(
        inputs[:, None], slope * inputs + label * np.array([1.0, -1.0, 1.0, -1.0])
    )

    def sgd(decay):
        return SGD(eta, noise.Minibatch(1), weight_decay=decay)

    def truth(decay):
        with warnings.catch_warnings():
            # Minibatches of two values make a law without a density: cells smear it.
            warnings.simplefilter("ignore", GridWarning)
            law = DiscreteChainLaw.from_sgd(problem, sgd(decay), Grid(-0.3, 1.6, 2500))
        return float(law.covariance()[0, 0])

    def printed(decay):
        gradient = decay * slope / (1 + decay)  # of the loss alone, at the minimum with decay
        covariance = label**2 - gradient**2
        reach = eta * (1 + decay)
        return eta * covariance / ((1 + decay) * (2 - reach))

    def corrected(decay):
        return float(HeavyBallGaussian.from_sgd(problem, sgd(decay)).covariance()[0, 0])

    at = np.array([0.0, 0.1, 0.2, 0.4, 0.6])
    return Curves(at, [truth(decay) for decay in at], printed, corrected)


@register(
    source="Kunin et al. (2021), arXiv:2107.09133",
    printed="Without momentum too a mode oscillates once ηh > ½: its autocorrelation is that of "
    "the underdamped model.",
    correction="The chain without momentum has the autocorrelation (1 − ηh)^k and no turning modes "
    "at any ηh < 1.",
    evidence="An ensemble of SGD on a quadratic, ηh = 0.8, 40 steps after a start at the minimum.",
    title="Autocorrelation of a mode without momentum, ηh = 0.8",
    x="lag in steps",
    y="autocorrelation of the parameter",
    margin=0.05,
    dense=False,
)
def oscillation_without_momentum(effort: Effort) -> Curves:
    """The second-order model at zero momentum."""
    sgd = SGD(0.8, noise.Isotropic(1.0))
    problem = landscapes.quadratic([[1.0]])
    lags = np.arange(5)
    replicas = 16 * effort.replicas
    seen = statsgd.simulate(
        problem, sgd, steps=44, replicas=replicas, seed=effort.seed, progress=False,
        observe={"x": lambda params: params[0]}, observe_at=[40 + int(lag) for lag in lags],
    )["observables"].to_dataset()["x"].values  # fmt: skip
    found = np.corrcoef(seen.T)[0]
    chain = PhaseSpaceTransition.of(HeavyBallGaussian.from_sgd(problem, sgd))
    gamma, omega2 = 1 / 0.8, 2 / 0.8

    def printed(lag):
        turning, time = np.sqrt(omega2 - gamma**2), 0.8 * lag
        turn = np.cos(turning * time) + gamma / turning * np.sin(turning * time)
        return np.exp(-gamma * time) * turn

    model = PhaseSpaceTransition.of(PhaseSpaceGaussian.from_sgd(problem, sgd))
    return Curves(
        lags[1:], found[1:], printed, lambda lag: chain.correlation(lag)[0],
        error=(1 - found[1:] ** 2) / np.sqrt(replicas),
        remark=f"The model turns once in {model.period()[0]:.3g} steps; the chain does not turn.",
    )  # fmt: skip


@register(
    source="Ziyin, Liu, Mori, Ueda (2022), arXiv:2102.05375",
    printed="The tail of the law of one-parameter regression has the index 2S/(ηa) − S.",
    correction="The index is the root κ of E|1 − ηA|^κ = 1, A the mean of S squared inputs.",
    evidence="Moments E|1 − ηA|^κ by a sum over 80 000 quantiles of A, out to e⁻⁴⁰.",
    title="Tail index of regression on Gaussian inputs, S = 4",
    x="learning rate ηa",
    y="tail index",
    log="y",
    dense=False,
)
def tail_index(effort: Effort) -> Curves:
    """Which moments of the stationary law are finite."""
    size = 4
    # Equal steps in the logarithm of the tail probability: high moments live far out.
    depth = (np.arange(80_000) + 0.5) * 5e-4
    values, weights = chi2.isf(np.exp(-depth), size) / size, 5e-4 * np.exp(-depth)

    def truth(eta):
        return brentq(lambda k: weights @ np.abs(1 - eta * values) ** k - 1, 1.0, 100.0)

    at = np.array([0.25, 0.5, 0.7, 1.0, 1.3])
    return Curves(
        at, [truth(eta) for eta in at], lambda eta: 2 * size / eta - size,
        lambda eta: regression_tail_index(eta, size),
    )  # fmt: skip
