"""An SDE in two dimensions, dθ = −Hθ dt + √η dW, by the method of Euler and Maruyama."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

import statsgd
from statsgd.noise import Isotropic
from statsgd.problems import landscape
from studies.peers.race import Runner
from studies.peers.simulated import simulated

CURVATURE = (2.0, 0.5)
RATE = 0.1


def contestants(replicas: int) -> dict[str, Runner]:
    """Ours with Gaussian and two-point increments, and every peer that is installed."""
    curvature = jnp.array(CURVATURE)
    problem = landscape(lambda x: 0.5 * jnp.sum(curvature * x**2), np.zeros(2))
    sgd = statsgd.SGD(RATE, Isotropic(1.0))
    found: dict[str, Runner] = {
        "statsgd": simulated(problem, sgd, replicas),
        "statsgd, signs": simulated(
            problem, sgd.diffusion_limit(problem, RATE, "two_point"), replicas
        ),
        "jax, key a replica": _key_a_replica(replicas, curvature),
        "jax, key a step": _key_a_step(replicas, curvature),
    }
    for module, peer in {"diffrax": _diffrax, "torch": _torch, "numba": _numba}.items():
        if importlib.util.find_spec(module):
            found[module] = peer(replicas)
    return found


def _key_a_replica(replicas: int, curvature) -> Runner:
    """What one writes first: `vmap` of a loop over steps, threefry."""

    @jax.jit
    def runner(steps):
        def step(_, carry):
            theta, key = carry
            key, fresh = jax.random.split(key)
            return theta - RATE * (curvature * theta + jax.random.normal(fresh, (2,))), key

        def one(key):
            return jax.lax.fori_loop(0, steps, step, (jnp.zeros(2), key))[0]

        return jax.vmap(one)(jax.random.split(jax.random.key(0), replicas))

    return runner


def _key_a_step(replicas: int, curvature) -> Runner:
    """One array of all replicas, one draw of noise for all of them."""

    @jax.jit
    def runner(steps):
        def step(i, theta):
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), theta.shape)
            return theta - RATE * (curvature * theta + noise)

        return jax.lax.fori_loop(0, steps, step, jnp.zeros((replicas, 2)))

    return runner


def _diffrax(replicas: int) -> Runner:
    import diffrax
    import lineax

    curvature = jnp.array(CURVATURE)
    strength = lineax.DiagonalLinearOperator(jnp.full(2, jnp.sqrt(RATE)))

    @jax.jit
    def runner(steps):
        def one(key):
            motion = diffrax.UnsafeBrownianPath((2,), key)
            drift = diffrax.ODETerm(lambda t, theta, args: -curvature * theta)
            noise = diffrax.ControlTerm(lambda t, theta, args: strength, motion)
            solution = diffrax.diffeqsolve(
                diffrax.MultiTerm(drift, noise),
                diffrax.Euler(),
                0.0,
                steps * RATE,
                RATE,
                jnp.zeros(2),
                max_steps=None,
                adjoint=diffrax.ForwardMode(),
            )
            return solution.ys[0]

        return jax.vmap(one)(jax.random.split(jax.random.key(0), replicas))

    return lambda steps: runner(jnp.float32(steps))


def _torch(replicas: int) -> Runner:
    import torch

    curvature = torch.tensor(CURVATURE)

    def runner(steps):
        theta = torch.zeros(replicas, 2)
        for _ in range(steps):
            theta -= RATE * (curvature * theta + torch.randn_like(theta))
        return theta.numpy()

    return runner


def _numba(replicas: int) -> Runner:
    """All cores, xoshiro128++ for each replica, and the method of Box and Muller for the pair."""
    import numba

    first, second = CURVATURE

    # numba widens 32-bit arithmetic to 64 bits: every result is cut back.
    @numba.njit(inline="always")
    def rotated(word, by):
        return np.uint32(np.uint32(word << np.uint32(by)) | (word >> np.uint32(32 - by)))

    @numba.njit(parallel=True, fastmath=True)
    def runner(steps):
        ends = np.zeros((replicas, 2), dtype=np.float32)
        rate, half_turns = np.float32(RATE), np.float32(2 * np.pi * 2.0**-32)
        for r in numba.prange(replicas):
            seed = np.uint32(r + 1)
            s0 = np.uint32(seed * np.uint32(0x9E3779B9))
            s1 = np.uint32(seed ^ np.uint32(0x243F6A88))
            s2 = np.uint32(seed * np.uint32(0x85EBCA6B))
            s3 = np.uint32(seed + np.uint32(0xB7E15162))
            a, b = np.float32(0), np.float32(0)
            for step in range(steps + 8):  # the first few draws only mix the seed
                words = (np.uint32(0), np.uint32(0))
                for _ in range(2):
                    word = np.uint32(rotated(np.uint32(s0 + s3), 7) + s0)
                    moved = np.uint32(s1 << np.uint32(9))
                    s2 = np.uint32(s2 ^ s0)
                    s3 = np.uint32(s3 ^ s1)
                    s1 = np.uint32(s1 ^ s2)
                    s0 = np.uint32(s0 ^ s3)
                    s2 = np.uint32(s2 ^ moved)
                    s3 = rotated(s3, 11)
                    words = (words[1], word)
                if step >= 8:
                    uniform = (np.float32(words[0]) + np.float32(0.5)) * np.float32(2.0**-32)
                    radius = np.sqrt(np.float32(-2) * np.log(uniform))
                    angle = np.float32(words[1]) * half_turns
                    a -= rate * (np.float32(first) * a + radius * np.cos(angle))
                    b -= rate * (np.float32(second) * b + radius * np.sin(angle))
            ends[r, 0], ends[r, 1] = a, b
        return ends

    return runner
