"""Very many replicas of which one in a hundred diverges: none is lost, and all are counted.

Gradient descent on θ⁴/4 is θ ← θ(1 − ηθ²): it goes to 0 from |θ| < √(2/η) and diverges from beyond.
"""

import resource
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import statsgd
from tests.faults.tally import Tally, wrong

_RATE, _STEPS = 0.5, 12


def quartic(params):
    return jnp.sum(params**4) / 4


class Course(NamedTuple):
    """Where descent is after the last step, or before it left the numbers there are."""

    ends: np.ndarray
    diverged_at: np.ndarray


def course(starts: np.ndarray) -> Course:
    theta, at = starts.astype(np.float32), np.full(len(starts), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, _STEPS + 1):
            after = theta - np.float32(_RATE) * theta**3
            at[(at < 0) & ~np.isfinite(after)] = step
            theta = np.where(at < 0, after, theta)
    return Course(theta, at)


def divergence(replicas: int, seed: int) -> Tally:
    """One run of `replicas`; each of them is a trial."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(-1.9, 1.9, replicas).astype(np.float32)
    lost = rng.choice(replicas, replicas // 100, replace=False)
    starts[lost] = rng.uniform(2.2, 9.0, len(lost)) * rng.choice([-1, 1], len(lost))
    problem = statsgd.problems.landscape(quartic, np.zeros(()))
    sgd = statsgd.SGD(_RATE, statsgd.noise.NoNoise())
    before = _peak_memory()
    tree = statsgd.simulate(
        problem, sgd, steps=_STEPS, replicas=replicas, seed=0, start=starts, progress=False
    )
    memory = _peak_memory() - before
    expected, run = course(starts), tree["run"]
    ends = tree["endpoints"].params.values
    right = (
        np.isfinite(ends)
        & (run.diverged.values == (expected.diverged_at >= 0))
        & (np.abs(run.diverged_at.values - expected.diverged_at) <= 1)  # rounding near overflow
        & (run.diverged.values | np.isclose(ends, expected.ends, rtol=1e-3, atol=1e-6))
    )
    total = Tally(replicas, right=int(right.sum()))
    if not right.all():
        total += Tally(wrong=(f"{int((~right).sum())} of {replicas} replicas",))
    if int(run.diverged.sum()) != replicas // 100:
        total += wrong(f"{int(run.diverged.sum())} are counted as diverged")
    if memory > 2000 * replicas + 2**30:  # bytes
        total += wrong(f"{memory / 2**20:.0f} MiB of memory")
    try:
        statsgd.ensembles.endpoint_trajectories(tree)
        total += wrong("what is left was read as if it were all")
    except ValueError as error:
        if f"{replicas // 100} of {replicas} replicas diverged" not in str(error):
            total += wrong(str(error))
    return total


def _peak_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
