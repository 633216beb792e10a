"""Our side of a race: `statsgd.simulate` on all cores."""

import jax
import numpy as np

import statsgd
from statsgd.dynamics import Dynamics
from statsgd.problems import Problem
from studies.peers.race import Runner


def simulated(problem: Problem, dynamics: Dynamics, replicas: int) -> Runner:
    """A runner of so many steps, replicas shared out over all JAX devices."""

    def runner(steps: int) -> np.ndarray:
        result = statsgd.simulate(
            problem,
            dynamics,
            steps=steps,
            replicas=replicas,
            seed=0,
            progress=False,
            devices=jax.devices(),
        )
        return result["run"].loss.values

    return runner
