"""A small classifier written in Equinox and in Flax, and images for it, as problems."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from statsgd.arguments import one_of
from statsgd.problems import (
    EmpiricalRisk,
    Images,
    empirical_risk,
    read_cifar10,
    read_mnist,
    read_svhn,
)

#: Pixels along a side that images are averaged to, at most.
_SIDE = 8


def images(dataset: str, folder: str, examples: int, seed: int) -> Images:
    """A random choice of `examples` images of one of `DATASETS`, whose files are in `folder`.

    Larger images are averaged over squares to at most 8 × 8 pixels, so that the matrices of the
    diagnosis stay small. Raises `ValueError` for more examples than there are, and as the readers
    of `statsgd.problems`.
    """
    pixels, labels = DATASETS[one_of("dataset", dataset, DATASETS)](folder)
    if len(labels) < examples:
        raise ValueError(f"examples must be at most {len(labels)}, got {examples}")
    chosen = np.random.default_rng(seed).permutation(len(labels))[:examples]
    return Images(averaged(pixels[chosen]), labels[chosen])


def _digits(_: str) -> Images:
    from sklearn.datasets import load_digits

    found = load_digits()
    return Images((found.images / 16).astype(np.float32), found.target.astype(np.int32))


#: What reads a data set from its folder: scikit-learn's digits come with it.
DATASETS: dict[str, Callable[[str], Images]] = {
    "digits": _digits,
    "mnist": read_mnist,
    "fashion_mnist": read_mnist,
    "cifar10": read_cifar10,
    "svhn": read_svhn,
}


def averaged(pixels: Any) -> Any:
    """Images `(n, height, width, …)` averaged over squares, to at most `_SIDE` pixels a side.

    Where a side is no multiple of the squares', those at its end are smaller.
    """
    for axis in (1, 2):
        length = pixels.shape[axis]
        edges = np.arange(0, length, -(-length // _SIDE))
        sums = np.moveaxis(np.add.reduceat(pixels, edges, axis=axis), axis, -1)
        pixels = np.moveaxis(sums / np.diff(edges, append=length), -1, axis)
    return pixels.astype(np.float32)


def cross_entropy(logits: Any, label: Any) -> Any:
    """−ln p(label)."""
    return -jax.nn.log_softmax(logits)[label]


def equinox_problem(data: Images, width: int, seed: int) -> EmpiricalRisk:
    """A perceptron of Equinox: the module itself holds the parameters."""
    import equinox as eqx

    inputs = data.images.reshape(len(data.labels), -1)
    key = jax.random.key(seed)
    model = eqx.nn.MLP(inputs.shape[1], 10, width, 1, jnp.tanh, key=key)
    return empirical_risk(_equinox_loss, (inputs, data.labels), model)


def _equinox_loss(model: Any, example: tuple[Any, Any]) -> Any:
    return cross_entropy(model(example[0]), example[1])


def flax_problem(data: Images, width: int, seed: int) -> EmpiricalRisk:
    """A perceptron of Flax (linen): parameters are a nested dictionary."""
    inputs = data.images.reshape(len(data.labels), -1)
    model, loss = _flax_perceptron(width)
    params = model.init(jax.random.key(seed), inputs[0])["params"]
    return empirical_risk(loss, (inputs, data.labels), params)


@functools.cache  # one loss for all data and weights: programs are compiled once
def _flax_perceptron(width: int) -> tuple[Any, Callable[[Any, tuple[Any, Any]], Any]]:
    from flax import linen

    class Perceptron(linen.Module):
        width: int

        @linen.compact
        def __call__(self, pixels):
            hidden = jnp.tanh(linen.Dense(self.width)(pixels))
            return linen.Dense(10)(hidden)

    model = Perceptron(width)

    def loss(params: Any, example: tuple[Any, Any]) -> Any:
        return cross_entropy(model.apply({"params": params}, example[0]), example[1])

    return model, loss


#: The same classifier as users of either library write it.
MODELS: dict[str, Callable[[Images, int, int], EmpiricalRisk]] = {
    "equinox": equinox_problem,
    "flax": flax_problem,
}
