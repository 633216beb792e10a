"""One classifier for several libraries: a perceptron with tanh, and the same one in PyTorch."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from statsgd.problems import EmpiricalRisk, empirical_risk

type Layers = dict[str, jax.Array]


def classification(
    inputs: np.ndarray, labels: np.ndarray, widths: Sequence[int]
) -> tuple[EmpiricalRisk, Layers]:
    """Cross-entropy over the examples, and weights drawn at the scale 1/√(inputs)."""
    examples = (inputs.astype(np.float32), labels.astype(np.int32))
    keys = jax.random.split(jax.random.key(0), len(widths) - 1)
    params: Layers = {}
    for i, (key, shape) in enumerate(zip(keys, itertools.pairwise(widths), strict=True)):
        weights = jax.random.normal(key, shape) / np.sqrt(shape[0])
        params |= {f"weights{i}": weights, f"bias{i}": jnp.zeros(shape[1])}
    last = len(widths) - 2

    def loss(params: Layers, example: Any) -> jax.Array:
        x, label = example
        for i in range(last):
            x = jnp.tanh(x @ params[f"weights{i}"] + params[f"bias{i}"])
        logits = x @ params[f"weights{last}"] + params[f"bias{last}"]
        return -jax.nn.log_softmax(logits)[label]

    return empirical_risk(loss, examples, params), params


def in_torch(problem: EmpiricalRisk, params: Layers) -> tuple[Any, Any, Any]:
    """The module with these weights, its inputs and its labels."""
    import torch

    modules: list[Any] = []
    for i in range(len(params) // 2):
        weights = torch.from_numpy(np.array(params[f"weights{i}"]).T)
        layer = torch.nn.Linear(*weights.shape[::-1])
        with torch.no_grad():
            layer.weight.copy_(weights)
            layer.bias.copy_(torch.from_numpy(np.array(params[f"bias{i}"])))
        modules += [layer, torch.nn.Tanh()]
    inputs, labels = (torch.from_numpy(np.array(leaf)) for leaf in problem.examples)
    return torch.nn.Sequential(*modules[:-1]), inputs, labels.long()
