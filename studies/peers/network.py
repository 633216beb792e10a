"""A network of two layers on the digits that scikit-learn brings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import empirical_risk
from studies.peers.optax_idiom import optax_idiom
from studies.peers.race import Runner
from studies.peers.simulated import simulated

_BATCH, _RATE = 32, 0.1


def contestants(replicas: int) -> dict[str, Runner]:
    """Ours, and the same Equinox model under optax."""
    inputs, labels = load_digits(return_X_y=True)
    examples = ((inputs / 16).astype(np.float32), labels.astype(np.int32))
    model = eqx.nn.MLP(64, 10, 32, 1, activation=jnp.tanh, key=jax.random.key(0))
    start, rest = eqx.partition(model, eqx.is_array)

    def loss(params, example):
        x, label = example
        return -jax.nn.log_softmax(eqx.combine(params, rest)(x))[label]

    problem = empirical_risk(loss, examples, start)
    return {
        "statsgd": simulated(problem, statsgd.SGD(_RATE, Minibatch(_BATCH)), replicas),
        "equinox, optax": optax_idiom(
            loss, examples, start, replicas=replicas, size=_BATCH, rate=_RATE
        ),
    }
