"""Networks for which laws of SGD are known, and the perceptron they are models of."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, finite_array, one_of, positive
from statsgd.problems.risk import EmpiricalRisk, empirical_risk
from statsgd.problems.start import Start, Trainable


class DiagonalLinearNetwork(EmpiricalRisk):
    """Mean of c (f x − y)² with slope f = Σᵢ Πⱼ uᵢⱼ; made by `diagonal_linear_network`."""

    loss_factor: float = eqx.field(static=True)
    width: int = eqx.field(static=True)
    num_layers: int = eqx.field(static=True)

    @property
    def inputs(self) -> Float[Any, " N"]:
        """Scalar inputs x."""
        return self.examples[0]

    @property
    def targets(self) -> Float[Any, " N"]:
        """Scalar targets y."""
        return self.examples[1]

    def slope(self, params: Float[Any, "M P"]) -> Float[Any, ""]:
        """The function the network computes, f = Σᵢ Πⱼ uᵢⱼ."""
        return slope(params)


def slope(params: Float[Any, "M P"]) -> Float[Any, ""]:
    """Σᵢ Πⱼ uᵢⱼ, without `prod`, whose gradient is slow."""
    product = params[:, 0]
    for layer in range(1, params.shape[1]):
        product = product * params[:, layer]
    return jnp.sum(product)


class _SlopeLoss(eqx.Module):
    factor: float = eqx.field(static=True)

    def __call__(self, params, example):
        x, y = example
        return self.factor * (slope(params) * x - y) ** 2


def diagonal_linear_network(
    inputs: Any,
    targets: Any,
    num_layers: int = 2,
    width: int = 1,
    initial_params: Any = None,
    *,
    loss_factor: Any = 1.0,
) -> DiagonalLinearNetwork:
    """Regression of y on one number x by a sum of `width` products of `num_layers` factors.

    The loss of an example is c (f x − y)² with f = Σᵢ Πⱼ uᵢⱼ and c = `loss_factor`: one, not one
    half, by default. Params are one array u of shape `(width, num_layers)`.

    **Arguments:** `inputs` and `targets` of shape `(N,)`; `initial_params` of shape
    `(width, num_layers)` or a function of a key, by default the balanced network of slope one.
    Zero factors are stuck: do not start there.

    Raises `ValueError` for ragged, empty, non-finite or mismatched arrays.

    >>> import numpy as np
    >>> diagonal_linear_network(np.ones(3), np.ones(3), num_layers=2).names
    ['params']
    """
    x, y = finite_array("inputs", inputs, ndim=1), finite_array("targets", targets, ndim=1)
    if x.shape != y.shape:
        raise ValueError(
            f"inputs and targets must have one shape (N,), got {x.shape} and {y.shape}"
        )
    shape = (count("width", width), count("num_layers", num_layers))
    factor = float(positive("loss_factor", loss_factor))
    balanced = np.full(shape, shape[0] ** (-1 / shape[1]))
    start = balanced if initial_params is None else initial_params
    plain = empirical_risk(_SlopeLoss(factor), (x, y), _shaped(start, shape))
    return DiagonalLinearNetwork(plain.examples, plain.per_example, plain.start, factor, *shape)


class LinearNetwork(EmpiricalRisk):
    """Mean of c |W_P … W₁ x − y|²; made by `linear_network`."""

    loss_factor: float = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)

    def product(self, params: PyTree) -> Float[Any, "k d"]:
        """The matrix W_P … W₁ the network computes."""
        weights = self.start.complete(params)["weights"]
        total = weights[0]
        for weight in weights[1:]:
            total = weight @ total
        return total


class _LinearNetworkLoss(eqx.Module):
    factor: float = eqx.field(static=True)

    def __call__(self, params, example):
        signal, y = example
        for weight in params["weights"]:
            signal = weight @ signal
        return self.factor * jnp.sum((signal - y) ** 2)


def linear_network(
    inputs: Any,
    targets: Any,
    hidden: Sequence[int],
    initial_params: Any = None,
    *,
    loss_factor: Any = 1.0,
    trainable: Trainable | None = None,
) -> LinearNetwork:
    """A deep linear network without biases: loss of an example c |W_P … W₁ x − y|².

    Params are `{"weights": [W₁, …, W_P]}`, W_i of shape `(widths[i], widths[i−1])`, W₁ next to the
    input.

    **Arguments:** `inputs` `(N, d)`, `targets` `(N, k)`; `hidden` the hidden widths, one less than
    there are layers; `initial_params` in the form above or a function of a key, by default
    Gaussian of variance 1/fan-in; `loss_factor` c, one by default; `trainable` as in
    `empirical_risk`, by names such as "weights.0".

    >>> import numpy as np
    >>> linear_network(np.eye(3), np.ones((3, 1)), hidden=[4]).dimension
    16
    """
    x, y = finite_array("inputs", inputs, ndim=2), finite_array("targets", targets, ndim=2)
    widths = (x.shape[1], *(count("hidden", width) for width in hidden), y.shape[1])
    factor = float(positive("loss_factor", loss_factor))
    start = _Dense(widths, biases=False) if initial_params is None else initial_params
    plain = empirical_risk(_LinearNetworkLoss(factor), (x, y), start, trainable=trainable)
    return LinearNetwork(plain.examples, plain.per_example, plain.start, factor, widths)


class _Dense(eqx.Module):
    """Random weights of variance 1/fan-in, zero biases."""

    widths: tuple[int, ...] = eqx.field(static=True)
    biases: bool = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> PyTree:
        keys = jax.random.split(key, len(self.widths) - 1)
        shapes = list(zip(self.widths[1:], self.widths[:-1], strict=True))
        params = {
            "weights": [
                jax.random.normal(k, shape) / np.sqrt(shape[1])
                for k, shape in zip(keys, shapes, strict=True)
            ]
        }
        if self.biases:
            params["biases"] = [jnp.zeros(shape[0]) for shape in shapes]
        return params


ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class _PerceptronLoss(eqx.Module):
    activation: str = eqx.field(static=True)
    loss: str = eqx.field(static=True)

    def __call__(self, params, example):
        x, y = example
        output = perceptron(params, x, self.activation)
        if self.loss == "squared":
            return jnp.sum((output - y) ** 2)
        return jax.nn.logsumexp(output) - output[y]


def perceptron(
    params: PyTree, inputs: Float[Any, " d"], activation: str = "relu"
) -> Float[Any, " k"]:
    """Output of the network `{"weights": […], "biases": […]}` for one input; biases may be left
    out. The last layer is linear.

    Raises `ValueError` for an input of another width, and for another `activation` than `"relu"`
    and `"tanh"`.

    >>> import numpy as np
    >>> params = {"weights": [np.eye(2), np.ones((1, 2))], "biases": [np.zeros(2), np.zeros(1)]}
    >>> perceptron(params, np.array([1.0, -2.0])).tolist()
    [1.0]
    """
    weights = params["weights"]
    one_of("activation", activation, ACTIVATIONS)
    signal = jnp.asarray(inputs)
    if signal.shape != (width := np.shape(weights[0])[1:]):
        raise ValueError(f"inputs must be of one example, of shape {width}, got {signal.shape}")
    for layer, weight in enumerate(weights):
        signal = weight @ signal
        if "biases" in params:
            signal = signal + params["biases"][layer]
        if layer < len(weights) - 1:
            signal = ACTIVATIONS[activation](signal)
    return signal


def multilayer_perceptron(
    inputs: Any,
    targets: Any,
    hidden: Sequence[int],
    initial_params: Any = None,
    *,
    activation: str = "relu",
    loss: str = "squared",
    biases: bool = True,
    num_classes: int | None = None,
    trainable: Trainable | None = None,
) -> EmpiricalRisk:
    """A fully connected network with ReLU or tanh units.

    Params are `{"weights": [W₁, …], "biases": [b₁, …]}`, W_i of shape `(outputs, inputs)`;
    `perceptron` evaluates them.

    **Arguments:**

    - `inputs` `(N, d)`; `targets` `(N, k)` or `(N,)` for `loss="squared"`, integer labels `(N,)`
      for `loss="cross_entropy"`.
    - `hidden`: widths of the hidden layers; empty for a linear model.
    - `initial_params`: in the form above or a function of a key; by default weights are Gaussian
      with variance 1/fan-in and biases zero.
    - `activation`: `"relu"` or `"tanh"`; `loss`: `"squared"`, |output − y|², or `"cross_entropy"`.
    - `biases`: whether the default start has biases.
    - `num_classes`: for cross entropy, by default the largest label plus one.
    - `trainable`: as in `empirical_risk`, by names such as "weights.0".

    >>> import numpy as np
    >>> multilayer_perceptron(np.eye(3), np.ones((3, 1)), hidden=[4]).dimension
    21
    """
    one_of("activation", activation, ACTIVATIONS)
    one_of("loss", loss, ("squared", "cross_entropy"))
    x = finite_array("inputs", inputs, ndim=2)
    if loss == "squared":
        y = finite_array("targets", targets)
        y = y[:, None] if y.ndim == 1 else finite_array("targets", y, ndim=2)
        outputs = y.shape[1]
    else:
        y, outputs = _labels(targets, num_classes)
    widths = (x.shape[1], *(count("hidden", width) for width in hidden), outputs)
    start = _Dense(widths, biases) if initial_params is None else initial_params
    return empirical_risk(_PerceptronLoss(activation, loss), (x, y), start, trainable=trainable)


def _labels(targets: Any, num_classes: int | None) -> tuple[np.ndarray, int]:
    labels = np.asarray(targets)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "targets must be a non-empty vector of integer labels for cross entropy, got shape "
            f"{labels.shape} and dtype {labels.dtype}"
        )
    highest = int(labels.max())
    classes = highest + 1 if num_classes is None else count("num_classes", num_classes)
    if labels.min() < 0 or highest >= classes:
        raise ValueError(
            f"targets must be labels in [0, {classes}), got {int(labels.min())} to {highest}"
        )
    return labels, classes


def _shaped(initial_params: Any, shape: tuple[int, ...]) -> Any:
    start = Start.of(initial_params)
    template = jax.eval_shape(start, jax.random.key(0))
    if getattr(template, "shape", None) != shape:
        raise ValueError(f"initial_params must have shape {shape}, got {template}")
    return initial_params
