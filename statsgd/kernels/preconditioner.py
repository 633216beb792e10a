"""The matrix that sets a kernel's scales: covariance of its noise, inverse mass of its velocity."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced, positive, symmetric


class Preconditioner(NamedTuple):
    """A positive definite P = RRᵀ on flattened positions, with R⁻¹.

    Both are a number, the `(d,)` diagonal or a `(d, d)` matrix, R then lower triangular. Positions
    flatten in the order of `jax.flatten_util.ravel_pytree`: dictionaries by sorted key. Unit of P:
    position² per unit of potential.
    """

    root: Float[Any, "..."]
    inverse_root: Float[Any, "..."]

    def push(self, white: PyTree) -> PyTree:
        """R w: white noise to noise of covariance P."""
        return _times(self.root, white)

    def pull(self, gradient: PyTree) -> PyTree:
        """Rᵀ g: the gradient with respect to R⁻¹θ."""
        return _times(self.root.T, gradient)

    def whiten(self, displacement: PyTree) -> PyTree:
        """R⁻¹ x: the inverse of `push`."""
        return _times(self.inverse_root, displacement)

    def __call__(self, gradient: PyTree) -> PyTree:
        """P g."""
        return self.push(self.pull(gradient))


def as_preconditioner(name: str, value: Any) -> Preconditioner:
    """P from a positive number, a diagonal `(d,)` of such, or a positive definite `(d, d)`.

    Raises `ValueError` for anything else.
    """
    if isinstance(value, Preconditioner):
        return value
    if is_traced(value):
        return from_covariance(value)
    if np.ndim(value) > 2:
        raise ValueError(f"{name} must have 0, 1 or 2 axes, got shape {np.shape(value)}")
    if np.ndim(value) < 2:
        root = np.sqrt(positive(name, value))
        return Preconditioner(root, 1 / root)
    root = np.linalg.cholesky(symmetric(name, value, definite="positive"))
    return Preconditioner(root, np.linalg.inv(root))


def from_covariance(value: Any) -> Preconditioner:
    """P of a JAX array, unchecked."""
    value = jnp.asarray(value)
    if value.ndim < 2:
        return Preconditioner(jnp.sqrt(value), 1 / jnp.sqrt(value))
    root = jnp.linalg.cholesky(value)
    eye = jnp.eye(len(value), dtype=value.dtype)
    return Preconditioner(root, jax.scipy.linalg.solve_triangular(root, eye, lower=True))


def _times(factor: Any, tree: PyTree) -> PyTree:
    if factor.ndim == 0:
        return jax.tree.map(lambda leaf: factor * leaf, tree)
    vector, unravel = ravel_pytree(tree)
    product = factor @ vector if factor.ndim == 2 else factor * vector
    return unravel(product.astype(vector.dtype))
