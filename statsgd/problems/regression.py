"""Linear regression: the problem on which laws of SGD can be computed exactly."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from statsgd.arguments import finite_array
from statsgd.problems.risk import EmpiricalRisk
from statsgd.problems.start import Start

type Regression = tuple[Float[Any, "S d"], Float[Any, " S"]]

_LANES = 16  # running sums of a dot product: two registers full of single-precision numbers
#: Numbers up to which rows stay as they are, and the width that longer ones have at least: XLA's
#: program for two to four vectors of `_LANES` is slower than that for five (at d = 48 by 1.8).
_SHORT, _LEAST = 24, 80


class LinearRegression(EmpiricalRisk):
    """Mean of ½(x·θ − y)² over a data set; made by `linear_regression`."""

    rows: Float[Any, "N width"]
    """The inputs, filled up with zeros to a width at which a row is quickly worked on."""

    @property
    def without_examples(self) -> "LinearRegression":
        """The same without its data."""
        return eqx.tree_at(lambda problem: (problem.examples, problem.rows), self, (None, None))

    @property
    def inputs(self) -> Float[Any, "N d"]:
        """Rows x of the design matrix."""
        return self.examples[0]

    @property
    def targets(self) -> Float[Any, " N"]:
        """Targets y."""
        return self.examples[1]

    def batch_gradient(self, params: Float[Any, " d"], batch: Regression) -> Float[Any, " d"]:
        """Gradient of the mean loss over `batch`."""
        inputs, targets = batch
        return (inputs @ params - targets) @ inputs / targets.shape[0]

    def minibatch_gradient(
        self, params: Float[Any, " d"], indices: Int[Any, " S"]
    ) -> Float[Any, " d"]:
        """Gradient of the mean loss over the examples at `indices`, fetched one after the other.

        Under `vmap` over replicas a loop over rows, each fetched and used in one pass, beats
        gathering the minibatch and multiplying matrices, which are small and batched then.
        """
        rows, targets = jnp.asarray(self.rows), jnp.asarray(self.targets)
        d = params.shape[0]
        params = jnp.pad(params, (0, rows.shape[1] - d))

        def accumulate(total, index):
            x = rows.at[index].get(mode="promise_in_bounds")
            y = targets.at[index].get(mode="promise_in_bounds")
            return total + (_sum(x * params) - y) * x, None

        total, _ = jax.lax.scan(accumulate, jnp.zeros_like(params), indices)
        return total[:d] / indices.shape[0]

    def hessian_matrix(self) -> Float[Any, "d d"]:
        """XᵀX/N in double precision, the same at every θ."""
        x = np.asarray(self.inputs, dtype=np.float64)
        return x.T @ x / x.shape[0]

    def minimiser(self, weight_decay: float = 0.0) -> Float[Any, " d"]:
        """The minimum-norm minimiser of the loss plus (λ/2)|θ|², in double precision."""
        x = np.asarray(self.inputs, dtype=np.float64)
        y = np.asarray(self.targets, dtype=np.float64)
        matrix = self.hessian_matrix() + weight_decay * np.eye(x.shape[1])
        return np.linalg.lstsq(matrix, x.T @ y / x.shape[0], rcond=None)[0]


def linear_regression(inputs: Any, targets: Any, initial_params: Any = None) -> LinearRegression:
    """Least squares ½(x·θ − y)² per example, no intercept, params a flat `(d,)` array.

    **Arguments:** `inputs` of shape `(N, d)`, `targets` of shape `(N,)`, `initial_params` of shape
    `(d,)` (zeros if not given) or a function of a key.

    Raises `ValueError` for ragged, empty, non-finite or mismatched arrays.

    Parameters are float32, or float64 under JAX's `jax_enable_x64`.

    >>> import numpy as np
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> float(problem.loss(np.zeros(2)))
    2.5
    """
    x = finite_array("inputs", inputs, ndim=2)
    y = finite_array("targets", targets, ndim=1)
    if x.shape[0] != y.shape[0] or x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(
            "inputs and targets must have one common, non-empty leading axis, got shapes "
            f"{x.shape} and {y.shape}"
        )
    start = Start.of(np.zeros(x.shape[1]) if initial_params is None else initial_params)
    problem = LinearRegression((x, y), _half_squared_residual, start, _rows(x))
    shape = jax.tree.map(lambda leaf: leaf.shape, problem.template)
    if shape != (x.shape[1],):
        raise ValueError(f"initial_params must have shape ({x.shape[1]},), got {shape}")
    return problem


def _rows(inputs):
    width = inputs.shape[1]
    wanted = max(_LEAST, width + -width % _LANES) if width > _SHORT else width
    return np.pad(inputs, ((0, 0), (0, wanted - width)))


def _sum(terms: Float[Any, " d"]) -> Float[Any, ""]:
    """The sum of `terms`, in `_LANES` running sums at once where their number allows.

    XLA adds along an axis strictly one after the other, which leaves a core waiting for itself.
    """
    d = terms.shape[0]
    if d % _LANES or d < 2 * _LANES:
        return jnp.sum(terms)
    return jnp.sum(sum(jnp.split(terms, d // _LANES)[1:], start=terms[:_LANES]))


def _half_squared_residual(params, example):
    x, y = example
    return 0.5 * (x @ params - y) ** 2
