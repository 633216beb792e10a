"""A small network with params of several leaves, its data, and an ensemble of it."""

import jax.numpy as jnp
import numpy as np

from statsgd import problems

_rng = np.random.default_rng(3)
INPUTS = _rng.normal(size=(12, 3))
TARGETS = _rng.normal(size=12)
# Numbers that single precision holds exactly.
PARAMS = {
    name: _rng.normal(size=shape).astype(np.float32).astype(np.float64)
    for name, shape in (("hidden", (3, 2)), ("bias", 2), ("out", 2))
}


def output(params, example):
    """A network with two hidden units."""
    return jnp.tanh(example[0] @ params["hidden"] + params["bias"]) @ params["out"]


def square_loss(value, example):
    """½e²."""
    return 0.5 * (value - example[1]) ** 2


def residual(params, example):
    """e."""
    return output(params, example) - example[1]


def network():
    """Its square loss on 12 examples, ten parameters in three leaves."""
    return problems.empirical_risk(
        lambda params, example: square_loss(output(params, example), example),
        (INPUTS, TARGETS),
        PARAMS,
    )


def interpolating():
    """The same with targets that the params fit exactly."""
    fitted = np.tanh(INPUTS @ PARAMS["hidden"] + PARAMS["bias"]) @ PARAMS["out"]
    return problems.empirical_risk(
        lambda params, example: square_loss(output(params, example), example),
        (INPUTS, fitted),
        PARAMS,
    )
