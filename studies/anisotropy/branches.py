"""Runs of SGD and of its surrogates from one full-batch iterate of a network for digits."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, PyTree

import statsgd
from statsgd.dynamics.noise.gradient_noise import GradientNoise
from statsgd.estimate import Estimate
from statsgd.laws.bases.gaussian import square_root
from statsgd.measures import exit_times, hessian, isotropic_ratio, mean_over_clusters, over_replicas
from statsgd.noise import Minibatch, NoNoise, TraceMatched
from statsgd.precision import in_double_precision
from statsgd.problems import Problem, perceptron
from studies.anisotropy.plane import SHAPES
from studies.digits_network import DigitsNetwork, digits_network, full_batch_iterate

DESCENT, SGD = "full batch", "SGD"
DESCENT_RATE = 1.0  # of the descents that find the start, and that say where a run has got to
INDICATOR_RATE = 0.02  # small, so that the climb of one step is quadratic


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Runs from the full-batch iterate after `pretraining` steps, on each of `splits` data sets."""

    num_examples: int
    hidden: int
    corrupted: float
    splits: int
    pretraining: int
    learning_rate: float
    batch_size: int
    steps: int
    replicas: int
    draws: int
    relaxation: int
    climb: float
    moved: float
    margin: float
    seed: int


class Branches:
    """All dynamics from one full-batch iterate, and where descent takes them afterwards."""

    def __init__(self, settings: NetworkSettings, index: int):
        self.settings, seed = settings, settings.seed + index
        self.seed = seed
        self.network: DigitsNetwork = digits_network(
            settings.num_examples, settings.hidden, settings.corrupted, seed
        )
        self.problem = self.network.problem
        self.start = full_batch_iterate(self.problem, DESCENT_RATE, settings.pretraining, seed)
        minibatch = Minibatch(settings.batch_size)
        self.noises: dict[str, GradientNoise] = {DESCENT: NoNoise(), SGD: minibatch}
        self.noises |= {shape: TraceMatched(minibatch, shape) for shape in SHAPES}
        low = Low(self.problem, float(self.problem.loss(self.start)) + settings.climb)
        trees = {name: self._run(noise, low) for name, noise in self.noises.items()}
        self.exits = {name: exit_times(tree, "low") for name, tree in trees.items()}
        # All dynamics in one ensemble from here on: one compilation instead of seven.
        ends = [_params(self.problem, tree) for tree in trees.values()]
        relaxed = self._relaxed(jax.tree.map(lambda *leaves: np.concatenate(leaves), *ends))
        guesses = self._by_name(np.asarray(jax.jit(jax.vmap(self._guesses))(relaxed)))
        home = guesses[DESCENT][:1]
        # Half the summed difference of the probabilities of the classes, over training images.
        self.moved = {
            name: np.abs(guess - home).sum(-1).mean(-1) / 2 > settings.moved
            for name, guess in guesses.items()
        }
        self.sharpness = self._by_name(over_replicas(hessian_trace, self.problem, relaxed))
        accuracy = jax.jit(jax.vmap(self.network.test_accuracy))
        self.accuracy = self._by_name(np.asarray(accuracy(relaxed)))

    def _by_name(self, values: Float[Any, "n ..."]) -> dict[str, Any]:
        return dict(zip(self.noises, np.split(values, len(self.noises)), strict=True))

    def _run(self, noise: GradientNoise, low: "Low") -> xr.DataTree:
        return statsgd.simulate(
            self.problem,
            statsgd.SGD(self.settings.learning_rate, noise),
            steps=self.settings.steps,
            replicas=self.settings.replicas,
            seed=self.seed,
            start=self.start,
            observe={"low": low},
            observe_at=1,
            progress=False,
        )

    def _relaxed(self, params: PyTree) -> PyTree:
        """Where full-batch descent takes every replica."""
        run = statsgd.simulate(
            self.problem,
            statsgd.SGD(DESCENT_RATE, NoNoise()),
            steps=self.settings.relaxation,
            replicas=len(jax.tree.leaves(params)[0]),
            seed=self.seed,
            start=params,
            progress=False,
        )
        return _params(self.problem, run)

    def _guesses(self, params: PyTree) -> Float[Any, "N 10"]:
        inputs = jnp.asarray(self.problem.examples[0])
        return jax.vmap(lambda x: jax.nn.softmax(perceptron(params, x, "tanh")))(inputs)

    @functools.cached_property
    def curvature(self) -> Float[Any, "d d"]:
        """H at the start."""
        return hessian(self.problem, self.start)

    @functools.cached_property
    def covariances(self) -> dict[str, Float[Any, "d d"]]:
        """C of every noise at the start."""
        noisy = {name: noise for name, noise in self.noises.items() if name != DESCENT}

        def all_of(params):
            return {name: noise.covariance(self.problem, params) for name, noise in noisy.items()}

        return in_double_precision(all_of, self.start)

    def indicator(self, name: str) -> float:
        """Tr(HC) at the start over that of isotropic noise."""
        return 0.0 if name == DESCENT else isotropic_ratio(self.curvature, self.covariances[name])

    def first_step(self, draws: int) -> dict[str, tuple[Estimate, float]]:
        """Of every noise, the mean rise of the loss in one small step over ½η² Tr(HC), and that."""
        rng, problem = np.random.default_rng(self.seed), self.problem
        flat = np.asarray(problem.flatten(self.start), dtype=np.float64)

        def gradients(point):
            every = jnp.arange(problem.num_examples)
            rows = problem.example_gradients(problem.unflatten(point), every)
            return jax.vmap(problem.flatten)(rows)

        rows = in_double_precision(gradients, flat)
        landed = flat - INDICATOR_RATE * rows.mean(axis=0)
        shifts = []
        for name, covariance in self.covariances.items():
            if name == SGD:
                # Its tails are heavy: a few examples make most of the rise.
                batches = rng.integers(len(rows), size=(8 * draws, self.settings.batch_size))
                # Example by example: all at once would be S times as large.
                noise = sum(rows[column] for column in batches.T) / len(batches.T)
                noise -= rows.mean(axis=0)
            else:
                noise = rng.normal(size=(draws, len(flat))) @ square_root(covariance).T
            shifts.append(-INDICATOR_RATE * noise)

        def rises(point, shifts):
            def loss(v):
                return problem.loss(problem.unflatten(v))

            low, slope = jax.value_and_grad(loss)(point)
            # The linear part has mean zero; without it the error is much smaller.
            return jax.lax.map(
                lambda shift: loss(point + shift) - low - slope @ shift, shifts, batch_size=64
            )

        ends = np.cumsum([len(shift) for shift in shifts])[:-1]
        risen = np.split(in_double_precision(rises, landed, np.concatenate(shifts)), ends)
        found = {}
        for (name, covariance), one in zip(self.covariances.items(), risen, strict=True):
            expected = INDICATOR_RATE**2 / 2 * float(np.trace(self.curvature @ covariance))
            found[name] = mean_over_clusters(one / expected), expected
        return found


class Low(eqx.Module):
    """Whether the training loss is below a ceiling."""

    problem: Problem
    ceiling: float

    def __call__(self, params: PyTree) -> Bool[Any, ""]:
        """At `params`."""
        return self.problem.loss(params) < self.ceiling


def hessian_trace(problem: Problem, params: PyTree) -> Float[Any, ""]:
    """Tr ∇²L."""
    flat = problem.flatten(params)
    return jnp.trace(jax.hessian(lambda v: problem.loss(problem.unflatten(v)))(flat))


def _params(problem: Problem, tree: xr.DataTree) -> PyTree:
    ends = tree["endpoints"].to_dataset()
    leaves = [ends[name].values for name in problem.names]
    return jax.tree.unflatten(jax.tree.structure(problem.template), leaves)
