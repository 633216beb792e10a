"""Normal laws near a minimum with Hessian H, whose modes are eigenvectors of H + λI."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.laws.bases.gaussian import NormalLaw
from statsgd.precision import formula


class Modes(NamedTuple):
    """Eigenvalues h, ascending, and eigenvectors (columns) of H + λI."""

    curvatures: Float[Any, " d"]
    vectors: Float[Any, "d d"]


class MinimumGaussian(NormalLaw):
    """A normal law of SGD with learning rate η, momentum β and weight decay λ near a minimum."""

    hessian: Float[Any, "d d"]
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]

    def modes(self) -> Modes:
        """Eigenvalues h (ascending) and eigenvectors of H + λI."""
        return eigenmodes(self.hessian, self.weight_decay)

    def directions(self) -> Float[Any, "d d"]:
        """The modes: eigenvectors of H + λI."""
        return np.asarray(self.modes().vectors)


@formula
def eigenmodes(hessian: Any, weight_decay: Any) -> Modes:
    """Eigenvalues (ascending) and eigenvectors of H + λI."""
    values, vectors = jnp.linalg.eigh(jnp.asarray(hessian))
    return Modes(values + weight_decay, vectors)


def join_blocks(params: Any, cross: Any, buffer: Any) -> Any:
    """The joint covariance from Cov θ, Cov(θ, m) and Cov m, in JAX."""
    return jnp.block([[params, cross], [cross.T, buffer]])
