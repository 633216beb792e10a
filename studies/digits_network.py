"""A two-layer network for handwritten digits with wrong labels, which several studies train.

scikit-learn's bundled digits (1797 images of 8 × 8 pixels), shrunk to 4 × 4 by averaging, so that
the network is small enough for exact Hessians and noise covariances at every step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

import statsgd
from statsgd.arguments import count, fraction
from statsgd.problems import EmpiricalRisk, multilayer_perceptron, perceptron

CLASSES = 10


class DigitsNetwork(NamedTuple):
    """The training problem, and the images it never sees."""

    problem: EmpiricalRisk
    """Cross entropy of a perceptron with tanh units on the training images and their labels."""
    corrupted: Bool[Any, " N"]
    """Which training labels are wrong."""
    test_inputs: Float[Any, "T 16"]
    test_labels: Int[Any, " T"]

    def test_accuracy(self, params: PyTree) -> Float[Any, ""]:
        """Share of the test images, whose labels are right, that the network names correctly."""
        outputs = jax.vmap(lambda x: perceptron(params, x, "tanh"))(jnp.asarray(self.test_inputs))
        return jnp.mean(jnp.argmax(outputs, axis=-1) == jnp.asarray(self.test_labels))


def digits_network(
    num_examples: int = 240, hidden: int = 6, corrupted: float = 0.2, seed: int = 0
) -> DigitsNetwork:
    """Split the digits, make labels wrong, and build the network.

    **Arguments:** `num_examples` N of training images, at most 1700; `hidden` units; `corrupted`,
    the share in [0, 1) of training labels replaced by a wrong one, drawn uniformly from the other
    nine; `seed` of split and labels (the start of the network has its own key).

    Inputs are centred on the training images, in units of full ink, times 2. Raises `ValueError`
    for numbers out of range.
    """
    from sklearn.datasets import load_digits

    size, share = count("num_examples", num_examples), float(fraction("corrupted", corrupted))
    images, labels = load_digits(return_X_y=True)
    if size > 1700:
        raise ValueError(f"num_examples must be at most 1700, so that some are left, got {size}")
    rng = np.random.default_rng(count("seed", seed, at_least=0))
    order = rng.permutation(len(images))
    shrunk = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) / 8
    train, test = order[:size], order[size:]
    centre = shrunk[train].mean(axis=0)
    wrong = np.zeros(size, dtype=bool)
    wrong[rng.choice(size, round(share * size), replace=False)] = True
    given = labels[train].copy()
    given[wrong] = (given[wrong] + rng.integers(1, CLASSES, wrong.sum())) % CLASSES
    problem = multilayer_perceptron(
        shrunk[train] - centre,
        given,
        [count("hidden", hidden)],
        activation="tanh",
        loss="cross_entropy",
        num_classes=CLASSES,
    )
    return DigitsNetwork(problem, wrong, shrunk[test] - centre, labels[test])


def full_batch_iterate(problem: EmpiricalRisk, learning_rate: float, steps: int, seed: int) -> Any:
    """Where full-batch gradient descent is after `steps` steps from the random start of `seed`."""
    descent = statsgd.SGD(learning_rate, statsgd.noise.NoNoise())
    run = statsgd.simulate(problem, descent, steps=steps, replicas=1, seed=seed, progress=False)
    end = run["endpoints"].to_dataset()
    leaves = [end[name].values[0] for name in problem.names]
    return jax.tree.unflatten(jax.tree.structure(problem.template), leaves)
