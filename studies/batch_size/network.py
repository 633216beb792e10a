"""The gap between small and large batches on a network for digits: sharpness and test accuracy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.measures import mean_over_clusters, over_replicas, trace
from statsgd.reports import Chart, Series
from studies.digits_network import DigitsNetwork, digits_network
from studies.measured import claimed, over_data_sets, unit

KESKAR = "Keskar et al. (2017), arXiv:1609.04836"
HOFFER = "Hoffer, Hubara, Soudry (2017), arXiv:1705.08741"
GOYAL = "Goyal et al. (2017), arXiv:1706.02677; Dai, Zhu (2021), arXiv:2112.00987"
_DECAY = 0.001


class GapSettings(NamedTuple):
    """How the network is trained."""

    splits: int
    """Splits of the digits, each with labels and starts of its own."""
    replicas: int
    """Runs on each of them."""
    epochs: int
    """Epochs of the small batch."""
    batch_sizes: tuple[int, int]
    """A small and a large one."""
    learning_rates: tuple[float, ...]
    """Every claim is judged at all of them: what budgets show depends on the learning rate."""
    descent: int
    """Steps of full-batch descent from the end of every run."""
    margin: float
    seed: int
    progress: bool


class Arm(NamedTuple):
    """One way of training, by data set and replica; all arms have the same starts."""

    name: str
    steps: int
    loss: Float[Any, "split replica"]
    """Training loss at the end."""
    sharpness: Float[Any, "split replica"]
    """Tr H of the training loss there."""
    accuracy: Float[Any, "split replica"]
    """On the images left out."""
    below: Float[Any, "split replica"]
    """Tr H where full-batch descent leads from there."""

    def in_words(self) -> str:
        """Means over replicas."""
        return (
            f"{self.name}, {self.steps} steps: training loss {self.loss.mean():.3f}, Tr H "
            f"{self.sharpness.mean():.2f} ({self.below.mean():.2f} after descent), test accuracy "
            f"{self.accuracy.mean():.3f}."
        )


class Pair(NamedTuple):
    """Small and large batches trained alike but for one thing, at one learning rate."""

    learning_rate: float
    small: Arm
    large: Arm

    def in_words(self) -> str:
        """Means over replicas."""
        return f"η = {self.learning_rate:g}: {self.small.in_words()} {self.large.in_words()}"

    def sharper(self, relation: str, margin: float = 0.0) -> Quantity:
        """log Tr H of large batches less that of small ones, from the same starts."""
        difference = np.log(self.large.sharpness / self.small.sharpness)
        return self._difference("log Tr H", difference, relation, margin)

    def mostly_lost(self) -> Quantity:
        """log Tr H as in `sharper`, after descent less half of it before: below zero if lost."""
        before = np.log(self.large.sharpness / self.small.sharpness)
        after = np.log(self.large.below / self.small.below)
        return self._difference("log Tr H after descent less half of that before",
                                after - before / 2, "<", 0.0)  # fmt: skip

    def better(self, relation: str, margin: float = 0.0) -> Quantity:
        """Test accuracy of large batches less that of small ones."""
        difference = self.large.accuracy - self.small.accuracy
        return self._difference("test accuracy", difference, relation, margin)

    def _difference(
        self, name: str, values: Float[Any, "split replica"], relation: str, margin: float
    ) -> Quantity:
        found = over_data_sets([mean_over_clusters(one) for one in values])
        title = f"{name}, large less small, η = {self.learning_rate:g}"
        return claimed(title, found, relation, 0.0, margin)


def network_gap_claims(settings: GapSettings) -> dict[str, xr.DataTree]:
    """Small against large batches: at equal epochs, at equal steps, and at equal η/S."""
    small, large = settings.batch_sizes
    trials = {rate: trained(settings, rate) for rate in settings.learning_rates}
    epochs, steps, scaled = (
        [
            Pair(rate, arms[f"S = {small}"], arms[f"S = {large}, {way}"])
            for rate, arms in trials.items()
        ]
        for way in _WAYS
    )
    margin = settings.margin
    return {
        "sharp minima on digits": gap_claim(epochs, trials),
        "sharp minima at equal steps": sharpness_claim(steps, trials),
        "valleys of small and large batches": valley_claim(steps),
        "training longer": longer_claim(steps, margin),
        "linear scaling on digits": scaling_claim(scaled, margin),
    }


_WAYS = ("same epochs", "same steps", "same epochs and η/S")


def trained(settings: GapSettings, rate: float) -> dict[str, Arm]:
    """All arms at the learning rate `rate` of the small batch, by name, on every split."""
    splits = [
        trained_on(settings._replace(seed=settings.seed + index), rate)
        for index in range(settings.splits)
    ]
    return {
        name: Arm(name, arm.steps, *(
            np.stack([getattr(arms[name], field) for arms in splits])
            for field in ("loss", "sharpness", "accuracy", "below")
        ))
        for name, arm in splits[0].items()
    }  # fmt: skip


class Trained(NamedTuple):
    """One arm on one split, by replica."""

    steps: int
    loss: Float[Any, " replica"]
    sharpness: Float[Any, " replica"]
    accuracy: Float[Any, " replica"]
    below: Float[Any, " replica"]


def trained_on(settings: GapSettings, rate: float) -> dict[str, Trained]:
    """All arms on the split of `settings.seed`."""
    network = digits_network(seed=settings.seed)
    number, (small, large) = network.problem.num_examples, settings.batch_sizes
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
        name: Trained(plan[1], *columns)
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


def in_words(pairs: list[Pair]) -> str:
    """Means of all pairs."""
    return " ".join(pair.in_words() for pair in pairs)


def gap_claim(pairs: list[Pair], trials: dict[float, dict[str, Arm]]) -> xr.DataTree:
    """The claim as it is usually put: at equal epochs."""
    claim = Claim(
        "After the same number of epochs large batches have found sharper minima than small ones, "
        "and generalise worse",
        KESKAR,
        [q for pair in pairs for q in (pair.sharper(">"), pair.better("<"))],
        f"From the same random starts. {in_words(pairs)} With equal epochs the large batch takes "
        "fewer steps, and its loss says how far it is from any minimum: what is found depends on "
        "the budget and on the learning rate.",
        origin="reading",
        place="abstract, read at equal epochs: the source trains to convergence",
        data_sets=len(pairs[0].small.loss),
        unit=unit(len(pairs[0].small.loss)),
    )
    charts = [
        Chart(f"Where training ended, η = {rate:g}, run by run", "training loss",
              "Tr H (loss/params²)",
              tuple(Series(arm.name, arm.loss.ravel(), arm.sharpness.ravel())
                    for arm in arms.values()))
        for rate, arms in trials.items()
    ]  # fmt: skip
    return claim.to_datatree(*charts)


def sharpness_claim(pairs: list[Pair], trials: dict[float, dict[str, Arm]]) -> xr.DataTree:
    """At equal steps, where SGD is when it ends."""
    claim = Claim(
        "After the same number of steps, too, large batches sit in sharper places",
        KESKAR,
        [pair.sharper(">") for pair in pairs],
        in_words(pairs),
        origin="reading",
        place="abstract, read at equal steps: the source trains to convergence",
        data_sets=len(pairs[0].small.loss),
        unit=unit(len(pairs[0].small.loss)),
    )
    names = tuple(next(iter(trials.values())))
    charts = []
    for rate, arms in trials.items():
        ends = {
            "at the end": [_mean(arm.sharpness) for arm in arms.values()],
            "after descent": [_mean(arm.below) for arm in arms.values()],
        }
        series = [
            Series(label, np.arange(len(names)), [float(one.value) for one in found],
                   [float(one.standard_error) for one in found])
            for label, found in ends.items()
        ]  # fmt: skip
        charts.append(
            Chart(f"Mean sharpness, η = {rate:g}", "", "Tr H (loss/params²)", tuple(series),
                  names=names)
        )  # fmt: skip
    return claim.to_datatree(*charts)


def _mean(values: Float[Any, "split replica"]) -> Estimate:
    return over_data_sets([mean_over_clusters(one) for one in values])


def valley_claim(pairs: list[Pair]) -> xr.DataTree:
    """At equal steps, after descent."""
    claim = Claim(
        "Noise keeps small batches in flatter places of the same valleys: full-batch descent from "
        "where either ended takes off most of their difference in sharpness",
        "derived",
        [pair.mostly_lost() for pair in pairs],
        f"{in_words(pairs)} Descent takes off what noise adds to the place, and leaves which "
        "valley it is in.",
        origin="derived",
        data_sets=len(pairs[0].small.loss),
        unit=unit(len(pairs[0].small.loss)),
    )
    return claim.to_datatree()


def longer_claim(pairs: list[Pair], margin: float) -> xr.DataTree:
    """Test accuracy at equal steps."""
    claim = Claim(
        "After the same number of steps large batches generalise as well as small ones: the gap "
        "is one of too few steps",
        HOFFER,
        [pair.better("=", margin / 2) for pair in pairs],
        f"{in_words(pairs)} The margin is a difference in accuracy.",
        origin="source",
        place="abstract: train longer",
        data_sets=len(pairs[0].small.loss),
        unit=unit(len(pairs[0].small.loss)),
    )
    return claim.to_datatree()


def scaling_claim(pairs: list[Pair], margin: float) -> xr.DataTree:
    """Learning rate in proportion to the batch size."""
    claim = Claim(
        "With the learning rate in proportion to the batch size, large batches find places as flat "
        "and as good as small ones do",
        GOYAL,
        [q for pair in pairs for q in (pair.sharper("=", margin), pair.better("=", margin / 2))],
        f"{in_words(pairs)} The learning rates are those of the small batch; the larger they are, "
        "the sooner the product of step and curvature is no longer small for the large one.",
        origin="extension",
        place="the linear scaling rule, extended to flatness",
        data_sets=len(pairs[0].small.loss),
        unit=unit(len(pairs[0].small.loss)),
    )
    return claim.to_datatree()
