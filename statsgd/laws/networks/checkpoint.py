"""What SGD at a checkpoint looks like along its leading modes: curvature, force and noise."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import count
from statsgd.dynamics.noise import Minibatch, noise_covariance_along_estimate
from statsgd.dynamics.noise.subspace import require_covariance_along
from statsgd.dynamics.sgd import SGD
from statsgd.laws.minimum.mode_chain import Epoch
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk, Problem
from statsgd.problems.eigenpairs import Eigenpairs, hessian_eigenpairs
from statsgd.problems.parameters import floating
from statsgd.problems.sums import loss_sum, mean_over_chunks


class Checkpoint(NamedTuple):
    """The linear chain that SGD at θ₀ is along k modes, in double precision."""

    curvatures: Float[Any, " k"]
    """Of L, plus weight decay."""
    noise_covariance: Float[Any, "k k"]
    gradient: Float[Any, " k"]
    """Of L, plus that of weight decay."""
    momentum_buffer: Float[Any, " k"]
    noise_error: Float[Any, "k k"] | None
    """Standard error of the noise covariance; None where that is exact."""
    epoch: Epoch | None
    """Of shuffled batches; None for white noise."""
    independent_noise: Float[Any, "k k"] | None
    """Of the noise under epochs what is no choice of examples; None where nothing is."""
    modes: Float[Any, "d k"]
    checkpoint: Float[Any, " d"]
    residuals: Float[Any, " k"]
    """|Hv − ρv|/|ρ|."""


def at_checkpoint(
    problem: Problem,
    sgd: SGD,
    params: PyTree,
    modes: int | Eigenpairs,
    momentum_buffer: PyTree | None = None,
) -> Checkpoint:
    """Leading modes of L at `params`, and what `sgd` meets along them.

    `modes` says how many, or gives eigenpairs. Raises as `ModeLaw.from_checkpoint`.
    """
    epoch = checked(problem, sgd)
    params = floating(problem.parameters(params))
    loss, gradient = loss_and_gradient(problem, params)
    if not np.isfinite(loss):
        raise ValueError(f"params must have a finite loss, got {loss}")
    if isinstance(modes, Eigenpairs):
        pairs = modes
    else:
        number = count("modes", modes, at_most=problem.dimension)
        pairs = hessian_eigenpairs(problem, params, number)
    columns = np.asarray(pairs.vectors, dtype=np.float64).T
    if columns.shape[0] != problem.dimension:
        raise ValueError(
            f"modes must be vectors of {problem.dimension} parameters, got {columns.shape[0]}"
        )
    flat = np.asarray(problem.flatten(params), dtype=np.float64)
    decay = float(sgd.weight_decay)
    buffer = np.zeros(columns.shape[1])
    if momentum_buffer is not None:
        buffer = np.asarray(problem.flatten(momentum_buffer), dtype=np.float64) @ columns
    noise = noise_covariance_along_estimate(problem, params, sgd.noise, columns)
    return Checkpoint(
        curvatures=np.asarray(pairs.values, dtype=np.float64) + decay,
        noise_covariance=noise.value,
        noise_error=np.asarray(noise.standard_error) if np.any(noise.standard_error) else None,
        gradient=(gradient + decay * flat) @ columns,
        momentum_buffer=buffer,
        epoch=epoch,
        independent_noise=independent_noise(problem, params, sgd.noise, epoch, columns),
        modes=columns,
        checkpoint=flat,
        residuals=np.asarray(pairs.relative_residuals),
    )


def checked(problem: Problem, sgd: SGD) -> Epoch | None:
    """How shuffled batches go through the data, None for white noise; `ValueError` for others."""
    if not isinstance(sgd, SGD):
        raise ValueError(f"sgd must be SGD for this law, got {type(sgd).__name__}")
    sgd.require_heavy_ball()
    noise = sgd.noise
    noise.check(problem)
    noise.require_variance()
    require_covariance_along(problem, noise)
    if noise.white:
        return None
    if not (isinstance(noise, Minibatch) and isinstance(problem, EmpiricalRisk)):
        raise ValueError(
            "shuffled batches must be those of a Minibatch on losses of single examples, for this "
            f"law, got {type(noise).__name__} on {type(problem).__name__}: the noises of two "
            "batches of an epoch have no known covariance; sampling='without_replacement' has a law"
        )
    number, size = problem.num_examples, noise.batch_size
    batches = noise.batches_per_epoch(number)
    last = (number - (batches - 1) * size) / size if batches * size > number else 1.0
    return Epoch(batches, number / size, last, noise.sampling == "single_shuffle")


def independent_noise(
    problem: Problem, params: PyTree, noise: Any, epoch: Epoch | None, directions: Any
) -> Float[Any, "k k"] | None:
    """VᵀCV of what the keys of random losses add to one batch of an epoch; None where nothing."""
    if epoch is None or noise.knows_examples(problem):
        return None
    return noise.key_covariance_along(problem, params, directions).value


def loss_and_gradient(problem: Problem, params: PyTree) -> tuple[Any, Any]:
    """L and its flat gradient, in double precision."""
    if isinstance(problem, EmpiricalRisk):
        loss, gradient = mean_over_chunks(problem, _of_chunk, params, double=True)
    else:
        loss, gradient = in_double_precision(_of_problem, problem, params)
    return loss, np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])


_of_chunk = jax.value_and_grad(loss_sum, argnums=1)


def _of_problem(problem: Problem, params: PyTree) -> tuple[Any, Any]:
    return problem.loss(params), problem.gradient(params)
