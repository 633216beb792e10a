"""Minibatch SGD on linear regression."""

import importlib.util

import jax.numpy as jnp
import numpy as np

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression
from studies.peers.optax_idiom import optax_idiom
from studies.peers.race import Runner
from studies.peers.simulated import simulated


def contestants(*, examples: int, dimension: int, size: int, replicas: int) -> dict[str, Runner]:
    """Ours and every peer that is installed."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(examples, dimension)).astype(np.float32)
    truth = inputs @ rng.normal(size=dimension)
    targets = (truth + rng.normal(size=examples)).astype(np.float32)
    rate = 0.1 / dimension
    problem = linear_regression(inputs, targets)
    found: dict[str, Runner] = {
        "statsgd": simulated(problem, statsgd.SGD(rate, Minibatch(size)), replicas),
        "optax": optax_idiom(
            lambda theta, example: 0.5 * (example[0] @ theta - example[1]) ** 2,
            (inputs, targets),
            jnp.zeros(dimension),
            replicas=replicas,
            size=size,
            rate=rate,
        ),
    }
    for module, peer in {"torch": _torch, "numba": _numba}.items():
        if importlib.util.find_spec(module):
            found[module] = peer(inputs, targets, replicas, size, rate)
    return found


def _torch(inputs, targets, replicas: int, size: int, rate: float) -> Runner:
    import torch

    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets)

    def loss(theta, x, y):
        return 0.5 * ((x @ theta - y) ** 2).mean()

    gradient = torch.func.vmap(torch.func.grad(loss))

    def runner(steps):
        theta = torch.zeros(replicas, inputs.shape[1])
        for _ in range(steps):
            chosen = torch.randint(len(targets), (replicas, size))
            theta = theta - rate * gradient(theta, inputs[chosen], targets[chosen])
        return theta.numpy()

    return runner


def _numba(inputs, targets, replicas: int, size: int, rate: float) -> Runner:
    """All cores, xorshift, the gradient by hand."""
    import numba

    number, dimension = inputs.shape

    @numba.njit(parallel=True, fastmath=True)
    def runner(steps):
        ends = np.zeros((replicas, dimension), dtype=np.float32)
        for r in numba.prange(replicas):
            theta = np.zeros(dimension, dtype=np.float32)
            gradient = np.zeros(dimension, dtype=np.float32)
            word = np.uint32(2463534242 + 7919 * r)
            for _ in range(steps):
                gradient[:] = 0
                for _ in range(size):
                    # numba widens 32-bit shifts to 64 bits: cut every one back.
                    word = np.uint32(word ^ np.uint32(word << np.uint32(13)))
                    word = np.uint32(word ^ (word >> np.uint32(17)))
                    word = np.uint32(word ^ np.uint32(word << np.uint32(5)))
                    row = int((np.uint64(word) * np.uint64(number)) >> np.uint64(32))
                    residual = -targets[row]
                    for j in range(dimension):
                        residual += inputs[row, j] * theta[j]
                    for j in range(dimension):
                        gradient[j] += residual * inputs[row, j]
                for j in range(dimension):
                    theta[j] -= np.float32(rate / size) * gradient[j]
            ends[r] = theta
        return ends

    return runner
