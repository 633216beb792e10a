"""Where label noise takes an overparametrised linear model: a weighted basis pursuit."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog

from statsgd.arguments import finite_array


def weighted_basis_pursuit(inputs: Any, targets: Any) -> Float[Any, " d"]:
    """The b that minimises Σ_j ω_j|b_j| subject to Xb = y, with ω_j = mean_i x_ij².

    The endpoint of SGD with fresh label noise on the model x·(u∘u − v∘v) with squared loss:
    Tr H = 8Σ_j ω_j(u_j² + v_j²) on the valley of interpolating parameters, and label noise
    minimises it (`sharpness_flow`), whatever the size of the start. Time scale: 1/η² steps.

    **Arguments:** `inputs` X `(N, d)`, `targets` y `(N,)`. Returns the coefficient of x, `(d,)`.
    Raises `ValueError` if no b interpolates.

    Source: Li, Wang, Arora (2022), arXiv:2110.06914, for sparse recovery; the weights are derived.

    >>> import numpy as np
    >>> weighted_basis_pursuit(np.array([[1.0, 2.0]]), np.array([2.0])).round(4)
    array([2., 0.])
    """
    x = np.asarray(finite_array("inputs", inputs, ndim=2), dtype=np.float64)
    y = np.asarray(finite_array("targets", targets, ndim=1), dtype=np.float64)
    if len(x) != len(y):
        raise ValueError(f"inputs and targets must agree in N, got {len(x)} and {len(y)}")
    weights = np.mean(x**2, axis=0)
    result = linprog(np.concatenate([weights, weights]), A_eq=np.hstack([x, -x]), b_eq=y)
    if result.status != 0:
        raise ValueError(f"inputs and targets must be interpolated by some b: {result.message}")
    positive, negative = np.split(result.x, 2)
    return positive - negative
