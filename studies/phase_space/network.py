"""A two-layer network on digits near a minimum: do laws of quadratics say how it wanders?"""

from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd.ensembles import Trajectories
from statsgd.laws import HeavyBallGaussian
from statsgd.laws.minimum.local_quadratic import LocalQuadratic, local_quadratic
from statsgd.measures import mean_square_step, trajectories
from statsgd.problems import EmpiricalRisk, minimise
from studies.digits_network import digits_network
from studies.phase_space.displacement import Journey, exponent_claim, setting_name, speed_claim
from studies.phase_space.followed import Predicted, batch_size_of, continuous, log_spaced, wandering

#: Learning rates η and momenta β at which the network is run, in all pairs for the first batch size
#: and with the first of each for the second.
RATES, MOMENTA, BATCH_SIZES = (0.05, 0.02), (0.9, 0.5), (16, 64)
DECAY = 0.01
_DESCENT, _NEWTON = 4000, 30  # full-batch steps, then Newton steps, to the minimum


class Floor(NamedTuple):
    """A minimum of the regularised loss of a network, and the quadratic that it looks like."""

    problem: EmpiricalRisk
    params: PyTree
    gradient_norm: float
    local: LocalQuadratic
    """With the noise covariance of single examples."""

    def chain(self, sgd: statsgd.SGD) -> HeavyBallGaussian:
        """The law of `sgd` if the loss were quadratic and the noise constant."""
        return HeavyBallGaussian(
            self.local.hessian,
            self.local.noise_covariance / batch_size_of(sgd),
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            self.local.location,
        )


def find_floor(seed: int) -> Floor:
    """Full-batch descent from the random start of `seed`, then Newton's method in float64."""
    problem = digits_network(seed=seed).problem
    descent = statsgd.SGD(0.3, statsgd.noise.NoNoise(), 0.9, DECAY)
    run = statsgd.simulate(problem, descent, steps=_DESCENT, replicas=1, seed=seed, progress=False)
    end = run["endpoints"].to_dataset()
    leaves = [end[name].values[0] for name in problem.names]
    near = jax.tree.unflatten(jax.tree.structure(problem.template), leaves)
    minimum = minimise(problem, near, weight_decay=DECAY, max_iterations=_NEWTON)
    single = statsgd.SGD(1.0, statsgd.noise.Minibatch(1), 0.0, DECAY)
    local = local_quadratic(problem, single, minimum.params)
    return Floor(problem, minimum.params, minimum.gradient_norm, local)


def network_claims(
    *, splits: int, replicas: int, steps: int, margin: float, seed: int, progress: bool = False
) -> dict[str, xr.DataTree]:
    """Speed and exponent of networks, from rest at a minimum, on several splits of the digits."""
    floors = [find_floor(seed + index) for index in range(splits)]
    every = [
        journeys(floor, replicas, steps, seed + index, progress)
        for index, floor in enumerate(floors)
    ]
    together = {name: [one[name] for one in every] for name in every[0]}
    first, *_ = floors
    curvatures = np.linalg.eigvalsh(first.local.hessian)
    why = (
        f"Networks of {first.problem.dimension} parameters on {first.problem.num_examples} "
        f"digits, a fifth of them with wrong labels, λ = {DECAY:g}; {replicas} runs from rest at "
        f"one minimum on each split (gradient at most {max(f.gradient_norm for f in floors):.1g}), "
        f"whose Hessian has, on the first, eigenvalues {curvatures[0]:.4f} to "
        f"{curvatures[-1]:.2f}. Predictions take Hessian and noise covariance at the minimum, and "
        "know of no other place."
    )
    return {
        "speed of a network": speed_claim(together, margin, where=" on a network", why=why),
        "exponent of a network": exponent_claim(
            together,
            margin,
            "Near a minimum the exponent with which a network travels is that of the linear "
            "theory, from Hessian, noise, learning rate and momentum there",
            why,
        ),
    }


def journeys(
    floor: Floor, replicas: int, steps: int, seed: int, progress: bool
) -> dict[str, Journey]:
    """What happened at every setting about one minimum."""
    found = {}
    for size in BATCH_SIZES:
        many = size == BATCH_SIZES[0]
        axes = {
            "learning_rate": list(RATES if many else RATES[:1]),
            "momentum": list(MOMENTA if many else MOMENTA[:1]),
        }
        first = statsgd.SGD(RATES[0], statsgd.noise.Minibatch(size), MOMENTA[0], DECAY)
        window, late = log_spaced(10, steps, 16), range(steps - 8, steps + 1)
        tree = statsgd.simulate(
            floor.problem, statsgd.grid(first, axes), steps=steps, replicas=replicas, seed=seed,
            start=floor.params, keep=sorted({*window, *late}), progress=progress,
            devices=jax.devices(),
        )  # fmt: skip
        for i, rate in enumerate(axes["learning_rate"]):
            for j, beta in enumerate(axes["momentum"]):
                sgd = statsgd.SGD(rate, first.noise, beta, DECAY)
                cell = tree.isel({"learning_rate": i, "momentum": j})
                runs = trajectories(cell, floor.problem.names)
                found[setting_name(sgd)] = journey(floor, sgd, runs, window, late)
    return found


def journey(
    floor: Floor, sgd: statsgd.SGD, found: Trajectories, window: list[int], late: range
) -> Journey:
    """What runs from rest at the minimum did, next to theory."""
    moved = displacements(found.params[:, np.isin(found.steps, window)], floor.local.location)
    chain = floor.chain(sgd)
    beta = float(sgd.momentum)
    noise = float(np.trace(chain.noise_covariance))
    return Journey(
        mean_square_step(found.params[:, np.isin(found.steps, late)]),
        float(sgd.learning_rate) ** 2 * noise / (1 - beta**2),
        wandering(moved, window),
        Predicted.of(continuous(chain), window, chain.location),
        Predicted.of(chain, window, chain.location),
    )


def displacements(params: Any, origin: Float[Any, " d"]) -> Float[Any, "replica lags"]:
    """|θ_k − θ_0|² of every run at every step given."""
    return np.sum((params - origin) ** 2, axis=2)
