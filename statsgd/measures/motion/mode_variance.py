"""Variances along modes: shared equally with kinetic energy, and against those of a twin."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array, fraction, positive
from statsgd.estimate import Estimate
from statsgd.measures.runs.averages import jackknife


def equipartition(
    params: Float[Any, "replica k"],
    momentum_buffer: Float[Any, "replica k"],
    curvatures: Float[Any, " k"],
    learning_rate: Any,
    momentum: Any = 0.0,
) -> Estimate:
    """2h Var x/((1+β) η Var m) of every mode `(k,)`, from endpoints of independent replicas.

    One in a stationary state of heavy-ball SGD on a quadratic, in every mode, whatever the noise:
    ½h Var x = (1+β)/(4η) Var δ for the steps δ = −ηm. Flat modes that have not settled lie below.
    Errors are the jackknife's over replicas.

    **Arguments:** `params` and `momentum_buffer` along the modes, as `ModeLaw.project` gives;
    `curvatures` h, weight decay included. Raises `ValueError` for shapes that differ.

    Source: Yaida (2018), arXiv:1810.00004; mode by mode derived.

    >>> import numpy as np
    >>> rng, h = np.random.default_rng(0), np.array([1.0, 4.0])
    >>> x, m = (rng.normal(size=(4000, 2)) for _ in range(2))
    >>> equipartition(x * np.sqrt(0.1 / 2 / h), m, h, learning_rate=0.1).value.round(1)
    array([1., 1.])
    """
    x, m = _centred("params", params), _centred("momentum_buffer", momentum_buffer)
    _require_same("momentum_buffer", m, x)
    h = np.asarray(finite_array("curvatures", curvatures, ndim=1), dtype=np.float64)
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)

    def ratio(squares: Float[Any, "2 k"]) -> Float[Any, " k"]:
        return 2 * h * squares[0] / ((1 + beta) * eta * squares[1])

    return jackknife(ratio, np.stack([x**2, m**2], axis=1))


def paired_variance_ratio(
    params: Float[Any, "replica k"], twin: Float[Any, "replica k"]
) -> Estimate:
    """Var x/Var x' of every mode `(k,)`, of replicas and their twins on the same batches.

    Endpoints of real runs along the modes against those of `problems.linear_twin`, replica by
    replica: what both have in common drops out of the error, which is the jackknife's over pairs
    and far below that of either variance where the twin is near. Raises `ValueError` for shapes
    that differ.

    >>> import numpy as np
    >>> twins = np.random.default_rng(0).normal(size=(100, 2))
    >>> paired_variance_ratio(1.1 * twins, twins).value.round(2)
    array([1.21, 1.21])
    """
    real, linear = _centred("params", params), _centred("twin", twin)
    _require_same("twin", linear, real)
    squares = np.stack([real**2, linear**2], axis=1)
    return jackknife(lambda mean: mean[0] / mean[1], squares)


def _centred(name: str, values: Any) -> Float[np.ndarray, "replica k"]:
    array = np.asarray(finite_array(name, values, ndim=2), dtype=np.float64)
    return array - array.mean(axis=0)


def _require_same(name: str, values: Any, other: Any) -> None:
    if values.shape != other.shape:
        raise ValueError(f"{name} must have shape {other.shape}, got {values.shape}")
