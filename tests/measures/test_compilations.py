"""A second call of a measure, with other numbers of the same shapes, compiles nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, measures, minimise, noise, noise_covariance, problems
from studies.compilations import compilations
from tests.measures.problem_cases import PARAMS, output, residual, square_loss
from tests.measures.problem_cases import network as one_network

NOISE = noise.Minibatch(3)
FIRST, SECOND = np.random.default_rng(0).normal(size=(2, 3, 4, 10))
"""Points of the network, `(replica, step, d)`."""


def network(factor):
    """The network with other data."""
    problem = one_network()
    return type(problem)(
        jax.tree.map(lambda leaf: factor * leaf, problem.examples),
        _loss,
        problem.start,
    )


def _loss(params, example):
    return square_loss(output(params, example), example)


def at(points):
    """Params of the network at the first of `points`."""
    return jax.tree.map(np.asarray, one_network().unflatten(points[0, 0]))


def many(points):
    """Params of the network at all replicas."""
    return jax.vmap(one_network().unflatten)(points[:, 0])


def inside(params):
    """A region that nothing leaves."""
    return jnp.sum(params["bias"] ** 2) < 1e6


def norm(problem, params):
    """|∇L|."""
    return jnp.linalg.norm(problem.flatten(problem.gradient(params)))


SYMMETRY = measures.rescaling_symmetry(one_network(), [("hidden", (0, 0))], ["bias"])
DYNAMICS = SGD(0.1, NOISE, momentum=0.5)

# Every measure that runs JAX; `x` is a number that changes between calls, of problems and settings.
CALLS = {
    "hessian": lambda p, points, x, i: measures.hessian(p, at(points)),
    "minimise": lambda p, points, x, i: minimise(p, at(points), weight_decay=0.1 * x),
    "noise_covariance": lambda p, points, x, i: noise_covariance(p, at(points), NOISE),
    "noise_covariance, injected": lambda p, points, x, i: noise_covariance(
        p, at(points), noise.Isotropic(x)
    ),
    "curvature_matrix": lambda p, points, x, i: measures.curvature_matrix(p, at(points)),
    "fisher": lambda p, points, x, i: measures.fisher(p, at(points)),
    "gauss_newton": lambda p, points, x, i: measures.gauss_newton(
        p, at(points), output, square_loss
    ),
    "noise_operator": lambda p, points, x, i: measures.curvature_matrix(
        p, at(points), measures.noise_operator(noise.Isotropic(x))
    ),
    "trace": lambda p, points, x, i: measures.trace(p, at(points)),
    "trace, sampled": lambda p, points, x, i: measures.trace(
        p, at(points), measures.noise_operator(NOISE), samples=4, rank=2, seed=i
    ),
    "trace_of_square": lambda p, points, x, i: measures.trace_of_square(
        p, at(points), measures.block_operator(measures.hessian_operator, "hidden"),
        samples=4, seed=i,
    ),
    "over_blocks": lambda p, points, x, i: measures.over_blocks(p, at(points), measures.trace),
    "top_eigenpairs": lambda p, points, x, i: measures.top_eigenpairs(p, at(points), 2),
    "top_eigenpairs, Lanczos": lambda p, points, x, i: measures.top_eigenpairs(
        p, at(points), 2, depth=5, seed=i
    ),
    "log_determinant": lambda p, points, x, i: measures.log_determinant(
        p, at(points), tolerance=1e-8 * x, samples=4, depth=5, seed=i
    ),
    "spectral_density": lambda p, points, x, i: measures.spectral_density(
        p, at(points), [0.0, x], x
    ),
    "expected_sharpness": lambda p, points, x, i: measures.expected_sharpness(
        p, at(points), 0.1 * x, draws=8, seed=i
    ),
    "flatness_width": lambda p, points, x, i: measures.flatness_width(
        p, at(points), np.eye(10)[:2], rise=x
    ),
    "basin_volume": lambda p, points, x, i: measures.basin_volume(
        p, at(points), x, directions=8, seed=i
    ),
    "tube_mean": lambda p, points, x, i: measures.tube_mean(
        problems.quadratic(np.diag([1.0, x])), np.zeros(2), 0.5 * x, 0.1 * x,
        codimension=1, samples=8, seed=i,
    ),
    "local_learning_coefficient": lambda p, points, x, i: measures.local_learning_coefficient(
        p, at(points), step_size=1e-5 * x, steps=8, burn_in=2 + i, chains=2, seed=i,
        noise=NOISE, loss_examples=4,
    ),
    "learning_coefficient_grid": lambda p, points, x, i: measures.learning_coefficient_grid(
        p, at(points), step_sizes=[1e-5 * x, 1e-4], localizations=[x, 10.0], steps=8,
        burn_in=2 + i, chains=2, seed=i, noise=NOISE, box_radius=0.1 * x,
        restricted_to={"hidden": np.eye(3, 2, dtype=bool), "out": True, "bias": False},
    ),
    "low_rank_noise": lambda p, points, x, i: measures.low_rank_noise(
        p, at(points), NOISE, 2, seed=i
    ),
    "noise_alignment": lambda p, points, x, i: measures.noise_alignment(
        p, at(points), NOISE, samples=4, seed=i
    ),
    "leading_alignment": lambda p, points, x, i: measures.leading_alignment(
        p, at(points), NOISE, samples=4, seed=i
    ),
    "output_gradients": lambda p, points, x, i: measures.output_gradients(p, output, at(points)),
    "square_loss_alignment": lambda p, points, x, i: measures.square_loss_alignment(
        p, at(points), residual
    ),
    "square_loss_stability": lambda p, points, x, i: measures.square_loss_stability(
        p, at(points), residual, 2 + i
    ),
    "over_replicas": lambda p, points, x, i: measures.over_replicas(
        measures.trace, p, many(points), seed=i, samples=4
    ),
    "over_replicas, of one's own": lambda p, points, x, i: measures.over_replicas(
        norm, p, many(points)
    ),
    "full_gradients": lambda p, points, x, i: measures.full_gradients(p, points, x),
    "gradient_flow": lambda p, points, x, i: measures.gradient_flow(
        p, points[0], tolerance=1e-2 * x, steps=5 + i
    ),
    "assign_basins": lambda p, points, x, i: measures.assign_basins(
        p, points[0], points[1], radius=x, tolerance=1e-2 * x, steps=5
    ),
    "noise_equilibrium_residual": lambda p, points, x, i: measures.noise_equilibrium_residual(
        p, DYNAMICS, SYMMETRY, points[0]
    ),
    "charge_change": lambda p, points, x, i: measures.charge_change(
        p, DYNAMICS, SYMMETRY, np.repeat(points, 4, axis=0)
    ),
    "check_charge_identity": lambda p, points, x, i: measures.check_charge_identity(
        p, SGD(0.1 * x, NOISE), SYMMETRY, at(points), seed=i
    ),
    "find_symmetries": lambda p, points, x, i: measures.find_symmetries(p, points=2, seed=i),
    "symmetry_violation": lambda p, points, x, i: measures.symmetry_violation(
        p, SYMMETRY, at(points)
    ),
    "first_passage": lambda p, points, x, i: measures.first_passage(
        p, SGD(0.1 * x, NOISE), inside, steps=3 + i, replicas=2, seed=i, start=PARAMS
    ),
}  # fmt: skip


#: One of each family of programs by default, the others with the slow tests.
DEFAULT = {
    "hessian", "minimise", "noise_covariance", "trace, sampled", "top_eigenpairs, Lanczos",
    "noise_alignment", "over_replicas", "gradient_flow", "find_symmetries", "first_passage",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in DEFAULT else [pytest.mark.slow]) for n in CALLS],
)
def test_second_calls_compile_nothing(name):
    call = CALLS[name]
    call(network(1.0), FIRST, 1.0, 0)
    problem = network(1.1)
    with compilations() as count:
        call(problem, SECOND, 1.3, 1)
        assert count() == 0
