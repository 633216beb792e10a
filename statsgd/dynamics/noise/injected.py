"""Synthetic noise: the exact gradient plus a Gaussian vector of a stated covariance."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.arguments import non_negative, positive, symmetric
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register, symmetric_root
from statsgd.problems import Problem
from statsgd.running.random_stream import normal


class IsotropicNoise(GradientNoise):
    """ĝ = ∇L + √c(θ) n with n standard normal, so C = c(θ) I."""

    @abc.abstractmethod
    def variance_at(self, problem: Problem, params: PyTree) -> Float[Any, ""]:
        """c(θ), the variance of each coordinate."""

    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """∇L plus isotropic Gaussian noise."""
        scale = jnp.sqrt(self.variance_at(problem, params))
        leaves, structure = jax.tree.flatten(problem.gradient(params))
        keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
        noisy = [
            (leaf + scale * normal(k, leaf.shape, leaf.dtype)).astype(leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy)

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """c(θ) I."""
        return self.variance_at(problem, params) * jnp.eye(problem.dimension)

    def root(self, problem: Problem, params: PyTree) -> Float[Any, ""]:
        """√c(θ)."""
        return jnp.sqrt(self.variance_at(problem, params))


class GaussianNoise(GradientNoise):
    """ĝ = ∇L + R(θ) n with n standard normal, so C = R Rᵀ; forms d × d matrices."""

    @abc.abstractmethod
    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """C(θ)."""

    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """∇L plus Gaussian noise of covariance C(θ)."""
        root = self.root(problem, params)
        noise = root @ normal(key, (root.shape[1],), root.dtype)
        gradient = problem.gradient(params)
        return jax.tree.map(
            lambda g, n: (g + n).astype(g.dtype), gradient, problem.unflatten(noise)
        )


def hessian_spectrum(
    problem: Problem, params: PyTree
) -> tuple[Float[Any, " d"], Float[Any, "d d"]]:
    """Eigenvalues (ascending) and eigenvectors of ∇²L at `params`, in the precision of `params`."""
    flat = problem.flatten(params)
    curvature = jax.hessian(lambda vector: problem.loss(problem.unflatten(vector)))(flat)
    return jnp.linalg.eigh(curvature)


@register
class Isotropic(IsotropicNoise):
    """Constant isotropic noise, C = cI. `variance` is c ≥ 0 per coordinate, (loss/params)².

    On any loss the diffusion limit has the Gibbs law exp(−L/τ) with τ = ηc/2.

    >>> import numpy as np
    >>> from statsgd import problems
    >>> Isotropic(2.0).covariance(problems.quadratic(np.eye(2)), np.zeros(2))
    Array([[2., 0.],
           [0., 2.]], dtype=float32)
    """

    variance: Float[Any, ""]

    def __init__(self, variance: Any):
        self.variance = non_negative("variance", variance)

    def variance_at(self, problem: Problem, params: PyTree) -> Float[Any, ""]:
        """c."""
        return jnp.asarray(self.variance)


@register
class LossScaled(IsotropicNoise):
    """Isotropic noise that grows with the loss, C = σ (L + c₀)/(1 + L/L_sat) I.

    **Arguments:** `strength` σ > 0, per coordinate (loss/params²); `floor` c₀ ≥ 0 (loss), which
    keeps the gradient noisy at zero loss; `saturation` L_sat > 0 (loss), infinite by default,
    above which the noise stops growing. The loss must not be negative.

    Source: Wojtowytsch (2021), arXiv:2105.01650 and 2106.02588; floor and saturation are derived.

    >>> import numpy as np
    >>> from statsgd import problems
    >>> LossScaled(2.0, floor=1.0).covariance(problems.quadratic(np.eye(1)), np.ones(1))
    Array([[3.]], dtype=float32)
    """

    strength: Float[Any, ""]
    floor: Float[Any, ""]
    saturation: Any

    def __init__(self, strength: Any, floor: Any = 0.0, saturation: Any = np.inf):
        self.strength = positive("strength", strength)
        self.floor = non_negative("floor", floor)
        infinite = isinstance(saturation, float | np.floating) and np.isposinf(saturation)
        self.saturation = np.float64(np.inf) if infinite else positive("saturation", saturation)

    def variance_at(self, problem: Problem, params: PyTree) -> Float[Any, ""]:
        """σ (L + c₀)/(1 + L/L_sat)."""
        # Settings are NumPy numbers: as JAX arrays they take the precision of the context.
        strength, floor, saturation = map(jnp.asarray, (self.strength, self.floor, self.saturation))
        loss = problem.loss(params)
        return strength * (loss + floor) / (1 + loss / saturation)


@register
class Anisotropic(GaussianNoise):
    """Gaussian noise of a given covariance C.

    `matrix` is a positive semi-definite `(d, d)` array in flattened coordinates, (loss/params)²,
    or a function `params -> (d, d)`, whose eigenvalues below zero count as zero.

    >>> import numpy as np
    >>> from statsgd import problems
    >>> matrix = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> Anisotropic(matrix).covariance(problems.quadratic(np.eye(2)), np.zeros(2))
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """

    matrix: Any
    constant_root: Any

    def __init__(self, matrix: Any):
        if callable(matrix):
            self.matrix, self.constant_root = matrix, None
        else:
            self.matrix = symmetric("matrix", matrix, definite="semi")
            values, vectors = np.linalg.eigh(self.matrix)
            self.constant_root = vectors * np.sqrt(np.clip(values, 0, None))

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless the matrix is d × d for this problem."""
        shape = (
            self.matrix.shape
            if self.constant_root is not None
            else jax.eval_shape(self.matrix, problem.template).shape
        )
        if shape != (problem.dimension, problem.dimension):
            raise ValueError(
                f"matrix must have shape ({problem.dimension}, {problem.dimension}) for this "
                f"problem, got {shape}"
            )

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """C, evaluated at `params` if it is a function."""
        return jnp.asarray(self.matrix if self.constant_root is not None else self.matrix(params))

    def root(self, problem: Problem, params: PyTree) -> Float[Any, "d r"]:
        """A root of C, computed once where C is constant."""
        if self.constant_root is not None:
            return jnp.asarray(self.constant_root)
        return symmetric_root(self.covariance(problem, params))


@register
class HessianScaled(GaussianNoise):
    """Noise proportional to the curvature, C = κ [H(θ)]⁺ + c₀I.

    [·]⁺ takes absolute eigenvalues, as the escape theory for this noise does. `strength` κ > 0
    (loss; the batch size is already in it), `floor` c₀ ≥ 0 keeps the noise from vanishing at
    inflections, where the diffusion could not pass.

    Source: Xie, Sato, Sugiyama (2021), arXiv:2002.03495; the floor is ours.

    >>> import numpy as np
    >>> from statsgd import problems
    >>> HessianScaled(2.0).covariance(problems.quadratic(np.diag([3.0, 1.0])), np.zeros(2))
    Array([[6., 0.],
           [0., 2.]], dtype=float32)
    """

    strength: Float[Any, ""]
    floor: Float[Any, ""]

    def __init__(self, strength: Any, floor: Any = 0.0):
        self.strength = positive("strength", strength)
        self.floor = non_negative("floor", floor)

    def _spectrum(self, problem: Problem, params: PyTree) -> tuple[Array, Array]:
        values, vectors = hessian_spectrum(problem, params)
        return jnp.asarray(self.strength) * jnp.abs(values) + jnp.asarray(self.floor), vectors

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """κ [H(θ)]⁺ + c₀I."""
        values, vectors = self._spectrum(problem, params)
        return (vectors * values) @ vectors.T

    def root(self, problem: Problem, params: PyTree) -> Float[Any, "d r"]:
        """Eigenvectors times roots of eigenvalues."""
        values, vectors = self._spectrum(problem, params)
        return vectors * jnp.sqrt(values)
