"""Leaving a sharp basin of the plane: surrogates of one trace, and minibatches themselves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree

import statsgd
from statsgd.comparison import Claim
from statsgd.dynamics.noise.gradient_noise import GradientNoise
from statsgd.estimate import Estimate
from statsgd.laws.gibbs import leave_probability
from statsgd.measures import exit_times, hessian, mean_over_clusters, survival_curve
from statsgd.measures.escape.exits import ExitTimes
from statsgd.noise import Minibatch, TraceMatched
from statsgd.problems import EmpiricalRisk, Problem
from statsgd.reports import Chart, Series
from studies.measured import claimed, difference, unit

SHAPES = ("isotropic", "diagonal", "leading", "hessian", "top")
SOURCE = "Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195"
LEARNING_RATE = 0.005  # the leave probabilities are known where η h_max = 1
# Diagonal noise has the curve of isotropic noise, and SGD as it is never leaves.
SHOWN = (
    "SGD, S = 1, amplified",
    "SGD, S = 10, amplified",
    "isotropic",
    "leading",
    "hessian",
    "top",
)


@dataclasses.dataclass(frozen=True)
class PlaneSettings:
    """The published experiment: noise of trace `trace` (params²) is added at each of `steps`."""

    trace: float
    steps: int
    replicas: int
    data_sets: int
    margin: float
    seed: int


class Amplified(GradientNoise):
    """Minibatch noise scaled at every θ to a given trace: its law, not its size, is SGD's own."""

    minibatch: Minibatch
    trace: Float[Any, ""]

    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """∇L plus the scaled deviation of a minibatch gradient from it."""
        mean = problem.gradient(params)
        drawn = self.minibatch.draw(key, problem, params)
        own = jnp.trace(self.minibatch.covariance(problem, params))
        scale = jnp.sqrt(self.trace / own)
        return jax.tree.map(lambda m, g: (m + scale * (g - m)).astype(m.dtype), mean, drawn)

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """The minibatch covariance with that trace."""
        own = self.minibatch.covariance(problem, params)
        return own * self.trace / jnp.trace(own)


def noises(trace: float) -> dict[str, GradientNoise]:
    """By name, all with η² Tr C = `trace` but the first, which is SGD as it is."""
    injected = np.float64(trace / LEARNING_RATE**2)
    one = Minibatch(1)
    return {
        "SGD, S = 1, as it is": one,
        "SGD, S = 1, amplified": Amplified(one, injected),
        "SGD, S = 10, amplified": Amplified(Minibatch(10), injected),
    } | {shape: TraceMatched(one, shape, trace=injected) for shape in SHAPES}


class InSharpBasin(eqx.Module):
    """Whether the sharp parabola is the lower one for at least half of the examples."""

    problem: EmpiricalRisk

    def __call__(self, params: Float[Any, " 2"]) -> Bool[Any, ""]:
        """At `params`."""
        loss: Any = self.problem.per_example
        branches = jax.vmap(lambda x: jnp.stack(loss.branches(params, x)), out_axes=1)
        sharp, flat = branches(jnp.asarray(self.problem.examples))
        return jnp.mean(sharp <= flat) >= 0.5


def exact_leave_probabilities(trace: float, iterates: int) -> dict[str, float]:
    """P(left) of every shape where all examples coincide (covariances in the sharp basin)."""
    even = leave_probability(trace / 2, trace / 2, iterates)
    curved = leave_probability(trace / 11, 10 * trace / 11, iterates)  # C ∝ H = diag(20, 200)
    top = leave_probability(0.0, trace, iterates)
    return dict(zip(SHAPES, (even, even, curved, curved, top), strict=True))


class Leaving:
    """First exits of every dynamics, over one or more data sets; each run is of 499 iterates."""

    def __init__(self, settings: PlaneSettings):
        self.settings = settings
        self.iterates = settings.steps - 1  # the last one is never looked at again
        self.problems = [
            statsgd.problems.two_basins(seed=settings.seed + i) for i in range(settings.data_sets)
        ]
        self.exits: dict[str, list[ExitTimes]] = {
            name: [self._run(problem, noise) for problem in self.problems]
            for name, noise in noises(settings.trace).items()
        }

    def _run(self, problem: EmpiricalRisk, noise: GradientNoise) -> ExitTimes:
        tree = statsgd.simulate(
            problem,
            statsgd.SGD(LEARNING_RATE, noise),
            steps=self.iterates,
            replicas=self.settings.replicas,
            seed=self.settings.seed,
            observe={"inside": InSharpBasin(problem)},
            observe_at=1,
            progress=False,
        )
        return exit_times(tree, "inside")

    def probability(self, name: str) -> Estimate:
        """Share that left, with the spread between data sets as its error.

        Of a single data set, and where none left, that over runs (with one more of each kind:
        never zero).
        """
        left = np.array([exits.left for exits in self.exits[name]])
        if len(left) > 1 and left.any():
            return mean_over_clusters(left.mean(axis=1))
        smoothed = (left.sum() + 1) / (left.size + 2)
        return Estimate(left.mean(), np.sqrt(smoothed * (1 - smoothed) / left.size))

    def curve(self, name: str) -> Series:
        """Share that stayed against the step, by Kaplan and Meier."""
        times = np.concatenate([exits.time for exits in self.exits[name]])
        left = np.concatenate([exits.left for exits in self.exits[name]])
        curve = survival_curve(ExitTimes(times, left))
        steps = np.arange(0, self.iterates + 1, 3)
        return Series(name, steps, *curve.at(steps)[:2], "line")


def parts(settings: PlaneSettings) -> Mapping[str, xr.DataTree]:
    """The claims about the plane."""
    leaving = Leaving(settings)
    share = {name: leaving.probability(name) for name in leaving.exits}
    exact = exact_leave_probabilities(settings.trace, leaving.iterates)
    curves = Chart(
        f"Share still in the sharp basin, noise of trace {settings.trace:g} at every step",
        "steps",
        "share that stayed",
        tuple(leaving.curve(name) for name in SHOWN),
    )
    return {
        "plane, shapes": _shapes(share, exact, leaving).to_datatree(curves),
        "plane, exact": _exact(share, exact, settings, leaving),
        "plane, minibatches": _minibatches(share, settings, leaving),
        "plane, SGD": _as_it_is(share, settings, leaving),
    }


def _shapes(share: Mapping[str, Estimate], exact: Mapping[str, float], leaving: Leaving) -> Claim:
    pairs = (("leading", "isotropic"), ("hessian", "isotropic"), ("top", "hessian"))
    quantities = [
        claimed(f"P(left), {one} above {other}", share[one], ">", share[other])
        for one, other in pairs
    ]
    return Claim(
        "At equal trace, noise along sharp directions leaves a sharp basin more often than "
        "isotropic noise",
        SOURCE,
        quantities,
        why=(
            f"Of Gaussian noise with the trace {share['hessian'].value:.3f} of the runs leave if "
            f"it has the shape of the Hessian and {share['isotropic'].value:.3f} if it is "
            f"isotropic (where all data coincide, exactly {exact['hessian']:.3f} and "
            f"{exact['isotropic']:.3f})."
        ),
        origin="source",
        place="the experiment in the plane",
        data_sets=len(leaving.problems),
        unit=unit(len(leaving.problems)),
    )


def _exact(
    share: Mapping[str, Estimate],
    exact: Mapping[str, float],
    settings: PlaneSettings,
    leaving: Leaving,
) -> xr.DataTree:
    claim = Claim(
        "How many leave is set by the noise covariance at the bottom of the sharp basin",
        "derived, for the experiment of Zhu et al. (2019), arXiv:1803.00195",
        [
            claimed(
                f"P(left) − exact, {name}",
                share[name]._replace(value=share[name].value - exact[name]),
                "=",
                0.0,
                settings.margin,
            )
            for name in SHAPES
        ],
        why=(
            "Exact survival with all data at one point and the covariance of the minimum, against "
            "runs on data that spread, whose covariance is computed anew at every step."
        ),
        origin="derived",
        data_sets=settings.data_sets,
        unit=unit(len(leaving.problems)),
    )
    problem = leaving.problems[0]
    curvature = hessian(problem, np.array([1.0, 1.0]))
    indicator = {
        name: float(np.trace(curvature @ noise.covariance(problem, jnp.ones(2)))) * LEARNING_RATE**2
        for name, noise in noises(settings.trace).items()
        if name in SHAPES
    }
    order = sorted(SHAPES, key=lambda name: indicator[name])
    x = [indicator[name] for name in order]
    chart = Chart(
        "Share that left against the indicator Tr(HC), every shape at the same trace",
        "η² Tr(HC) at the sharp minimum (loss)",
        f"share that left within {leaving.iterates} steps",
        (
            Series(
                "runs", x, [share[n].value for n in order], [share[n].standard_error for n in order]
            ),
            Series("exact, data at a point", x, [exact[n] for n in order], look="line"),
        ),
    )
    return claim.to_datatree(chart)


def _minibatches(
    share: Mapping[str, Estimate], settings: PlaneSettings, leaving: Leaving
) -> xr.DataTree:
    # One step from the minimum, where η h = 1 across: the walker is thrown to a multiple of x_v.
    reaches = []
    for problem in leaving.problems:
        across = np.sum(problem.examples, axis=1) / 2**0.5
        own = np.trace(Minibatch(1).covariance(problem, jnp.ones(2)))
        scale = np.sqrt(settings.trace / own) / LEARNING_RATE
        reaches.append(np.max(np.abs(across - across.mean())) * scale)
    edge = 2 * 2**0.5 / 11
    claim = Claim(
        "A minibatch leaves as often as Gaussian noise of the same covariance",
        SOURCE,
        [
            claimed(
                f"P(left), S = {size}, minus Gaussian",
                difference(share[name], share["leading"]),
                "=",
                0.0,
                2 * settings.margin,
            )
            for size, name in ((10, "SGD, S = 10, amplified"), (1, "SGD, S = 1, amplified"))
        ],
        why=(
            "SGD's own noise, scaled to the same trace: "
            f"{share['SGD, S = 10, amplified'].value:.3f} of the runs leave with S = 10 and "
            f"{share['SGD, S = 1, amplified'].value:.3f} with S = 1, against "
            f"{share['leading'].value:.3f} for Gaussian noise. One example displaces by a bounded "
            "amount: across the basin the farthest one throws a walker at most "
            f"{np.mean(reaches):.3f} from the bottom (mean over {len(reaches)} data set(s)), and "
            f"the edge is {edge:.3f} away. Equal covariance is not equal escape."
        ),
        origin="reading",
        place="the Gaussian model of gradient noise, read for single batches",
        data_sets=settings.data_sets,
        unit=unit(len(leaving.problems)),
    )
    return claim.to_datatree()


def _as_it_is(
    share: Mapping[str, Estimate], settings: PlaneSettings, leaving: Leaving
) -> xr.DataTree:
    own = np.trace(Minibatch(1).covariance(leaving.problems[0], jnp.ones(2))) * LEARNING_RATE**2
    claim = Claim(
        "SGD with the noise it has leaves this sharp basin as soon as the injected noise does",
        SOURCE,
        [
            claimed(
                "P(left), SGD as it is, above isotropic",
                share["SGD, S = 1, as it is"],
                ">",
                share["isotropic"],
            )
        ],
        why=(
            f"The published experiment injects noise of trace {settings.trace:g}; SGD's own, at "
            f"S = 1 and the same learning rate, has {own:.3g}, {settings.trace / own:.0f} times "
            "less. The experiment shows what the shape of noise does, not what SGD does here."
        ),
        origin="reading",
        place="the experiment in the plane, read without its injected trace",
        data_sets=settings.data_sets,
        unit=unit(len(leaving.problems)),
    )
    return claim.to_datatree()
