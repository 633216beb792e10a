"""Adam: how wide it rests in which directions of the digits, and its drift along a valley."""

import jax
import numpy as np
import optax

import statsgd
from statsgd import SGD, OptaxDynamics, noise
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws import AdaptiveGaussian, LinearOptimiserGaussian
from studies.digits_regression import digits_problem
from studies.measured import claimed, variance_over_runs

_DECAY = 0.1  # weight decay on the digits, 1/time
_RATE = 1e-3  # of Adam there
_SLOW = 2e-4  # of Adam along the valley


def on_digits(replicas: int, margin: float, seed: int, progress: bool) -> Claim:
    """Variance of Adam against its frozen law, and how it leans against that of SGD."""
    problem, batches = digits_problem(), noise.Minibatch(16)
    chain = optax.chain(optax.add_decayed_weights(_DECAY), optax.adam(_RATE))
    adam = OptaxDynamics(chain, batches)
    law = AdaptiveGaussian.from_dynamics(problem, adam)
    plain = LinearOptimiserGaussian.from_dynamics(problem, SGD(0.01, batches, weight_decay=_DECAY))
    curvatures, modes = np.linalg.eigh(problem.hessian_matrix())
    start = np.asarray(law.draw(jax.random.key(seed), (replicas,)), np.float32)
    run = statsgd.simulate(
        problem, adam, steps=2000, replicas=replicas, seed=seed, start=start, progress=progress
    )
    away = (run["endpoints"].params.values - law.mean()) @ modes
    wide = np.einsum("ik,ij,jk->k", modes, law.covariance(), modes)
    quantities = []
    for label, some in (("steep", slice(-10, None)), ("flat", slice(0, 30))):
        ratio = variance_over_runs((away / np.sqrt(wide))[:, some])
        quantities.append(claimed(f"variance over law, {label} modes", ratio, "=", 1.0, margin))
    steep = curvatures > 0.01 * curvatures[-1]
    of_sgd = np.einsum("ik,ij,jk->k", modes, plain.covariance(), modes)
    leans = [np.polyfit(np.log(curvatures[steep]), np.log(v[steep]), 1)[0] for v in (wide, of_sgd)]
    quantities.append(
        Quantity("slope of ln variance on ln h, Adam below SGD", leans[0], 0.0, leans[1], "<")
    )
    return Claim(
        "Adam rests wider in flat directions and narrower in steep ones than SGD, as its second "
        "moments at rest say.",
        "derived",
        quantities,
        why=f"Where noise is proportional to curvature SGD rests equally wide everywhere: slopes "
        f"of ln variance on ln h are {leans[0]:.2f} (Adam) and {leans[1]:.2f} (SGD).",
        origin="derived",
        data_sets=1,
        unit="runs",
    )


def along_a_valley(replicas: int, margin: float, seed: int, progress: bool) -> Claim:
    """Drift toward flat places of L = ½(1+u²)x², noise across the valley alone."""
    problem = statsgd.problems.landscape(
        lambda p: 0.5 * (1 + p[1] ** 2) * p[0] ** 2, np.array([0.0, 1.0])
    )
    quantities = []
    for variance in (1e-5, 1e-4):
        kicks = noise.Anisotropic(np.diag([variance, 0.0]))
        dynamics = OptaxDynamics(optax.adam(_SLOW, b2=0.999, eps=1e-30), kicks)
        run = statsgd.simulate(
            problem, dynamics, steps=900, replicas=replicas, seed=seed + 3, progress=progress,
            keep=[500, 900],
        )  # fmt: skip
        u = run["snapshots"].params.values[..., 1]
        fallen = (u[:, 0] - u[:, 1]) / (400 * _SLOW)
        found = Estimate(fallen.mean(), fallen.std(ddof=1) / np.sqrt(len(fallen)))
        quantities.append(
            claimed(f"drift over η, c = {variance:g}", found, "=", 1 / np.sqrt(3), 2 * margin)
        )
    return Claim(
        "Adam prefers flat minima however weak the noise: along a valley it drifts by η/√3 a step, "
        "where SGD drifts by (η²/4) c h′/h.",
        "derived",
        quantities,
        why="The mean over the root mean square of ½h′x², x Gaussian, is 1/√3: second moments "
        "divide the strength of the noise out.",
        origin="derived",
        data_sets=0,
        unit="runs",
    )
