"""Variance of the weights of a digits network against flatness, i.i.d. and reshuffled batches."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

import statsgd
from statsgd.estimate import Estimate
from statsgd.laws import EpochNoiseGaussian, HeavyBallGaussian
from statsgd.laws.minimum import MinimumGaussian
from statsgd.laws.networks import log_loss_flatness
from statsgd.measures import jackknife, mean_over_clusters, power_law_fit, trajectories
from statsgd.noise import Minibatch
from statsgd.precision import in_double_precision
from studies.digits_network import digits_network

IID, RANDOM, END = "i.i.d.", "reshuffled, any step", "reshuffled, epoch ends"
BURN_IN, SPACING = 3.0, 0.25  # in relaxation times of the flattest direction
DESCENT = statsgd.SGD(1.0, statsgd.noise.NoNoise(), 0.9)  # finds the minimum


@dataclasses.dataclass(frozen=True)
class VarianceSettings:
    """SGD at a minimum of a network for digits with wrong labels and weight decay."""

    num_examples: int
    hidden: int
    corrupted: float
    weight_decay: float
    learning_rate: float
    batch_size: int
    splits: int
    replicas: int
    looks: int
    margin: float
    seed: int


class Fluctuations:
    """Variance about one minimum, along every eigenvector of the Hessian that has noise."""

    def __init__(self, settings: VarianceSettings):
        self.settings = s = settings
        self.problem = digits_network(s.num_examples, s.hidden, s.corrupted, s.seed).problem
        self.minimum = self._minimum()
        white = self._sgd("without_replacement")
        shuffled = self._sgd("reshuffle")
        iid_law = HeavyBallGaussian.from_sgd(self.problem, white, self.minimum)
        laws: dict[str, MinimumGaussian] = {
            IID: iid_law,
            RANDOM: EpochNoiseGaussian.from_sgd(self.problem, shuffled, self.minimum, "random"),
            END: EpochNoiseGaussian.from_sgd(self.problem, shuffled, self.minimum, 0),
        }
        noise = iid_law.noise_covariance
        curvatures, vectors = np.linalg.eigh(iid_law.hessian)
        # Shifting all outputs changes nothing: no noise there, and nothing to compare.
        noisy = _along(noise, vectors) > 1e-6 * np.max(_along(noise, vectors))
        self.vectors = vectors[:, noisy]
        self.curvature = curvatures[noisy] + s.weight_decay  # of what is trained
        self.covariance = np.asarray(laws[RANDOM].covariance())
        self.law = {name: _along(law.covariance(), self.vectors) for name, law in laws.items()}
        relaxation = 1 / (s.learning_rate * self.curvature[0])
        batches = s.num_examples // s.batch_size
        first = int(np.ceil(BURN_IN * relaxation / batches)) * batches
        gap = max(int(SPACING * relaxation / batches), 1) * batches
        ends = [first + gap * i for i in range(s.looks)]
        # One step further in the epoch at every look, so that all phases are seen alike.
        anywhere = [end + i % batches for i, end in enumerate(ends)]
        start = np.asarray(laws[END].draw(jax.random.key(s.seed), (s.replicas,)))
        both = sorted({*ends, *anywhere})
        reshuffled = self._positions(shuffled, start, both)
        iid = self._positions(
            white, np.asarray(laws[IID].draw(jax.random.key(s.seed), (s.replicas,))), ends
        )
        self.squares = {
            IID: _squares(iid),
            RANDOM: _squares(reshuffled[:, [both.index(step) for step in anywhere]]),
            END: _squares(reshuffled[:, [both.index(step) for step in ends]]),
        }

    def _sgd(self, sampling: str) -> statsgd.SGD:
        s = self.settings
        noise = Minibatch(s.batch_size, sampling)
        return statsgd.SGD(s.learning_rate, noise, weight_decay=s.weight_decay)

    def _minimum(self) -> PyTree:
        descent = dataclasses.replace(DESCENT, weight_decay=np.float64(self.settings.weight_decay))
        run = statsgd.simulate(
            self.problem, descent, steps=1000, replicas=1, seed=self.settings.seed, progress=False
        )
        ends = run["endpoints"].to_dataset()
        leaves = [ends[name].values[0] for name in self.problem.names]
        return jax.tree.unflatten(jax.tree.structure(self.problem.template), leaves)

    def _positions(
        self, sgd: statsgd.SGD, start: Float[Any, "replica d"], looks: list[int]
    ) -> Float[Any, "replica look k"]:
        tree = statsgd.simulate(
            self.problem,
            sgd,
            steps=looks[-1],
            replicas=len(start),
            seed=self.settings.seed,
            start=jax.vmap(self.problem.unflatten)(start),
            keep=looks,
            progress=False,
        )
        return trajectories(tree, self.problem.names).params @ self.vectors

    @property
    def flatness(self) -> Float[Any, " k"]:
        """Width of every direction, over which the logarithm of the loss rises by one."""
        flat = self.problem.flatten(self.minimum)
        decay = self.settings.weight_decay * float(np.sum(np.asarray(flat) ** 2)) / 2
        return log_loss_flatness(float(self.problem.loss(self.minimum)) + decay, self.curvature)

    def exponent(self, name: str) -> Estimate:
        """ψ of σ² ∝ F^(−ψ), F ∝ h^(−1/2)."""
        return jackknife(self._psi, self.squares[name])

    def predicted_exponent(self, name: str) -> float:
        """The same of the law's variances."""
        return self._psi(self.law[name])

    def _psi(self, variances: Float[Any, " k"]) -> float:
        return 2 * power_law_fit(self.curvature, variances).exponent

    def over_law(self, name: str, directions: Any, law: Any = None) -> Estimate:
        """Variance over the law's, averaged over `directions`."""
        expected = self.law[name] if law is None else law
        return mean_over_clusters((self.squares[name] / expected)[:, directions].mean(axis=1))

    @functools.cached_property
    def quarters(self) -> list[np.ndarray]:
        """Directions by curvature, flat ones first."""
        return np.array_split(np.arange(len(self.curvature)), 4)

    @functools.cached_property
    def curvature_noise(self) -> Float[Any, " k"]:
        """Variance that fluctuating curvature of the batches adds, to leading order: ηc/(2h).

        c = φ uᵀ mean[(H_n − H) P (H_n − H)] u, P the covariance that constant noise gives: white
        from epoch to epoch, since it depends on where the walker is.
        """
        s, problem = self.settings, self.problem

        def scatter(flat, covariance):
            def one(example):
                return jax.hessian(lambda v: problem.example_loss(problem.unflatten(v), example))(
                    flat
                )

            rows = jax.lax.map(one, problem.examples, batch_size=8)
            off = rows - rows.mean(axis=0)
            return (off @ covariance @ off).mean(axis=0)

        flat = np.asarray(problem.flatten(self.minimum), dtype=np.float64)
        found = np.asarray(in_double_precision(scatter, flat, self.covariance))
        n = s.num_examples
        share = (n - s.batch_size) / (s.batch_size * (n - 1))
        return s.learning_rate * share * _along(found, self.vectors) / (2 * self.curvature)


def _along(covariance: Any, vectors: Float[Any, "d k"]) -> Float[Any, " k"]:
    return np.einsum("ik,ij,jk->k", vectors, np.asarray(covariance), vectors)


def _squares(positions: Float[Any, "replica look k"]) -> Float[Any, "replica k"]:
    """Squared deviations from the mean of all runs at the same step, averaged over looks."""
    off = positions - positions.mean(axis=0)
    return (off**2).mean(axis=1) * len(positions) / (len(positions) - 1)
