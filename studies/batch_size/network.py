"""The gap between small and large batches on a network for digits: sharpness and test accuracy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.measures import mean_over_clusters, over_replicas, trace
from statsgd.reports import Chart, Series
from studies.digits_network import DigitsNetwork, digits_network

KESKAR = "Keskar et al. (2017), arXiv:1609.04836"
HOFFER = "Hoffer, Hubara, Soudry (2017), arXiv:1705.08741"
GOYAL = "Goyal et al. (2017), arXiv:1706.02677; Dai, Zhu (2021), arXiv:2112.00987"
_DECAY = 0.001


class GapSettings(NamedTuple):
    """How the network is trained."""

    replicas: int
    epochs: int
    """Epochs of the small batch."""
    batch_sizes: tuple[int, int]
    """A small and a large one."""
    learning_rate: float
    descent: int
    """Steps of full-batch descent from the end of every run."""
    margin: float
    seed: int
    progress: bool


class Arm(NamedTuple):
    """One way of training, over its replicas; all arms have the same starts."""

    name: str
    steps: int
    loss: Float[Any, " replica"]
    """Training loss at the end."""
    sharpness: Float[Any, " replica"]
    """Tr H of the training loss there."""
    accuracy: Float[Any, " replica"]
    """On the images left out."""
    below: Float[Any, " replica"]
    """Tr H where full-batch descent leads from there."""

    def in_words(self) -> str:
        """Means over replicas."""
        return (
            f"{self.name}, {self.steps} steps: training loss {self.loss.mean():.3f}, Tr H "
            f"{self.sharpness.mean():.2f} ({self.below.mean():.2f} after descent), test accuracy "
            f"{self.accuracy.mean():.3f}."
        )


def network_gap_claims(settings: GapSettings) -> dict[str, xr.DataTree]:
    """Small against large batches: at equal epochs, at equal steps, and at equal η/S."""
    small, large = settings.batch_sizes
    arms = trained(settings)
    same_epochs, same_steps, scaled = (f"S = {large}, {how}" for how in _WAYS)
    reference = arms[f"S = {small}"]
    return {
        "sharp minima on digits": gap_claim(reference, arms[same_epochs], arms),
        "sharp minima at equal steps": sharpness_claim(reference, arms[same_steps], arms),
        "valleys of small and large batches": valley_claim(
            reference, arms[same_steps], settings.margin
        ),
        "training longer": longer_claim(reference, arms[same_steps], settings.margin),
        "linear scaling on digits": scaling_claim(reference, arms[scaled], settings.margin),
    }


_WAYS = ("same epochs", "same steps", "same epochs and η/S")


def trained(settings: GapSettings) -> dict[str, Arm]:
    """All arms, by name."""
    network = digits_network(seed=settings.seed)
    number, (small, large) = network.problem.num_examples, settings.batch_sizes
    rate = settings.learning_rate
    many = settings.epochs * number // small
    few = settings.epochs * number // large
    ways = [(few, rate), (many, rate), (few, rate * large / small)]
    plans = {f"S = {small}": (small, many, rate)}
    for way, (steps, chosen) in zip(_WAYS, ways, strict=True):
        plans[f"S = {large}, {way}"] = (large, steps, chosen)
    ends, losses = [], []
    for size, steps, chosen in plans.values():
        noise = statsgd.noise.Minibatch(size)
        tree = _simulated(network, statsgd.SGD(chosen, noise, 0.0, _DECAY), steps, settings)
        ends.append(_endpoints(network, tree))
        losses.append(tree["run"]["loss"].values)
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *ends)
    downhill = statsgd.SGD(0.3, statsgd.noise.NoNoise(), 0.9, _DECAY)
    lowered = _simulated(network, downhill, settings.descent, settings, start=together)
    places = jax.tree.map(
        lambda *leaves: np.concatenate(leaves), together, _endpoints(network, lowered)
    )
    sharpness = np.asarray(over_replicas(trace, network.problem, places).value)
    right = np.asarray(jax.vmap(network.test_accuracy)(together))
    shape = 2, len(plans), settings.replicas
    at_end, below = sharpness.reshape(shape)
    return {
        name: Arm(name, plan[1], *columns)
        for (name, plan), *columns in zip(
            plans.items(), losses, at_end, right.reshape(shape[1:]), below, strict=True
        )
    }


def _simulated(
    network: DigitsNetwork,
    sgd: statsgd.SGD,
    steps: int,
    settings: GapSettings,
    start: PyTree = None,
) -> xr.DataTree:
    replicas = settings.replicas if start is None else len(jax.tree.leaves(start)[0])
    return statsgd.simulate(
        network.problem, sgd, steps=steps, replicas=replicas, seed=settings.seed, start=start,
        progress=settings.progress, devices=jax.devices(), allow_unstable=True,
    )  # fmt: skip


def _endpoints(network: DigitsNetwork, tree: xr.DataTree) -> PyTree:
    end = tree["endpoints"].to_dataset()
    leaves = [end[leaf].values for leaf in network.problem.names]
    return jax.tree.unflatten(jax.tree.structure(network.problem.template), leaves)


def sharper(name: str, small: Any, large: Any, relation: str = ">", margin: float = 0.0):
    """log Tr H of large batches less that of small ones, run by run from the same starts."""
    found = mean_over_clusters(np.log(large / small))
    return Quantity(
        name, float(found.value), float(found.standard_error), 0.0, relation, margin
    )  # fmt: skip


def worse(small: Arm, large: Arm, relation: str = "<", margin: float = 0.0) -> Quantity:
    """Test accuracy of large batches less that of small ones."""
    found = mean_over_clusters(large.accuracy - small.accuracy)
    name = "test accuracy, large batches less small ones"
    return Quantity(name, float(found.value), float(found.standard_error), 0.0, relation, margin)


def gap_claim(small: Arm, large: Arm, arms: dict[str, Arm]) -> xr.DataTree:
    """The claim as it is usually put: at equal epochs."""
    claim = Claim(
        "After the same number of epochs large batches have found sharper minima than small ones, "
        "and generalise worse",
        KESKAR,
        [
            sharper("log Tr H, large batches less small ones", small.sharpness, large.sharpness),
            worse(small, large),
        ],
        f"From the same random starts. {small.in_words()} {large.in_words()} With equal epochs "
        "the large batch takes fewer steps, and its loss says how far it is from any minimum.",
    )
    return claim.to_datatree(
        Chart("Where training ended, run by run", "training loss", "Tr H (loss/params²)",
              tuple(Series(arm.name, arm.loss, arm.sharpness) for arm in arms.values())),
        Chart("Sharpness and test accuracy, run by run", "Tr H (loss/params²)", "test accuracy",
              tuple(Series(arm.name, arm.sharpness, arm.accuracy) for arm in arms.values())),
    )  # fmt: skip


def sharpness_claim(small: Arm, large: Arm, arms: dict[str, Arm]) -> xr.DataTree:
    """At equal steps, where SGD is when it ends."""
    claim = Claim(
        "After the same number of steps, too, large batches sit in sharper places",
        KESKAR,
        [sharper("log Tr H, large batches less small ones", small.sharpness, large.sharpness)],
        f"{small.in_words()} {large.in_words()}",
    )
    names = tuple(arms)
    values = [
        [mean_over_clusters(part) for part in (arm.sharpness, arm.below)] for arm in arms.values()
    ]
    chart = Chart(
        "Mean sharpness of every way of training", "", "Tr H (loss/params²)",
        tuple(
            Series(label, np.arange(len(names)), [float(v[i].value) for v in values],
                   [float(v[i].standard_error) for v in values])
            for i, label in enumerate(("at the end", "after full-batch descent"))
        ),
        names=names,
    )  # fmt: skip
    return claim.to_datatree(chart)


def valley_claim(small: Arm, large: Arm, margin: float) -> xr.DataTree:
    """At equal steps, after descent."""
    claim = Claim(
        "Noise keeps small batches in flatter places of the same valleys: full-batch descent from "
        "where either ended leads to minima that are equally sharp",
        "derived",
        [sharper("log Tr H after descent, large batches less small ones", small.below,
                 large.below, "=", 2 * margin)],
        f"{small.in_words()} {large.in_words()} Descent takes off what noise adds to the place, "
        "and leaves which valley it is in.",
    )  # fmt: skip
    return claim.to_datatree()


def longer_claim(small: Arm, large: Arm, margin: float) -> xr.DataTree:
    """Test accuracy at equal steps."""
    claim = Claim(
        "After the same number of steps large batches generalise as well as small ones: the gap "
        "is one of too few steps",
        HOFFER,
        [worse(small, large, "=", margin / 2)],
        f"{small.in_words()} {large.in_words()} The margin is a difference in accuracy.",
    )
    return claim.to_datatree()


def scaling_claim(small: Arm, large: Arm, margin: float) -> xr.DataTree:
    """Learning rate in proportion to the batch size."""
    claim = Claim(
        "With the learning rate in proportion to the batch size, large batches find places as flat "
        "and as good as small ones do",
        GOYAL,
        [
            sharper("log Tr H, large batches less small ones", small.sharpness, large.sharpness,
                    "=", margin),
            worse(small, large, "=", margin / 2),
        ],
        f"{small.in_words()} {large.in_words()}",
    )  # fmt: skip
    return claim.to_datatree()
