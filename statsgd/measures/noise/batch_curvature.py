"""Hessians of batches along a few directions of a network, and the stability that they allow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import fraction, kinds_checked, non_negative, positive
from statsgd.dynamics.noise.minibatch import Minibatch
from statsgd.dynamics.noise.sampled_covariance import drawn_batches
from statsgd.dynamics.noise.subspace import columns_of
from statsgd.laws.minimum.second_moments import (
    moment_growth,
    spread_noise,
    stability_threshold,
)
from statsgd.precision import in_double_precision, in_own_precision
from statsgd.problems import BatchRisk, EmpiricalRisk
from statsgd.problems.parameters import floating
from statsgd.problems.randomness import example_key
from statsgd.problems.sums import mean_over_chunks

#: Batches of a `batch_risk` whose Hessians are looked at, where they are too many to go through.
CURVATURE_BATCHES = 256

_BATCHES_AT_ONCE = 4  # whose curvatures are computed together


class BatchCurvature(NamedTuple):
    """G_B = VᵀH_BV of a random batch B by its first two moments; unit loss/params²."""

    mean: Float[np.ndarray, "k k"]
    """G = E G_B."""
    deviations: Float[np.ndarray, "r k k"]
    """Symmetric D_r with E (G_B − G) P (G_B − G) = Σ D_r P D_r for every P; r ≤ k(k+1)/2."""
    exact: bool
    """Whether these are of all examples or batches and not of some drawn ones or of some keys."""

    def mean_square_threshold(self, momentum: float = 0.0, weight_decay: float = 0.0) -> float:
        """The learning rate up to which SGD is stable in mean square along the directions.

        For networks of any size, and minima that do not interpolate: with ζ the displacement along
        them, ζ ← ζ − ηm, m ← βm + (G_B + λI)ζ, G_B independent from step to step. What excites ζ
        besides plays no part. With g the eigenvalues of G + λI second moments stay bounded iff in
        its eigenbasis

            (1−β)(g_i+g_j) P_ij − η [(1−β)g_ig_j/(1+β) − β(g_i−g_j)²/(1−β²)] P_ij − η N(P)_ij,

        N(P) = E (G_B − G)P(G_B − G), is a positive map of P: coupling of the directions included,
        and exactly so for directions that leave nothing out. If they are eigenvectors of the mean
        Hessian, or without momentum, the form of fewer directions is that of more on fewer P, so
        that another direction can only lower the threshold: it is an upper bound of that of all
        parameters. Zero where the mean does not bend upwards in every direction.

        **Arguments:** β and λ as in `SGD`. Raises `ValueError` for others than it takes. Source:
        derived. It is float64.

        >>> import numpy as np
        >>> from statsgd import noise, problems
        >>> problem = problems.linear_regression(np.array([[1.0], [3.0]]), np.zeros(2))
        >>> found = batch_curvature_along(problem, np.zeros(1), noise.Minibatch(1), np.eye(1))
        >>> round(found.mean_square_threshold(), 6)  # 10/41
        0.243902
        """
        deviations, g = self._along_mean(weight_decay)
        beta = float(fraction("momentum", momentum))
        if np.min(g) <= 0:
            return 0.0
        return stability_threshold(lambda p: spread_noise(deviations, p), g, beta)

    def mean_square_growth(
        self, learning_rate: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> float:
        """Growth per step of the second moments of (ζ, m) along the directions.

        Below 1 iff the learning rate is below `mean_square_threshold`, with arguments, errors and
        source as there. Without momentum no direction that is added can lower it.

        >>> import numpy as np
        >>> from statsgd import noise, problems
        >>> problem = problems.linear_regression(np.array([[1.0], [3.0]]), np.zeros(2))
        >>> found = batch_curvature_along(problem, np.zeros(1), noise.Minibatch(1), np.eye(1))
        >>> round(found.mean_square_growth(learning_rate=0.25), 6)  # mean of (1 − ηa²)²
        1.0625
        """
        deviations, g = self._along_mean(weight_decay)
        eta = float(positive("learning_rate", learning_rate))
        beta = float(fraction("momentum", momentum))
        return moment_growth(lambda p: spread_noise(deviations, p), g, eta, beta)

    def _along_mean(self, weight_decay: float) -> tuple[Any, Any]:
        """Deviations in the eigenbasis of the mean, and its eigenvalues with weight decay."""
        decay = float(non_negative("weight_decay", weight_decay))
        values, vectors = np.linalg.eigh(self.mean)
        return vectors.T @ self.deviations @ vectors, values + decay


@kinds_checked
def batch_curvature_along(
    problem: EmpiricalRisk | BatchRisk,
    params: PyTree,
    noise: Minibatch,
    directions: Any,
    *,
    double: bool = True,
) -> BatchCurvature:
    """Mean and spread of the Hessians of batches, along `directions` V `(d, k)`, as k × k matrices.

    With the learning rate up to which SGD is stable in mean square along them,
    `BatchCurvature.mean_square_threshold`, and the growth of its second moments beyond it.

    By forward differentiation, k(k+1)/2 second derivatives of every example, chunk by chunk, of
    which only sums are kept: neither the memory of d × d nor of N × d numbers is needed. Of the
    fixed keys of every example where losses are random, and of `CURVATURE_BATCHES` fixed batches of
    a `batch_risk`, without a bias of the moments. For shuffled epochs it is one batch's. Numbers
    are float64; `double`, False for derivatives in the precision of `params`.

    Raises `ValueError` if `noise` cannot act on `problem`, and for directions of another length.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> problem = problems.linear_regression(np.array([[1.0], [3.0]]), np.zeros(2))
    >>> found = batch_curvature_along(problem, np.zeros(1), noise.Minibatch(2), np.eye(1))
    >>> float(found.mean[0, 0]), np.sum(found.deviations**2).round(6)  # 16/2
    (5.0, np.float64(8.0))
    >>> round(found.mean_square_threshold(), 6)  # 10/33
    0.30303
    """
    noise.check(problem)
    columns, at = columns_of(problem, directions), floating(problem.parameters(params))
    k = columns.shape[1]
    if isinstance(problem, BatchRisk):
        indices, exact = drawn_batches(noise, problem, CURVATURE_BATCHES)
        ask = problem, at, indices, columns
        compiled = in_double_precision if double else in_own_precision
        rows = np.asarray(compiled(_of_batches, *ask), np.float64)
        mean, rows = rows.mean(0), rows - rows.mean(0)
        covariance = rows.T @ rows / (len(rows) - (0 if exact else 1))
        return BatchCurvature(_square(mean, k), _roots(covariance, k), exact)
    draws, pairs = problem.loss_draws, k * (k + 1) // 2
    mean, square, within = mean_over_chunks(
        problem, _moments, at, columns, double=double, copies=4 * pairs, progress=False
    )
    mean, square, within = (np.asarray(of, np.float64) for of in (mean, square, within))
    between = square - np.outer(mean, mean)
    factor = noise.variance_factor(problem)
    covariance = factor * between
    if draws:
        # The mean over an example's keys varies by a part of what one key does, which is not that
        # of the example; keys are fresh in every batch, whether its examples repeat or not.
        shared = factor * (1 - 1 / problem.num_examples) / draws
        covariance += (1 / noise.batch_size - shared) * within
    return BatchCurvature(_square(mean, k), _roots(covariance, k), not draws)


def _moments(
    problem: Any, params: PyTree, chunk: PyTree, weights: Any, columns: Float[Any, "d k"]
) -> tuple[Any, Any, Any]:
    """Sums of x, of xxᵀ and of Cov x over keys; x the mean over keys of an example's curvatures."""

    def one(example: PyTree) -> Float[Any, "draws q"]:
        def curvatures(key: Any) -> Float[Any, " q"]:
            return _bent(
                lambda at: problem.example_loss(at, example, key), problem, params, columns
            )

        if not problem.loss_draws:
            return curvatures(None)[None]
        return jax.lax.map(curvatures, jax.random.split(example_key(example), problem.loss_draws))

    each = jax.vmap(one)(chunk)
    x = each.mean(axis=1)
    rest = each - x[:, None]
    within = jnp.einsum("n,ngi,ngj->ij", weights, rest, rest) / max(each.shape[1] - 1, 1)
    return weights @ x, (weights[:, None] * x).T @ x, within


def _of_batches(
    problem: BatchRisk, params: PyTree, batches: tuple[Any, Any], columns: Float[Any, "d k"]
) -> Float[Any, "batches q"]:
    def one(batch: tuple[Any, Any]) -> Float[Any, " q"]:
        examples = problem.take(batch[0])
        return _bent(
            lambda at: problem.batch_loss(at, examples, batch[1]), problem, params, columns
        )

    return jax.lax.map(one, batches, batch_size=_BATCHES_AT_ONCE)


def _bent(
    loss: Callable[[PyTree], Any], problem: Any, params: PyTree, columns: Float[Any, "d k"]
) -> Float[Any, " q"]:
    """vᵢᵀ∇²ℓ vⱼ for i ≤ j, row by row."""
    flat, columns = jnp.asarray(problem.flatten(params)), jnp.asarray(columns)
    first, second = np.triu_indices(columns.shape[1])

    def along(u: Float[Any, " d"], v: Float[Any, " d"]) -> Float[Any, ""]:
        def slope(at: Float[Any, " d"]) -> Float[Any, ""]:
            return jax.jvp(lambda there: loss(problem.unflatten(there)), (at,), (u,))[1]

        return jax.jvp(slope, (flat,), (v,))[1]

    columns = columns.astype(flat.dtype)
    return jax.vmap(along)(columns.T[first], columns.T[second])


def _square(upper: Float[Any, "... q"], k: int) -> Float[np.ndarray, "... k k"]:
    """Symmetric matrices from their rows to the right of the diagonal."""
    full = np.empty((*np.shape(upper)[:-1], k, k))
    first, second = np.triu_indices(k)
    full[..., first, second] = full[..., second, first] = np.asarray(upper)
    return full


def _roots(covariance: Float[Any, "q q"], k: int) -> Float[np.ndarray, "r k k"]:
    """Matrices whose outer products add up to `covariance`, those of rounding left out."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    kept = values > 1e-15 * max(values[-1], 0.0)
    return _square((np.sqrt(values[kept]) * vectors[:, kept]).T, k)
