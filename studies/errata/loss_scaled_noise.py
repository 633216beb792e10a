"""Errata of the power law along outlier directions: its noise, and its rare events."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from statsgd import SGD, noise
from statsgd.laws import DiscreteChainLaw, OutlierPowerLaw
from statsgd.laws.grids.grid import Grid
from statsgd.measures import first_passage
from statsgd.problems import linear_regression, population_risk
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register

_SOURCE = "Mori, Ziyin, Liu, Ueda (2022), arXiv:2105.09557"


@register(
    source=_SOURCE,
    printed="The decoupled noise is C = 2L H/(SN), in one printed form.",
    correction="There is no 1/N: C = 2L H/S, whatever the number of examples.",
    evidence="The law of the discrete chain with single examples at η = 0.02; inputs of kurtosis "
    "2, for which the decoupled form is exact.",
    title="Stationary variance of regression",
    x="number of examples N",
    y="variance of the parameter",
    log="xy",
    tolerance=0.015,
    dense=False,
)
def factor_of_examples(effort: Effort) -> Curves:
    """The noise of single examples in data sets that repeat one another."""
    eta = 0.02
    inputs = np.repeat([0.0, 0.0, np.sqrt(2), -np.sqrt(2)], 2)
    targets = np.tile([1.0, -1.0], 4)

    def problem(number):
        repeats = int(number) // len(inputs)
        return linear_regression(np.tile(inputs, repeats)[:, None], np.tile(targets, repeats))

    sgd = SGD(eta, noise.Minibatch(1))

    def truth(number):
        law = DiscreteChainLaw.from_sgd(problem(number), sgd, Grid(-0.8, 0.8, 2000))
        return float(law.covariance()[0, 0])

    def corrected(number):
        return float(OutlierPowerLaw.from_sgd(problem(number), sgd).covariance()[0, 0])

    at = np.array([8, 16, 32])
    return Curves(at, [truth(n) for n in at], lambda n: 1 / (2 * n / eta - 1), corrected)


def _two_point_regression():
    """Inputs 0 or ±√2 with chances ½, ¼, ¼ and standard normal labels, new at every step."""

    def draw(key):
        which, label = jax.random.split(key)
        sign = jax.random.choice(which, jnp.array([0.0, 0.0, 1.0, -1.0]))
        return jnp.sqrt(2.0) * sign, jax.random.normal(label)

    return population_risk(
        lambda params, example: 0.5 * (params[0] * example[0] - example[1]) ** 2, draw, np.zeros(1)
    )


@register(
    source=_SOURCE,
    printed="The time in which the loss of linear regression climbs to c L* grows like a power of "
    "c, with the exponent φ − n/2 in the end.",
    correction="With Gaussian labels rare events are Gaussian: every other step of this regression "
    "is one of an autoregression of variance η/(2(1 − η)), whose barrier is linear in the loss.",
    evidence="First passages of SGD with single fresh examples, inputs 0 or ±√2 (for which the "
    "decoupled noise is exact), η = 0.1.",
    title="Mean time in which the loss climbs to c times its least value",
    x="loss level c",
    y="mean time t = ηk",
    log="y",
    tolerance=0.02,
    margin=0.1,
    dense=False,
)
def escape_power_law(effort: Effort) -> Curves:
    """First passages of real SGD against the power law."""
    eta, size = 0.1, 1
    law = OutlierPowerLaw(size, eta, 1.0, 0.5)
    problem = _two_point_regression()
    at = np.array([1.15, 1.25, 1.5])
    truth, error = [], []
    for level in at:
        exits = first_passage(
            problem, SGD(eta, noise.Minibatch(1, "fresh")), _below(np.sqrt(level - 1)),
            steps=40_000, replicas=effort.replicas, seed=effort.seed,
        )  # fmt: skip
        times = eta * exits.time
        truth.append(times.mean())
        error.append(times.std(ddof=1) / np.sqrt(len(times)))

    def printed(level):
        # T = 2β ∫ (1 + y²)^β ∫₀^y (1 + x²)^(−β − 1) dx dy up to y = √(c − 1), β = S/η.
        beta, y = size / eta, np.linspace(0, np.sqrt(level - 1), 4001)
        inner = np.concatenate([[0.0], np.cumsum(_trapezes((1 + y**2) ** (-beta - 1), y))])
        return 2 * beta * np.sum(_trapezes((1 + y**2) ** beta * inner, y))

    def corrected(level):
        # Half of the steps do nothing, half are θ ← (1 − 2η)θ + √2 η n: a chain of curvature 2.
        reach = np.sqrt(level - 1)
        wide = int(np.ceil(1.5 / reach))  # so that ±reach are edges of cells
        grid = Grid(-wide * reach, wide * reach, 80 * wide)
        chain = DiscreteChainLaw(lambda x: -2 * x, [[2.0]], eta, grid)
        centres = grid.centres()
        steps = chain.process.mean_passage(np.abs(centres) > reach)
        return 2 * eta * float(np.interp(0.0, centres, steps))

    return Curves(
        at, truth, printed, corrected, error,
        remark=f"The power law's own quadrature in the library gives {law.passage_time(1.5):.4g} "
        "at c = 1.5.",
    )  # fmt: skip


def _below(reach: float) -> Callable[[Any], Any]:
    """Whether |θ| is below `reach`."""

    def inside(params):
        return jnp.abs(params[0]) < reach

    return inside


def _trapezes(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return (values[1:] + values[:-1]) / 2 * np.diff(at)
