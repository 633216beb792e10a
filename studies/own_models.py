"""A small classifier written in Equinox and in Flax, and images for it, as problems."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from statsgd.problems import EmpiricalRisk, Images, empirical_risk, read_mnist

_SIDE = 8  # pixels along a side that images are averaged to, at most


def images(data_dir: str, examples: int) -> Images:
    """The first `examples` images: scikit-learn's digits, or idx files in the folder `data_dir`.

    Larger images are averaged over squares to at most 8 × 8 pixels, so that the matrices of the
    diagnosis stay small. Raises `ValueError` for more examples than there are, and as `read_mnist`.
    """
    if data_dir:
        pixels, labels = read_mnist(Path(data_dir))
    else:
        from sklearn.datasets import load_digits

        found = load_digits()
        pixels, labels = (found.images / 16).astype(np.float32), found.target.astype(np.int32)
    if len(labels) < examples:
        raise ValueError(f"examples must be at most {len(labels)}, got {examples}")
    return Images(shrunk(pixels[:examples]), labels[:examples])


def shrunk(pixels: Any) -> Any:
    """Grey images averaged over equal squares, to at most `_SIDE` pixels a side."""
    number, height, width = pixels.shape
    factor = next(f for f in range(1, height + 1) if height % f == 0 and height // f <= _SIDE)
    if width % factor:
        raise ValueError(f"images must be divisible into squares of {factor} pixels, got {width}")
    squares = pixels.reshape(number, height // factor, factor, width // factor, factor)
    return squares.mean(axis=(2, 4))


def cross_entropy(logits: Any, label: Any) -> Any:
    """−ln p(label)."""
    return -jax.nn.log_softmax(logits)[label]


def equinox_problem(data: Images, width: int, seed: int) -> EmpiricalRisk:
    """A perceptron of Equinox: the module itself holds the parameters."""
    import equinox as eqx

    inputs = data.images.reshape(len(data.labels), -1)
    key = jax.random.key(seed)
    model = eqx.nn.MLP(inputs.shape[1], 10, width, 1, jnp.tanh, key=key)

    def loss(model, example):
        return cross_entropy(model(example[0]), example[1])

    return empirical_risk(loss, (inputs, data.labels), model)


def flax_problem(data: Images, width: int, seed: int) -> EmpiricalRisk:
    """A perceptron of Flax (linen): parameters are a nested dictionary."""
    from flax import linen

    class Perceptron(linen.Module):
        width: int

        @linen.compact
        def __call__(self, pixels):
            return linen.Dense(10)(jnp.tanh(linen.Dense(self.width)(pixels)))

    inputs = data.images.reshape(len(data.labels), -1)
    model = Perceptron(width)
    params = model.init(jax.random.key(seed), inputs[0])["params"]

    def loss(params, example):
        return cross_entropy(model.apply({"params": params}, example[0]), example[1])

    return empirical_risk(loss, (inputs, data.labels), params)


#: The same classifier as users of either library write it.
MODELS: dict[str, Callable[[Images, int, int], EmpiricalRisk]] = {
    "equinox": equinox_problem,
    "flax": flax_problem,
}
