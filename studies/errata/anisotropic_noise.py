"""Errata of anisotropic noise: how much alignment gains, and how large a step may be."""

import math

import numpy as np
from scipy.optimize import brentq

import statsgd
from statsgd import SGD, noise
from statsgd.laws import AnisotropicQuadraticLaw
from statsgd.measures import expected_sharpness, isotropic_ratio, mean_square_threshold
from statsgd.problems import landscapes
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register

_ZHU = "Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195"


@register(
    source=_ZHU,
    printed="Noise aligned with the curvature escapes at least d^(2ρ − 1) times as fast as "
    "isotropic noise, where curvatures beyond the outliers fall like d^(−ρ).",
    correction="The gain Tr(HC) d/(Tr H Tr C) is at most d h_max/Tr H, hence at most d: for ρ ≥ 1 "
    "the order is d/r, r the number of outliers.",
    evidence="Mean loss of an ensemble one step from the minimum, noise C = H over noise C ∝ I of "
    "the same trace; ten outliers and ρ = 1.5.",
    title="Gain of aligned over isotropic noise in the first step",
    x="number of parameters d",
    y="ratio of climbed loss",
    relation=">",
    log="xy",
    tolerance=0.02,
    dense=False,
)
def order_of_the_gain(effort: Effort) -> Curves:
    """The indicator of escape at growing dimension."""
    rng, eta = np.random.default_rng(effort.seed), 0.1
    at = np.array([30, 100, 300, 1000])

    def curvatures(dimension):
        return np.concatenate([np.ones(10), np.full(int(dimension) - 10, dimension**-1.5)])

    truth, error = [], []
    for dimension in at:
        h = curvatures(dimension)
        loss = []
        for spread in (h, np.full_like(h, h.mean())):
            steps = eta * np.sqrt(spread) * rng.normal(size=(effort.replicas, len(h)))
            climbed = 0.5 * steps**2 @ h
            loss.append((climbed.mean(), climbed.std(ddof=1) / np.sqrt(len(climbed))))
        (one, one_error), (other, other_error) = loss
        truth.append(one / other)
        error.append(one / other * np.hypot(one_error / one, other_error / other))
    return Curves(
        at, truth, lambda d: d**2,
        lambda d: isotropic_ratio(np.diag(curvatures(d)), np.diag(curvatures(d))), error,
    )  # fmt: skip


@register(
    source="Wu, Su (2023), arXiv:2305.17490, abstract",
    printed="Where SGD is linearly stable, Tr H ≤ 2/η: no step above 2/Tr H is stable.",
    correction="That is the form for single examples; with batches of S the trace may be about S "
    "times as large, and the exact threshold is an eigenvalue.",
    evidence="Spectral radius of the mean of (I − ηH_B)⊗(I − ηH_B) over all batches, bisected to "
    "one; four orthogonal examples of squared norms 1, 2, 3, 4.",
    title="Largest step that is stable in mean square",
    x="batch size S",
    y="largest stable learning rate",
    relation="<",
    dense=False,
)
def trace_bound(effort: Effort) -> Curves:
    """Stability with batches, by enumeration."""
    features = np.diag(np.sqrt([1.0, 2.0, 3.0, 4.0]))
    number = len(features)

    def batches(size):
        # Ways in which a batch with repeats may hold each example 0, 1, … times.
        for counts in np.ndindex(*[size + 1] * number):
            if sum(counts) == size:
                ways = math.factorial(size) / math.prod(map(math.factorial, counts))
                yield np.array(counts) / size, ways / number**size

    def radius(eta, size):
        total = 0
        for shares, weight in batches(size):
            step = np.eye(number) - eta * features.T @ (shares[:, None] * features)
            total = total + weight * np.kron(step, step)
        return np.max(np.abs(np.linalg.eigvals(total)))

    def truth(size):
        return brentq(lambda eta: radius(eta, size) - 1, 0.1, 1.95, xtol=1e-6)

    at = np.array([1, 3, 4, 6])
    trace = np.sum(features**2) / number
    return Curves(
        at, [truth(int(size)) for size in at], lambda size: 2 / trace,
        lambda size: mean_square_threshold(features, int(size)),
    )  # fmt: skip


@register(
    source=_ZHU,
    printed="In the toy with ηh = 1 the SDE describes the sharp basin: every noise of the same "
    "trace ends at the loss ηTr(C)/4.",
    correction="The chain ends at (η/2)Tr[(2 − ηH)⁻¹C]: twice as high for noise along the sharpest "
    "direction at ηh = 1.",
    evidence="An ensemble of SGD on the toy's sharp basin (curvatures 20 and 200), noise along "
    "the sharp direction.",
    title="Stationary loss over that of the SDE",
    x="learning rate times sharpest curvature ηh",
    y="mean loss over ηTr(C)/4",
    margin=0.05,
)
def toy_beyond_the_sde(effort: Effort) -> Curves:
    """The stationary loss in the sharp basin at growing steps."""
    hessian, covariance = np.diag([20.0, 200.0]), np.diag([0.0, 1.0])
    problem = landscapes.quadratic(hessian)
    at = np.array([0.1, 0.4, 0.7, 1.0, 1.3])
    sgd = statsgd.grid(SGD(0.005, noise.Anisotropic(np.diag([1e-12, 1.0]))), learning_rate=at / 200)
    replicas = 8 * effort.replicas
    ends = statsgd.simulate(
        problem, sgd, steps=100, replicas=replicas, seed=effort.seed, progress=False
    )
    loss = ends["run"].to_dataset()["loss"].values.reshape(len(at), -1) / (at[:, None] / 200 / 4)

    def corrected(reach):
        law = AnisotropicQuadraticLaw(hessian, covariance, reach / 200)
        return law.climb() / (reach / 200 / 4)

    return Curves(
        at, loss.mean(axis=1), lambda reach: 1.0, corrected,
        loss.std(axis=1, ddof=1) / np.sqrt(replicas),
    )  # fmt: skip


@register(
    source=f"{_ZHU}, released code",
    printed="The mean of |L(θ + ν) − L(θ)| over ν ~ N(0, ε²I) is the expected sharpness.",
    correction="Without the absolute value it is ε²Tr(H)/2; with it the gradient is measured where "
    "ε|∇L| exceeds that.",
    evidence="ε²Tr(H)/2, exact for a quadratic of 40 equal curvatures, at points with a gradient; "
    "the printed form in closed form for many modes.",
    title="Expected sharpness at points off the minimum, ε = 0.01",
    x="size of the gradient |∇L|",
    y="expected sharpness",
    tolerance=0.02,
    dense=False,
)
def absolute_sharpness(effort: Effort) -> Curves:
    """A folded normal in place of its mean."""
    dimension, radius = 40, 0.01
    problem = landscapes.quadratic(np.eye(dimension))
    mean = radius**2 * dimension / 2

    def printed(slope):
        spread = np.sqrt(radius**2 * slope**2 + radius**4 * dimension / 2)
        folded = spread * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * spread**2))
        return folded + mean * math.erf(mean / (spread * np.sqrt(2)))

    def corrected(slope):
        params = np.zeros(dimension)
        params[0] = slope
        draws = 4 * effort.replicas
        return float(expected_sharpness(problem, params, radius, draws=draws).value)

    at = np.array([0.0, 0.3, 0.8])
    return Curves(at, np.full(len(at), mean), printed, corrected)
