"""Matrices of a problem known by their products: curvature, Fisher matrices, noise covariance.

An `OperatorAt` is a function `(problem, params) -> Operator`; every spectral measure takes one. It
can be traced, and its products cost a few gradients and no d × d memory. Those made with arguments
are Equinox modules, equal where their arguments are, so that programs are compiled once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy.sparse.linalg import LinearOperator

from statsgd.arguments import is_traced, kinds_checked, one_of
from statsgd.dynamics.noise import GradientNoise, Minibatch, NoNoise
from statsgd.dynamics.noise.covariance import moment_product, noise_covariance
from statsgd.dynamics.noise.injected import IsotropicNoise
from statsgd.dynamics.noise.minibatch import all_examples
from statsgd.measures.curvature.probes import PROBES_AT_ONCE, chunked_map
from statsgd.precision import in_double_precision, in_own_precision
from statsgd.problems import DENSE_LIMIT, EmpiricalRisk, Problem
from statsgd.problems.parameters import floating
from statsgd.problems.problem import SampledProblem
from statsgd.problems.sums import (
    gradient_sum,
    hessian_product,
    in_single,
    mean_over_chunks,
    mean_over_examples,
)

type Vector = Float[Any, " d"]
type Output = Callable[[PyTree, PyTree], Float[Any, "..."]]
type OutputLoss = Callable[[Any, PyTree], Float[Any, ""]]


class Operator(NamedTuple):
    """A symmetric matrix: its product with a flat vector, and its number of rows."""

    product: Callable[[Vector], Vector]
    dimension: int


type OperatorAt = Callable[[Problem, PyTree], Operator]


@kinds_checked
def hessian_operator(problem: Problem, params: PyTree) -> Operator:
    """∇²L at `params`: a product costs about two gradients.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> hessian_operator(quadratic(np.diag([3.0, 2.0])), np.zeros(2)).product(np.ones(2))
    Array([3., 2.], dtype=float32)
    """
    flat = jnp.asarray(problem.flatten(in_single(problem.parameters(params))))

    def gradient(vector: Vector) -> Vector:
        return problem.flatten(problem.gradient(problem.unflatten(vector)))

    return Operator(lambda v: jax.jvp(gradient, (flat,), (v,))[1], problem.dimension)


@kinds_checked
def fisher_operator(problem: Problem, params: PyTree) -> Operator:
    """The empirical Fisher matrix F = (1/N) Σ g gᵀ of the example gradients g, not centred.

    It is the second moment of the gradients: Σ₁ + ∇L∇Lᵀ, the noise covariance of single examples
    where ∇L = 0. It is not the Fisher matrix of the model, which averages over the model's own
    labels; that is `gauss_newton_operator` of a negative log-likelihood.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> fisher_operator(problem, np.zeros(2)).product(np.ones(2)).tolist()
    [0.5, 4.5]
    """
    return _gradient_moment(problem, params, centred=False, factor=1.0)


def gauss_newton_operator(output: Output, output_loss: OutputLoss) -> OperatorAt:
    """The Gauss–Newton matrix G = (1/N) Σ Jᵀ (∂²ℓ/∂f²) J of a model and its loss.

    **Arguments:** `output(params, example)`, the model's output f, an array of any shape;
    `output_loss(f, example)`, so that the example's loss is ℓ(f(θ), example). For a convex ℓ it is
    positive semi-definite, and it equals ∇²L where the residuals ∂ℓ/∂f vanish or f is linear. For
    a negative log-likelihood whose output is the natural parameter (logits, a Gaussian's mean) it
    is the Fisher matrix of the model.

    Source: Martens (2020), arXiv:1412.1193.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> G = gauss_newton_operator(lambda p, one: one[0] @ p, lambda f, one: (f - one[1]) ** 2 / 2)
    >>> G(problem, np.zeros(2)).product(np.ones(2)).tolist()
    [0.5, 0.5]
    """
    return _GaussNewton(output, output_loss)


class _GaussNewton(eqx.Module):
    output: Output
    output_loss: OutputLoss

    def __call__(self, problem: Problem, params: PyTree) -> Operator:
        data, params = _sampled(problem), in_single(problem.parameters(params))
        if isinstance(data, EmpiricalRisk):
            return Operator(
                lambda v: mean_over_chunks(data, self.of_chunk, params, v), problem.dimension
            )
        examples = all_examples(data)
        weights = jnp.full(data.loss_examples, 1 / data.loss_examples)
        return Operator(
            lambda v: self.of_chunk(data, params, examples, weights, v), problem.dimension
        )

    def of_chunk(
        self, problem: Any, params: PyTree, chunk: PyTree, weights: Any, v: Vector
    ) -> Vector:
        """Σ w Jᵀ (∂²ℓ/∂f²) J v over a chunk."""

        def outputs(vector: Vector) -> Any:
            whole = complete(problem, problem.unflatten(vector))
            return jax.vmap(lambda example: self.output(whole, example))(chunk)

        def residuals(values: Any) -> Any:
            return jax.vmap(jax.grad(self.output_loss))(values, chunk)

        flat = jnp.asarray(problem.flatten(params))
        values, pushed = jax.jvp(outputs, (flat,), (v,))
        curved = jax.jvp(residuals, (values,), (pushed,))[1]
        curved = curved * weights.reshape(-1, *[1] * (curved.ndim - 1)).astype(curved.dtype)
        return jax.vjp(outputs, flat)[1](curved)[0]


@kinds_checked
def noise_operator(noise: GradientNoise) -> OperatorAt:
    """C(θ) of a gradient noise.

    For `Minibatch` noise a product costs two gradients (of random losses and of a `batch_risk` two
    of each of their draws), for isotropic noise nothing. Any other noise forms its matrix, up to
    d = `problems.DENSE_LIMIT`; above that `ValueError` is raised, and for noise without a finite
    variance.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import quadratic
    >>> curvature_matrix(quadratic(np.eye(2)), np.zeros(2), noise_operator(noise.Isotropic(2.0)))
    array([[2., 0.],
           [0., 2.]])
    """
    noise.require_variance()
    return _Covariance(noise)


class _Covariance(eqx.Module):
    noise: GradientNoise

    def __call__(self, problem: Problem, params: PyTree) -> Operator:
        noise, d = self.noise, problem.dimension
        noise.check(problem)
        if isinstance(noise, Minibatch) and noise.knows_examples(problem):
            factor = noise.variance_factor(problem)
            return _gradient_moment(problem, params, centred=True, factor=factor)
        if isinstance(noise, IsotropicNoise | NoNoise):
            root = noise.root(problem, params)
            return Operator(lambda v: root**2 * v, d)
        if d > DENSE_LIMIT and isinstance(noise, Minibatch):
            return Operator(lambda v: noise.covariance_product(problem, params, v), d)
        if d > DENSE_LIMIT:
            raise ValueError(
                f"the covariance of {type(noise).__name__} is formed as a matrix, which is allowed "
                f"up to d = {DENSE_LIMIT}, got d = {d}"
            )
        covariance = noise.covariance(problem, params)
        return Operator(lambda v: covariance @ v, d)


def block_operator(operator: OperatorAt, name: str) -> OperatorAt:
    """The diagonal block of a matrix that belongs to the params leaf `name`.

    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: p["u"] ** 2 + 3 * p["w"] ** 2, {"u": 0.0, "w": 0.0})
    >>> block = block_operator(hessian_operator, "w")
    >>> curvature_matrix(problem, {"u": 0.0, "w": 0.0}, block).tolist()
    [[6.0]]
    """
    return _Block(operator, name)


class _Block(eqx.Module):
    operator: OperatorAt
    name: str = eqx.field(static=True)

    def __call__(self, problem: Problem, params: PyTree) -> Operator:
        names = problem.names
        index = names.index(one_of("name", self.name, names))
        sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(problem.template)]
        start, size = sum(sizes[:index]), sizes[index]
        whole = self.operator(problem, params)
        after = whole.dimension - start - size

        def product(v: Vector) -> Vector:
            return whole.product(jnp.pad(v, (start, after)))[start : start + size]

        return Operator(product, size)


def products_of(
    problem: Problem, params: PyTree, operator: OperatorAt, double: bool = True
) -> Callable[[Vector], Vector]:
    """Products of A at `params`, to be called many times from outside JAX.

    In double precision, or else in that of `params`; those of a minibatch covariance always in
    double.
    """
    if operator is hessian_operator:
        return hessian_product(problem, params, double=double)
    if isinstance(operator, _Covariance) and isinstance(operator.noise, Minibatch):
        covariance = noise_covariance(problem, params, operator.noise)
        return lambda v: covariance @ v
    within = in_double_precision if double else in_own_precision
    return lambda v: within(_product, problem, params, operator, v)


def rows_of(operator: OperatorAt, problem: Problem, params: PyTree) -> int:
    """The number of rows of the matrix, which is not formed."""
    sizes: list[int] = []

    def look(problem: Problem, point: PyTree) -> None:
        sizes.append(operator(problem, point).dimension)

    eqx.filter_eval_shape(look, problem, floating(problem.parameters(params)))
    return sizes[0]


def dense(operator: Operator, like: Float[Any, "..."]) -> Float[Any, "d d"]:
    """The whole matrix, in the precision of `like`, from d products a few at a time."""
    rows = jnp.eye(operator.dimension, dtype=jnp.result_type(like))
    matrix = chunked_map(operator.product, rows, 4 * PROBES_AT_ONCE)
    return (matrix + matrix.T) / 2


@kinds_checked
def curvature_matrix(
    problem: Problem, params: PyTree, operator: OperatorAt = hessian_operator
) -> Float[Any, "d d"] | LinearOperator:
    """The matrix of an `OperatorAt` in double precision.

    A `(d, d)` array up to d = `problems.DENSE_LIMIT`, which `over_endpoints` can compute; above, a
    `scipy.sparse.linalg.LinearOperator`.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> curvature_matrix(quadratic(np.diag([3.0, 2.0])), np.zeros(2)).tolist()
    [[3.0, 0.0], [0.0, 2.0]]
    """
    dimension = rows_of(operator, problem, params)
    if dimension <= DENSE_LIMIT:
        return in_double_precision(_matrix, problem, floating(problem.parameters(params)), operator)

    def matvec(vector: Any) -> Any:
        v = np.asarray(vector, dtype=np.float64).reshape(-1)
        return in_double_precision(
            _product, problem, floating(problem.parameters(params)), operator, v
        )

    shape = (dimension, dimension)
    return LinearOperator(shape, matvec=matvec, rmatvec=matvec, dtype=np.float64)


def _matrix(problem: Problem, params: PyTree, operator: OperatorAt) -> Float[Any, "d d"]:
    return dense(operator(problem, params), problem.flatten(params))


def _product(problem: Problem, params: PyTree, operator: OperatorAt, vector: Vector) -> Vector:
    return operator(problem, params).product(vector)


@kinds_checked
def fisher(problem: Problem, params: PyTree) -> Float[Any, "d d"] | LinearOperator:
    """The empirical Fisher matrix, the second moment of the example gradients.

    A matrix or products as in `curvature_matrix`; see `fisher_operator`. Raises `ValueError` for a
    problem without examples.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> fisher(linear_regression(np.eye(2), np.array([1.0, 3.0])), np.zeros(2)).tolist()
    [[0.5, 0.0], [0.0, 4.5]]
    """
    return curvature_matrix(problem, params, fisher_operator)


@kinds_checked
def gauss_newton(
    problem: Problem, params: PyTree, output: Output, output_loss: OutputLoss
) -> Float[Any, "d d"] | LinearOperator:
    """The Gauss–Newton matrix of a declared model and loss; see `gauss_newton_operator`.

    A matrix or products as in `curvature_matrix`. Raises `ValueError` for a problem without
    examples, and where the declared loss is not the problem's at `params`.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> def output(params, example):
    ...     return example[0] @ params
    >>> gauss_newton(problem, np.zeros(2), output, lambda f, one: (f - one[1]) ** 2 / 2).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    stated, true = in_double_precision(
        _both_losses, _sampled(problem), floating(problem.parameters(params)), output, output_loss
    )
    if not is_traced(stated) and not np.isclose(stated, true, rtol=1e-4, atol=1e-8):
        raise ValueError(
            f"output_loss of output must be the loss of the problem, {true:.6g} at params, got "
            f"{stated:.6g}"
        )
    return curvature_matrix(problem, params, gauss_newton_operator(output, output_loss))


def _both_losses(problem: Any, params: PyTree, output: Output, output_loss: OutputLoss) -> Any:
    """The mean loss as declared, and as the problem has it."""
    stated = _StatedLoss(output, output_loss)
    if isinstance(problem, EmpiricalRisk):
        return mean_over_examples(problem, stated, params), problem.loss(params)
    examples = all_examples(problem)
    losses = jax.vmap(lambda example: stated(problem, params, example))(examples)
    return jnp.mean(losses), problem.batch_loss(params, examples)


class _StatedLoss(eqx.Module):
    output: Output
    output_loss: OutputLoss

    def __call__(self, problem: Any, params: PyTree, example: PyTree) -> Float[Any, ""]:
        return self.output_loss(self.output(complete(problem, params), example), example)


def complete(problem: Problem, params: PyTree) -> PyTree:
    """`params` with what the model holds besides numbers, as the user's functions expect it."""
    start = getattr(problem, "start", None)
    return params if start is None else start.complete(params)


def _sampled(problem: Problem) -> Any:
    if not isinstance(problem, SampledProblem):
        raise ValueError(
            f"problem must have examples for this matrix, got {type(problem).__name__}"
        )
    return problem


def _gradient_moment(problem: Problem, params: PyTree, *, centred: bool, factor: float) -> Operator:
    """`factor` times the second moment of example gradients, about their mean if `centred`."""
    data, params = _sampled(problem), in_single(problem.parameters(params))
    if isinstance(data, EmpiricalRisk):
        mean = None
        if centred:
            mean = problem.flatten(mean_over_chunks(data, gradient_sum, params))
        return Operator(
            lambda v: factor * mean_over_chunks(data, moment_product, params, mean, v),
            problem.dimension,
        )
    flat, examples = jnp.asarray(problem.flatten(params)), all_examples(data)

    def losses(vector: Vector) -> Float[Any, " N"]:
        at = problem.unflatten(vector)
        return jax.vmap(lambda example: data.example_loss(at, example))(examples)

    def product(v: Vector) -> Vector:
        # With J the N × d gradients: Jᵀ (I − 11ᵀ/N) J v/N, and no N × d memory.
        along = jax.jvp(losses, (flat,), (v,))[1]
        along = along - jnp.mean(along) if centred else along
        return factor * jax.vjp(losses, flat)[1](along)[0] / along.shape[0]

    return Operator(product, problem.dimension)
