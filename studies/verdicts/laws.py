"""Laws that verdicts are tried on: what is compared, and what it is compared with."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.signal import lfilter

import statsgd
from statsgd.laws import FlooredLossScaledLaw, GaussianLaw, HeavyBallGaussian, Law
from statsgd.problems.landscapes import quadratic

#: Draws that stand for a law without a class of its own.
_DRAWS = 20_000
#: Between seeds of endpoints and of what they are compared with.
_APART = 1_000_000
#: Correlation of neighbours, share of the rare well, and its distance in standard deviations.
_CORRELATION, _RARE, _AWAY = 0.95, 0.02, 6.0

type Points = Float[Any, "n d"]


class Case(NamedTuple):
    """A law in d dimensions: exact draws, and what a comparison is given of it."""

    draw: Callable[[int, int], Any]
    """`(n, seed) -> (n, d)`, or an ensemble of n runs."""
    reference: Callable[[int], Any]
    """`seed -> ` a law, or draws from it."""


def of_law(law: Law) -> Case:
    """A law that draws itself, by other keys than those of the comparison."""

    def draw(number, seed):
        return np.asarray(law.draw(jax.random.key(_APART + seed), (number,)), np.float64)

    return Case(draw, lambda seed: law)


def of_draws(draw: Callable[[int, int], Points]) -> Case:
    """A law known by independent draws, which differ from repeat to repeat."""
    return Case(draw, lambda seed: draw(_DRAWS, _APART + seed))


def normal(d: int) -> Case:
    """Standard normal."""
    return of_law(GaussianLaw(np.zeros(d), np.eye(d)))


def correlated(d: int) -> Case:
    """Normal, of correlation 0.95 between neighbours."""
    place = np.arange(d)
    return of_law(GaussianLaw(np.zeros(d), _CORRELATION ** np.abs(place[:, None] - place)))


def rank_deficient(d: int) -> Case:
    """Normal in half of the directions, with no noise in the others."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0]
    scale = (np.arange(d) < d // 2).astype(float)
    covariance = turn @ np.diag(scale) @ turn.T
    return Case(
        lambda number, seed: np.random.default_rng(seed).normal(size=(number, d)) * scale @ turn.T,
        lambda seed: GaussianLaw(np.zeros(d), covariance),
    )


def exponential(d: int) -> Case:
    """Independent exponential coordinates."""
    return of_draws(lambda number, seed: np.random.default_rng(seed).exponential(size=(number, d)))


def student(degrees: float) -> Callable[[int], Case]:
    """Student's t of so many degrees of freedom, which SGD has under noise with a floor."""
    # ν = 2 + 4/ε − d.
    return lambda d: of_law(FlooredLossScaledLaw(np.eye(d), 4 / (degrees + d - 2), 1.0))


def rare_well(d: int) -> Case:
    """Normal, but for one point in fifty, which lies in a well six deviations away."""

    def draw(number, seed):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(number, d))
        points[:, 0] += _AWAY * (rng.uniform(size=number) < _RARE)
        return points

    return of_draws(draw)


def ring(d: int) -> Case:
    """About the unit circle of the first two coordinates; normal in the others."""

    def draw(number, seed):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(number, d))
        angle = rng.uniform(0, 2 * np.pi, number)
        radius = 1 + 0.1 * rng.normal(size=number)
        points[:, :2] = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return points

    return of_draws(draw)


def two_deltas(d: int) -> Case:
    """One of two points."""

    def draw(number, seed):
        side = np.random.default_rng(seed).integers(2, size=(number, 1))
        return np.tile(2.0 * side - 1, (1, d))

    return of_draws(draw)


def chains(correlation: float, length: int) -> Callable[[int], Case]:
    """Normal, known by four chains of correlated draws."""

    def known(d: int, seed: int) -> xr.DataTree:
        rng = np.random.default_rng(_APART + seed)
        kicks = rng.normal(size=(4, length, d)) * np.sqrt(1 - correlation**2)
        kicks[:, 0] /= np.sqrt(1 - correlation**2)
        draws = lfilter([1.0], [1.0, -correlation], kicks, axis=1)
        data = xr.Dataset({"params": (("chain", "draw", "parameter"), draws)})
        return xr.DataTree.from_dict({"posterior": data})

    return lambda d: Case(normal(d).draw, functools.partial(known, d))


def run(times: float) -> Callable[[int], Case]:
    """Runs of SGD from three deviations away, over so many relaxation times of the slowest mode."""

    def case(d: int) -> Case:
        curvature, rate = np.geomspace(0.01, 1.0, d), 0.05
        law = HeavyBallGaussian(np.diag(curvature), np.eye(d), rate)
        problem = quadratic(np.diag(curvature))
        sgd = statsgd.SGD(rate, statsgd.noise.Isotropic(1.0))
        start = 3 * np.sqrt(np.diagonal(law.covariance()))

        def draw(number, seed):
            steps = round(times / (rate * curvature[0]))
            return statsgd.simulate(
                problem, sgd, steps=steps, replicas=number, seed=seed, start=start, progress=False
            )

        return Case(draw, lambda seed: law)

    return case


def _off(case: Case, change: Callable[[Points], Points]) -> Case:
    return Case(lambda number, seed: change(case.draw(number, seed)), case.reference)


def wrong_variance(d: int) -> Case:
    """One variance 10 % larger than the law's."""
    return _off(normal(d), lambda x: x * np.sqrt(np.where(np.arange(d) == 0, 1.1, 1.0)))


def wrong_mean(d: int) -> Case:
    """One mean a tenth of a deviation off."""
    return _off(normal(d), lambda x: x + np.where(np.arange(d) == 0, 0.1, 0.0))


def wrong_correlation(d: int) -> Case:
    """A correlation of 0.1 that the law does not know: a joint variance 10 % larger."""
    covariance = np.eye(d)
    covariance[0, 1] = covariance[1, 0] = 0.1
    return _off(normal(d), lambda x: x @ np.linalg.cholesky(covariance).T)


def wrong_student(d: int) -> Case:
    """A tenth wider than a law of 2.5 degrees of freedom."""
    return _off(student(2.5)(d), lambda x: 1.1 * x)


def wrong_wells(d: int) -> Case:
    """Two wells, of which one holds a tenth of the weight too much."""

    def wells(share):
        def draw(number, seed):
            rng = np.random.default_rng(seed)
            side = np.where(rng.uniform(size=(number, 1)) < share, -3.0, 3.0)
            points = rng.normal(size=(number, d))
            points[:, :1] += side
            return points

        return draw

    return Case(wells(0.6), of_draws(wells(0.5)).reference)
