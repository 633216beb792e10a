"""How noise and curvature change over the distances that SGD goes: a few short replicas."""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

from statsgd.arguments import count
from statsgd.dynamics import simulate
from statsgd.dynamics.noise import Minibatch, noise_and_curvature_along
from statsgd.dynamics.sgd import SGD
from statsgd.ensembles import counting_overflow, endpoint_trajectories, surviving
from statsgd.estimate import Estimate
from statsgd.laws.networks.checkpoint import Checkpoint, independent_noise
from statsgd.problems import DENSE_LIMIT, BatchRisk, EmpiricalRisk, Problem

_KEPT = 0.02  # of the start, in the slowest mode, where a stationary law is asked for
_MOST_STEPS = 1000  # of such a pilot


class PilotDivergedError(ValueError):
    """Too few replicas of a pilot survived."""


class Pilot(NamedTuple):
    """Noise and curvature along fixed modes at the endpoints of n replicas, and at θ₀."""

    endpoint_noises: Float[Any, "n k k"]
    """VᵀCV at each endpoint."""
    endpoint_key_noises: Float[Any, "n k k"] | None
    """What of these is no choice of examples, under epochs."""
    endpoint_curvatures: Float[Any, "n k"]
    """λ + vᵀHv there."""
    noise_at_start: Float[Any, " k"]
    """vᵀCv at θ₀."""
    curvature_at_start: Float[Any, " k"]
    """λ + vᵀHv there."""
    steps: int
    """After which the endpoints were taken."""

    @property
    def noise_covariance(self) -> Float[Any, "k k"]:
        """VᵀC̄V, the mean over endpoints."""
        return np.mean(self.endpoint_noises, axis=0)

    @property
    def independent_noise(self) -> Float[Any, "k k"] | None:
        """What of it is no choice of examples, under epochs."""
        return (
            None if self.endpoint_key_noises is None else np.mean(self.endpoint_key_noises, axis=0)
        )

    @property
    def curvatures(self) -> Float[Any, " k"]:
        """h̄, the mean over endpoints."""
        return np.mean(self.endpoint_curvatures, axis=0)

    @property
    def noise_growth(self) -> Estimate:
        """C̄/C₀ of every mode `(k,)`, with the error over replicas."""
        return _ratio(np.diagonal(self.endpoint_noises, axis1=1, axis2=2), self.noise_at_start)

    @property
    def curvature_growth(self) -> Estimate:
        """h̄/h₀ of every mode `(k,)`, with the error over replicas."""
        return _ratio(self.endpoint_curvatures, self.curvature_at_start)

    def without(self, index: int) -> "Pilot":
        """All replicas but one, for the jackknife."""

        def rest(values: Any) -> Any:
            return None if values is None else np.delete(values, index, axis=0)

        return self._replace(
            endpoint_noises=rest(self.endpoint_noises),
            endpoint_key_noises=rest(self.endpoint_key_noises),
            endpoint_curvatures=rest(self.endpoint_curvatures),
        )


def pilot_of(
    problem: Problem,
    sgd: SGD,
    params: PyTree,
    found: Checkpoint,
    replicas: int | xr.DataTree,
    steps: int | None,
    seed: int,
) -> Pilot:
    """Run `replicas` from `params` for `steps`, or read endpoints that are given, and measure.

    Without `steps` until the slowest mode has forgotten its start, at most 1000. Replicas run
    here that diverge are left out. Raises `ValueError` for noise other than that of minibatches of
    a data set, and below two replicas; `PilotDivergedError` where fewer survive.
    """
    if not (isinstance(problem, EmpiricalRisk | BatchRisk) and isinstance(sgd.noise, Minibatch)):
        raise ValueError(
            f"pilot needs Minibatch noise on a data set, got {type(sgd.noise).__name__} on "
            f"{type(problem).__name__}"
        )
    if isinstance(replicas, xr.DataTree):
        ensemble, taken = replicas, int(replicas["run"].to_dataset()["steps"].max())
    else:
        number = count("pilot", replicas, at_least=2)
        taken = steps or _relaxation(found.curvatures, sgd)
        ensemble = simulate(
            problem,
            sgd,
            steps=taken,
            replicas=number,
            seed=seed,
            start=params,
            progress=False,
            allow_unstable=True,
        )
        ensemble = counting_overflow(ensemble)
    alive = surviving(ensemble)
    if alive is not None and alive.sum() < min(2, len(alive)):
        raise PilotDivergedError(
            f"pilot must have two replicas that stay finite, got {int(alive.sum())} of "
            f"{len(alive)} after {taken} steps: SGD is unstable here"
        )
    # Of an ensemble that is given its owner decides whether survivors are enough.
    given = isinstance(replicas, xr.DataTree)
    ends = endpoint_trajectories(ensemble, problem.names, condition_on_survival=not given)
    ends = ends.params[:, 0]
    count("pilot", len(ends), at_least=2)
    # Of large networks rounding in single precision is nothing beside what few replicas leave.
    double = problem.dimension <= DENSE_LIMIT
    measured = [
        noise_and_curvature_along(
            problem, problem.unflatten(end), sgd.noise, found.modes, double=double
        )
        for end in ends
    ]
    keys = [
        independent_noise(problem, problem.unflatten(end), sgd.noise, found.epoch, found.modes)
        for end in ends
    ]
    return Pilot(
        np.stack([noise for noise, _ in measured]),
        np.stack(known) if (known := [one for one in keys if one is not None]) else None,
        np.stack([curvature for _, curvature in measured]) + float(sgd.weight_decay),
        found.noise_covariance.diagonal(),
        np.asarray(found.curvatures),
        taken,
    )


def _ratio(values: Float[Any, "n k"], at_start: Float[Any, " k"]) -> Estimate:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = values / at_start
    error = ratios.std(axis=0, ddof=1) / math.sqrt(len(ratios))
    return Estimate(ratios.mean(axis=0), error, len(ratios))


def _relaxation(curvatures: Float[Any, " k"], sgd: SGD) -> int:
    """Steps after which the flattest mode has kept 2 % of its variance's start."""
    slowest = float(np.min(curvatures))
    if slowest <= 0:
        return _MOST_STEPS
    steps = math.log(1 / _KEPT) * (1 - float(sgd.momentum)) / (2 * float(sgd.learning_rate))
    return min(max(math.ceil(steps / slowest), 1), _MOST_STEPS)
