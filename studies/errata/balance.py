"""Errata of the law of balance and of the stationary law of diagonal networks."""

import numpy as np
from scipy.optimize import brentq, minimize_scalar

import statsgd
from statsgd import SGD, noise
from statsgd.laws import FokkerPlanckLaw
from statsgd.laws.balance import balance_rate, rescaling_generator
from statsgd.laws.grids.grid import Grid
from statsgd.laws.networks import DataMoments, collapse_exponent
from statsgd.problems import diagonal_linear_network
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register

_SOURCE = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"
_INPUTS = np.array([-1.5, -0.5, 0.5, 1.0, 2.0])
_TARGETS = np.array([-1.0, 0.2, 0.3, 0.6, 1.4])


def _slope_noise(slope: float) -> np.ndarray:
    """dℓ/df of each example, for ℓ = (f x − y)²."""
    return 2 * _INPUTS * (slope * _INPUTS - _TARGETS)


@register(
    source=_SOURCE,
    printed="SGD forgets the charge u² − w² at the rate T E[(dℓ/df)²], the uncentred noise.",
    correction="Only fluctuations decay the charge: the rate is T Var[dℓ/df], which the corollary "
    "of the same paper has.",
    evidence="One step of noise with covariance ηC = TΣ₁ on both layers, averaged over the signs "
    "of the noise, at η = 10⁻⁵ and T = 0.1.",
    title="Decay of the charge u² − w² of a two-layer network",
    x="slope f",
    y="decay rate per unit T",
)
def uncentred_noise(effort: Effort) -> Curves:
    """The centred and the uncentred variance of the gradient noise."""
    eta, scale, ratio = 1e-5, 0.1, 3.0
    moments = DataMoments.of_data(_INPUTS, _TARGETS)
    generator = rescaling_generator(2, [0], [1])

    def charge(u, w):
        return u**2 - w**2

    def truth(slope):
        w = np.sqrt(slope / ratio)
        u = ratio * w
        mean, spread = np.mean(_slope_noise(slope)), np.std(_slope_noise(slope))
        kicks = mean + np.array([-1, 1]) * np.sqrt(scale / eta) * spread
        after = np.mean(charge(u - eta * kicks * w, w - eta * kicks * u))
        return -(after / charge(u, w) - 1) / (eta * scale)

    def corrected(slope):
        u, w = np.sqrt(slope * ratio), np.sqrt(slope / ratio)
        pull = np.array([w, u])
        covariance = 4 * float(moments.noise(slope)) * np.outer(pull, pull)
        rate = balance_rate(pull[::-1], covariance, generator, scale)
        return -float(rate) / (scale * charge(u, w))

    at = np.linspace(0.1, 1.4, 6)
    # For single examples the finite step of gradient descent adds what centring took away.
    single = np.mean(_slope_noise(0.1) ** 2) / truth(0.1)
    return Curves(
        at, [truth(slope) for slope in at], lambda f: np.mean(_slope_noise(f) ** 2), corrected,
        remark=f"Steps with single examples decay {single:.3g} times faster at f = 0.1: there the "
        "finite step of the mean gradient adds the difference, which is no part of the noise.",
    )  # fmt: skip


@register(
    source=_SOURCE,
    printed="The density of SGD obeys ∂ₜp = −∇·(p∇L) + ½∂ᵢ∂ⱼ(Σᵢⱼp): the mean runs up the loss.",
    correction="The drift has the other sign and the noise the factor T: "
    "∂ₜp = ∇·(p∇L) + (T/2)∂ᵢ∂ⱼ(Σᵢⱼp).",
    evidence="An ensemble of SGD with single examples, η = 0.005, on five examples, one layer.",
    title="Mean slope of a regression that starts at zero",
    x="time t = ηk",
    y="mean slope",
    dense=False,
)
def drift_sign(effort: Effort) -> Curves:
    """The mean of p under the printed and the corrected equation."""
    eta, steps = 0.005, [10, 20, 30, 45, 60, 80, 100, 120]
    problem = diagonal_linear_network(_INPUTS, _TARGETS, 1, initial_params=np.zeros((1, 1)))
    seen = statsgd.simulate(
        problem, SGD(eta, noise.Minibatch(1)), steps=steps[-1], replicas=effort.replicas,
        seed=effort.seed, observe={"slope": lambda params: params[0, 0]}, observe_at=steps,
        progress=False,
    )["observables"].to_dataset()["slope"].values  # fmt: skip
    moments = DataMoments.of_data(_INPUTS, _TARGETS)
    grid = Grid(-0.3, 1.2, 1000)
    law = FokkerPlanckLaw(
        lambda f: -2 * (moments.b1 * f - moments.b2),
        lambda f: 4 * moments.noise(f)[..., None],
        eta, grid,
    )  # fmt: skip
    start = np.zeros(grid.cells)
    start[np.argmin(np.abs(grid.centres()))] = 1.0

    def corrected(time):
        masses = law.evolve(start, time) if time > 0 else start
        return masses @ grid.centres() / masses.sum()

    best = float(moments.b2 / moments.b1)
    return Curves(
        eta * np.array(steps), seen.mean(axis=0),
        lambda time: best * (1 - np.exp(2 * float(moments.b1) * time)), corrected,
        error=seen.std(axis=0, ddof=1) / np.sqrt(len(seen)),
    )  # fmt: skip


@register(
    source=_SOURCE,
    printed="The variance of dℓ/df is at least Δ = a1a3 − a2.",
    correction="The cross term is a square, and the bound is 4Δ/a1 with Δ = a1a3 − a2².",
    evidence="Var[dℓ/df] over ten examples, minimised over f numerically.",
    title="Least variance of the gradient over all slopes",
    x="slope κ of the teacher",
    y="least variance of dℓ/df",
)
def least_noise(effort: Effort) -> Curves:
    """The discriminant of the quadratic form of the noise."""
    inputs = np.concatenate([_INPUTS, _INPUTS])
    labels = 0.5 * np.concatenate([np.ones(5), -np.ones(5)])

    def moments(slope):
        return DataMoments.of_data(inputs, slope * inputs + labels)

    def truth(slope):
        targets = slope * inputs + labels
        return minimize_scalar(lambda f: np.var(2 * inputs * (f * inputs - targets))).fun

    def printed(slope):
        found = moments(slope)
        return float(found.a1 * found.a3 - found.a2)

    def corrected(slope):
        found = moments(slope)
        return 4 * float(found.delta / found.a1)

    at = np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    return Curves(at, [truth(slope) for slope in at], printed, corrected)


@register(
    source=_SOURCE,
    printed="With weight decay γ|θ|² the charge decays at the rate TC₀ + γ.",
    correction="The rate is 4(Tg + γ), with TC₀ = 4Tg, as the worked example of the same paper "
    "has it.",
    evidence="One step of SGD with each of two examples x = ±1, averaged, at the best slope and "
    "η = 10⁻³.",
    title="Decay of the charge with weight decay",
    x="weight decay γ (per unit T)",
    y="decay rate per unit T",
)
def weight_decay_rate(effort: Effort) -> Curves:
    """The rate of the charge with both reasons to decay."""
    scale, u, w = 1e-3, 1.5, 0.5
    gradients = np.array([-2.0, 2.0])  # dℓ/df at the best slope, label noise ±1
    generator = rescaling_generator(2, [0], [1])

    def truth(gamma):
        kept = 1 - 2 * scale**2 * gamma
        after = np.mean(
            (kept * u - scale * gradients * w) ** 2 - (kept * w - scale * gradients * u) ** 2
        )
        return -np.log(after / (u**2 - w**2)) / scale**2

    def corrected(gamma):
        pull = np.array([w, u])
        covariance = np.var(gradients) * np.outer(pull, pull)
        rate = balance_rate([u, w], covariance, generator, scale, 2 * scale * gamma)
        return -float(rate) / (scale * (u**2 - w**2))

    at = np.array([0.0, 0.5, 1.0, 2.0, 4.0])
    return Curves(at, [truth(g) for g in at], lambda g: np.var(gradients) + g, corrected)


@register(
    source=_SOURCE,
    printed="To second order in the learning rate a two-layer network collapses from "
    "T_c = b2/(a3 + b2²) on.",
    correction="A step multiplies the weights by 1 + 2ηxy, so collapse begins where "
    "E ln|1 + 2ηxy| = 0; for x = ±1 at η = κ/(σ² − κ²), above the first-order b2/a3.",
    evidence="Growth of log(u + w) in an ensemble of SGD with single examples near the zero "
    "network, at two learning rates on either side, interpolated to zero.",
    title="Where noise collapses a two-layer network",
    x="slope κ of the teacher, in units of the label noise",
    y="critical learning rate",
)
def second_order_collapse(effort: Effort) -> Curves:
    """The threshold of collapse at finite learning rates."""
    start, steps = 1e-15, 25  # small enough to stay linear

    def data(slope):
        inputs = np.array([1.0, 1.0, -1.0, -1.0])
        return inputs, slope * inputs + np.array([1.0, -1.0, 1.0, -1.0])

    def growth(slope, rates):
        inputs, targets = data(slope)
        problem = diagonal_linear_network(inputs, targets, 2, initial_params=np.full((1, 2), start))
        ends = statsgd.simulate(
            problem, statsgd.grid(SGD(0.1, noise.Minibatch(1)), learning_rate=rates), steps=steps,
            replicas=4 * effort.replicas, seed=effort.seed, progress=False, allow_unstable=True,
        )  # fmt: skip
        (params,) = ends["endpoints"].to_dataset().data_vars.values()
        logs = np.log(np.abs(params.values.sum(axis=(-1, -2))) / (2 * start)) / steps
        return logs.mean(axis=-1), logs.std(axis=-1, ddof=1) / np.sqrt(logs.shape[-1])

    def corrected(slope):
        x, y = data(slope)
        return brentq(lambda eta: collapse_exponent(x * y, eta), slope, 1.9 * slope)

    at, truth, error = np.array([0.2, 0.3, 0.4]), [], []
    for slope in at:
        rates = slope * np.array([0.96, 1.04]) / (1 - slope**2)
        mean, spread = growth(slope, rates)
        climb = (mean[1] - mean[0]) / (rates[1] - rates[0])
        truth.append(rates[0] - mean[0] / climb)
        error.append(np.mean(spread) / abs(climb))
    return Curves(at, truth, lambda k: k / (1 + k**2), corrected, error)
