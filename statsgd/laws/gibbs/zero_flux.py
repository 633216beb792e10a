"""Whether a stationary law can be written with a potential: the test for zero probability flux."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array, kinds_checked
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

type Diffusion = Callable[[Float[Any, " d"]], Float[Any, "d d"]]

_TOLERANCE = 1e-6


@kinds_checked
def zero_flux_residual(problem: Problem, diffusion: Diffusion, params: Any) -> Float[Any, "d d"]:
    """∂_j w_i − ∂_i w_j of w = −D⁻¹(∇L + ∇·D) at flat `params`, by automatic differentiation.

    The stationary flux of dθ = −∇L dt + √(2D) dW vanishes iff w is a gradient, and then
    ∇log p = w. A non-zero residual means that no potential describes the law, even where the law
    itself is known (a quadratic with constant D has a Gaussian law all the same).

    **Arguments:** `diffusion`, a function of flat params giving D = ηC/2, positive definite and
    differentiable; `params` `(d,)`. Unit: 1/params². Source: derived.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> bowl = quadratic(np.diag([1.0, 2.0]))
    >>> zero_flux_residual(bowl, lambda x: jnp.diag(1 + x[::-1] ** 2), np.ones(2)).round(3)
    array([[ 0. , -0.5],
           [ 0.5,  0. ]])
    """
    return _residual(problem, diffusion, params)[0]


@kinds_checked
def require_zero_flux(problem: Problem, diffusion: Diffusion, params: Any) -> None:
    """Raise `ValueError` where `zero_flux_residual` is above 1e-6 of the Jacobian of w.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> bowl = quadratic(np.diag([1.0, 2.0]))
    >>> require_zero_flux(bowl, lambda x: jnp.eye(2), np.ones(2))  # says nothing
    >>> require_zero_flux(  # doctest: +ELLIPSIS
    ...     bowl, lambda x: jnp.diag(1 + x[::-1] ** 2), np.ones(2)
    ... )
    Traceback (most recent call last):
        ...
    ValueError: no potential: the stationary flux does not vanish, ...
    """
    residual, size = _residual(problem, diffusion, params)
    worst = float(np.max(np.abs(residual)))
    if worst > _TOLERANCE * size:
        raise ValueError(
            "no potential: the stationary flux does not vanish, max |curl| = "
            f"{worst:.6g} against a Jacobian of size {size:.6g}"
        )


def _residual(problem: Problem, diffusion: Diffusion, params: Any) -> tuple[np.ndarray, float]:
    flat = np.asarray(finite_array("params", params, ndim=1), dtype=np.float64)

    jacobian = in_double_precision(_score_jacobian, flat, problem, diffusion)
    return jacobian - jacobian.T, float(np.max(np.abs(jacobian)))


def _score_jacobian(params: Any, problem: Problem, diffusion: Diffusion) -> Any:
    def score(vector):
        slope = jax.grad(lambda v: problem.loss(problem.unflatten(v)))(vector)
        divergence = jnp.einsum("ijj->i", jax.jacfwd(diffusion)(vector))
        return -jnp.linalg.solve(diffusion(vector), slope + divergence)

    return jax.jacfwd(score)(params)
