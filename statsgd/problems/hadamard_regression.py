"""Linear regression whose coefficients are products: the diagonal network of many inputs."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import finite_array
from statsgd.problems.risk import EmpiricalRisk
from statsgd.problems.start import Start


class HadamardRegression(EmpiricalRisk):
    """Mean of ½(x·(u∘v) − y)² over a data set; made by `hadamard_regression`."""

    @property
    def inputs(self) -> Float[Any, "N d"]:
        """Rows x of the design matrix."""
        return self.examples[0]

    @property
    def targets(self) -> Float[Any, " N"]:
        """Targets y."""
        return self.examples[1]

    def coefficients(self, params: PyTree) -> Float[Any, "... d"]:
        """The linear predictor u∘v that the network computes."""
        return params["u"] * params["v"]


def hadamard_regression(
    inputs: Any, targets: Any, initial_params: Any = None
) -> HadamardRegression:
    """Least squares ½(x·(u∘v) − y)² per example with params `{"u": (d,), "v": (d,)}`.

    **Arguments:** `inputs` `(N, d)`, `targets` `(N,)`, `initial_params` such a mapping or a
    function of a key that returns one; by default u = 0.1 and v = 0.

    Raises `ValueError` for ragged, empty, non-finite or mismatched arrays.

    >>> import numpy as np
    >>> hadamard_regression(np.eye(2), np.ones(2)).dimension
    4
    """
    x = finite_array("inputs", inputs, ndim=2)
    y = finite_array("targets", targets, ndim=1)
    if x.shape[0] != y.shape[0] or x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(
            "inputs and targets must have one common, non-empty leading axis, got shapes "
            f"{x.shape} and {y.shape}"
        )
    d = x.shape[1]
    if initial_params is None:
        initial_params = {"u": np.full(d, 0.1), "v": np.zeros(d)}
    problem = HadamardRegression((x, y), _half_squared_residual, Start.of(initial_params))
    template = problem.template
    shapes = (
        {name: leaf.shape for name, leaf in template.items()}
        if (isinstance(template, dict))
        else template
    )
    if shapes != {"u": (d,), "v": (d,)}:
        raise ValueError(f"initial_params must be u and v of shape ({d},), got {shapes}")
    return problem


def _half_squared_residual(params, example):
    x, y = example
    return 0.5 * (jnp.dot(x, params["u"] * params["v"]) - y) ** 2
