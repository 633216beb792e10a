"""SGD on the linear problem of the digits, followed in phase space from rest to stationarity."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, Int

import statsgd
from statsgd.estimate import Estimate
from statsgd.laws import HeavyBallGaussian, Law, LinearRegressionGaussian, PhaseSpaceGaussian
from statsgd.laws.minimum import (
    MinimumGaussian,
    PhaseSpaceTransition,
    displacement_exponent,
    mean_squared_displacement,
)
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.measures import jackknife, mean_over_clusters, trajectories
from statsgd.problems import LinearRegression, landscapes

type Steps = Int[Any, " step"]


#: Steps after which runs that start stationary, but at rest, have forgotten that.
FORGET = 300


class Theory(NamedTuple):
    """What is known of one setting of SGD on the linear problem."""

    exact: HeavyBallGaussian
    """Moments and motion of the chain: noise of the mean covariance in the stationary law."""
    frozen: HeavyBallGaussian
    """The chain with the noise of the minimum."""
    model: PhaseSpaceGaussian
    """The published model: continuous time, C ∝ H."""
    gain: float
    """How much of the noise is made by the noise itself: 1 is infinite variance."""

    @classmethod
    def of(cls, problem: LinearRegression, sgd: statsgd.SGD) -> "Theory":
        """The laws of minibatch `sgd`."""
        law = LinearRegressionGaussian.from_sgd(problem, sgd)
        local = local_quadratic(problem, sgd)
        motion = (sgd.learning_rate, sgd.momentum, sgd.weight_decay, local.location)
        scale = np.trace(local.noise_covariance) / np.trace(local.hessian)
        return cls(
            law.equivalent_chain(),
            HeavyBallGaussian(local.hessian, local.noise_covariance, *motion),
            PhaseSpaceGaussian.hessian_noise(local.hessian, scale, 1, *motion),
            float(law.feedback_gain),
        )

    @property
    def continuous(self) -> PhaseSpaceGaussian:
        """The model with the mean noise that SGD has: its only assumption is continuous time."""
        return continuous(self.exact)


class Ensemble(NamedTuple):
    """Runs past burn-in, in the eigenbasis of the Hessian and about the stationary mean."""

    steps: Steps
    """Counted from the end of burn-in."""
    position: Float[Any, "replica step d"]
    velocity: Float[Any, "replica step d"]
    path_steps: Steps
    path: Float[Any, "2 early d"]
    """Mean position and velocity on the way from rest."""
    path_error: Float[Any, "2 early d"]

    def at(self, step: int) -> int:
        """The place of `step`."""
        return int(np.flatnonzero(self.steps == step)[0])

    def correlation(self, lags: Sequence[int], mode: int) -> Estimate:
        """Autocorrelation of the position of one mode, over all pairs of consecutive steps."""
        x = self.consecutive()[0][:, :, mode]
        size = x.shape[1]

        def pairs(lag: int) -> Float[Any, "replica 3"]:
            first, later = x[:, : size - lag], x[:, lag:]
            means = [(first * later).mean(1), (first**2).mean(1), (later**2).mean(1)]
            return np.stack(means, axis=1)

        return jackknife(
            lambda mean: mean[:, 0] / np.sqrt(mean[:, 1] * mean[:, 2]),
            np.stack([pairs(lag) for lag in lags], axis=1),
        )

    def consecutive(self) -> tuple[Float[Any, "replica step d"], Float[Any, "replica step d"]]:
        """Position and velocity at the consecutive steps that the record begins with."""
        gaps = np.flatnonzero(np.diff(self.steps) != 1)
        end = int(gaps[0]) + 1 if len(gaps) else len(self.steps)
        return self.position[:, :end], self.velocity[:, :end]

    def displacement(self, lags: Sequence[int]) -> Float[Any, "replica lags"]:
        """|θ_lag − θ_0|² of every run."""
        moved = self.position[:, [self.at(lag) for lag in lags]] - self.position[:, :1]
        return np.sum(moved**2, axis=2)


def run_in_phase_space(
    problem: Any,
    sgd: statsgd.SGD,
    law: MinimumGaussian,
    *,
    burn_in: int,
    steps: Sequence[int],
    replicas: int,
    seed: int,
    early: Sequence[int] = (),
    start: Any = None,
    progress: bool = False,
) -> Ensemble:
    """Runs kept at `burn_in` + `steps`, and at the steps `early` before it.

    `law` gives the eigenbasis and the mean. Raises `ValueError` if a run diverged.
    """
    kept = sorted({*early, *(burn_in + step for step in steps)})
    tree = statsgd.simulate(
        problem,
        sgd,
        steps=kept[-1],
        replicas=replicas,
        seed=seed,
        start=start,
        keep=kept,
        progress=progress,
        devices=jax.devices(),
    )
    return in_modes(tree, law, burn_in, steps, early)


def in_modes(
    tree: xr.DataTree,
    law: MinimumGaussian,
    burn_in: int,
    steps: Sequence[int],
    early: Sequence[int] = (),
) -> Ensemble:
    """The kept parameters and momenta of an ensemble as an `Ensemble`."""
    found = trajectories(tree)
    q = law.modes().vectors
    late = np.isin(found.steps, burn_in + np.asarray(steps))
    way = np.isin(found.steps, np.asarray(early, dtype=int))
    position = (found.params - law.location) @ q
    velocity = -np.asarray(found.momentum_buffer) @ q
    mean = mean_over_clusters(np.stack([position[:, way], velocity[:, way]], axis=1))
    return Ensemble(
        found.steps[late] - burn_in,
        position[:, late],
        velocity[:, late],
        found.steps[way],
        mean.value,
        mean.standard_error,
    )


def stationary_starts(law: Law, replicas: int, seed: int) -> Float[Any, "replica d"]:
    """Exact draws of θ. Only the momentum, which starts at zero, is left to be forgotten.

    After K steps at most 1/(2eK(1−β)) of a mode's variance is still missing (K ≫ 1/(1−β)).
    """
    return np.asarray(law.draw(jax.random.key(seed), (replicas,)))


def quadratic_with_noise(law: HeavyBallGaussian) -> tuple[Any, statsgd.SGD]:
    """The quadratic of `law`, weight decay in it, and SGD with Gaussian noise of its covariance."""
    stiffness = law.hessian + law.weight_decay * np.eye(law.dimension)
    noise = statsgd.noise.Anisotropic(law.noise_covariance)
    sgd = statsgd.SGD(law.learning_rate, noise, law.momentum)
    return landscapes.quadratic(stiffness, law.location), sgd


def continuous(chain: HeavyBallGaussian) -> PhaseSpaceGaussian:
    """The model in continuous time with curvature and noise of `chain`."""
    return PhaseSpaceGaussian(
        chain.hessian,
        chain.noise_covariance,
        chain.learning_rate,
        chain.momentum,
        chain.weight_decay,
        chain.location,
    )


class Wandering(NamedTuple):
    """Displacement over a window of lags."""

    lags: Steps
    moved: Estimate
    exponent: Estimate
    """Slope of log displacement on log lag."""


def wandering(curves: Float[Any, "replica lags"], lags: Sequence[int]) -> Wandering:
    """Mean and exponent of the squared displacements `curves` of every run."""
    window = np.asarray(lags)
    exponent = jackknife(lambda mean: displacement_exponent(window, mean), curves)
    return Wandering(window, mean_over_clusters(curves), exponent)


class Predicted(NamedTuple):
    """Displacement over a window of lags by a law."""

    moved: Float[Any, " lags"]
    exponent: float

    @classmethod
    def of(cls, law: Any, lags: Sequence[int], start: Any = None) -> "Predicted":
        """From stationary starts, or from rest at `start`."""
        moved = mean_squared_displacement(law, list(lags), start)
        return cls(moved, displacement_exponent(np.asarray(lags), moved))


def log_spaced(first: int, last: int, number: int) -> list[int]:
    """Different whole numbers, about evenly spaced on a logarithmic scale."""
    return sorted({round(step) for step in np.geomspace(first, last, number)})


class Followed(NamedTuple):
    """One setting of SGD on the linear problem with its theory and its runs."""

    problem: LinearRegression
    sgd: statsgd.SGD
    theory: Theory
    main: Ensemble
    modes: dict[str, int]
    """Modes that claims look at, by name."""
    margin: float
    seed: int

    @property
    def sharpest(self) -> int:
        """The mode of largest curvature."""
        return self.modes["sharpest mode"]

    @property
    def batch_size(self) -> int:
        """Examples per step."""
        return batch_size_of(self.sgd)

    def sgd_with(self, **changed: Any) -> statsgd.SGD:
        """SGD with other settings: `learning_rate`, `momentum`, `batch_size`."""
        rate = changed.get("learning_rate", self.sgd.learning_rate)
        beta = changed.get("momentum", self.sgd.momentum)
        noise = statsgd.noise.Minibatch(changed.get("batch_size", self.batch_size))
        return statsgd.SGD(rate, noise, beta, self.sgd.weight_decay)


def batch_size_of(sgd: statsgd.SGD) -> int:
    """Examples per step of minibatch noise; `ValueError` for other noise."""
    if not isinstance(sgd.noise, statsgd.noise.Minibatch):
        raise ValueError(f"noise must be Minibatch, got {sgd.noise!r}")
    return sgd.noise.batch_size


def chosen_modes(theory: Theory) -> dict[str, int]:
    """Modes to look at, by name: chosen from theory, before any run.

    The sharpest, and of the slowly turning and of the overdamped modes those that start furthest
    from the minimum in units of their spread.
    """
    transition = PhaseSpaceTransition.of(theory.exact)
    turning = np.flatnonzero(transition.oscillates())
    still = np.flatnonzero(~transition.oscillates())
    start = np.abs(theory.exact.modes().vectors.T @ theory.exact.location)
    distance = start / np.sqrt(variances(theory.exact))
    slow = turning[: len(turning) // 2]
    return {
        "sharpest mode": len(distance) - 1,
        "slowly turning mode": int(slow[np.argmax(distance[slow])]),
        "overdamped mode": int(still[np.argmax(distance[still])]),
    }


def variances(law: Any, variable: str = "params") -> Float[Any, " d"]:
    """Variances of the parameters or of the `"momentum_buffer"` along the eigenmodes."""
    q = law.modes().vectors
    return np.diagonal(q.T @ law.covariance(variable) @ q)
