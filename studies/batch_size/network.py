"""The gap between small and large batches on a network for digits: sharpness and test accuracy."""

from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.measures import Measured, mean_over_clusters, over_endpoints, trace
from statsgd.reports import Chart, Series
from studies.digits_network import digits_network

KESKAR = "Keskar et al. (2017), arXiv:1609.04836; Dai, Zhu (2018), arXiv:1812.00542"


class Arm(NamedTuple):
    """One way of training, over its replicas."""

    name: str
    sharpness: np.ndarray
    """Tr H of the training loss at every endpoint."""
    accuracy: np.ndarray
    """On the images left out."""
    loss: np.ndarray
    """Training loss."""


def network_gap_claims(
    *, replicas: int, epochs: int, batch_sizes: tuple[int, int], learning_rate: float,
    margin: float, seed: int, progress: bool,
) -> dict[str, xr.DataTree]:  # fmt: skip
    """Small against large batches: at equal epochs, at equal steps, and at equal η/S."""
    network = digits_network(corrupted=0.0, seed=seed)
    small, large = batch_sizes
    number = network.problem.num_examples
    few, many = epochs * number // large, epochs * number // small

    def train(name: str, size: int, rate: float, steps: int) -> Arm:
        tree = statsgd.simulate(
            network.problem, statsgd.SGD(rate, statsgd.noise.Minibatch(size)), steps=steps,
            replicas=replicas, seed=seed, progress=progress, devices=jax.devices(),
        )  # fmt: skip
        curvature = over_endpoints(trace, network.problem, tree)
        names = list(curvature.data_vars)
        value = next(n for n in names if "value" in n) if len(names) > 1 else names[0]
        leaves = [tree["endpoints"][leaf].values for leaf in network.problem.names]
        params = jax.tree.unflatten(jax.tree.structure(network.problem.template), leaves)
        right = jax.vmap(network.test_accuracy)(params)
        return Arm(name, curvature[value].values, np.asarray(right), tree["run"]["loss"].values)

    arms = [
        train(f"S = {small}", small, learning_rate, many),
        train(f"S = {large}, same epochs", large, learning_rate, few),
        train(f"S = {large}, same steps", large, learning_rate, many),
        train(f"S = {large}, same epochs and η/S", large, learning_rate * large / small, few),
    ]
    return {
        "sharp minima on digits": gap_claim(arms[:2], arms, epochs),
        "sharp minima at equal steps": steps_claim(arms),
        "linear scaling on digits": scaling_claim(arms, margin),
    }


def ratio(arm: Arm, reference: Arm) -> Measured:
    """Sharpness over that of `reference`, from the same starts, on a logarithmic scale."""
    return mean_over_clusters(np.log(arm.sharpness / reference.sharpness))


def gap_claim(pair: list[Arm], arms: list[Arm], epochs: int) -> xr.DataTree:
    """The claim as it is usually put: at equal epochs."""
    small, large = pair
    curved = ratio(large, small)
    worse = mean_over_clusters(large.accuracy - small.accuracy)
    claim = Claim(
        "After the same number of epochs large batches have found sharper minima than small ones, "
        "and generalise worse",
        KESKAR,
        [
            Quantity("log Tr H, large batches less small ones", float(curved.value),
                     float(curved.standard_error), 0.0, ">"),
            Quantity("test accuracy, large batches less small ones", float(worse.value),
                     float(worse.standard_error), 0.0, "<"),
        ],
        f"{epochs} epochs from the same random starts. Mean training loss "
        f"{small.loss.mean():.4f} ({small.name}) and {large.loss.mean():.4f} ({large.name}); Tr H "
        f"{small.sharpness.mean():.2f} and {large.sharpness.mean():.2f}; test accuracy "
        f"{small.accuracy.mean():.3f} and {large.accuracy.mean():.3f}. With equal epochs the "
        "large batch takes fewer steps, and its loss says how far it is from any minimum.",
    )  # fmt: skip
    return claim.to_datatree(*arm_charts(arms))


def steps_claim(arms: list[Arm]) -> xr.DataTree:
    """At equal steps both have had the same time to converge."""
    small, _, large, _ = arms
    curved = ratio(large, small)
    worse = mean_over_clusters(large.accuracy - small.accuracy)
    claim = Claim(
        "After the same number of steps, too, large batches sit in sharper minima, which "
        "generalise worse",
        KESKAR,
        [
            Quantity("log Tr H, large batches less small ones", float(curved.value),
                     float(curved.standard_error), 0.0, ">"),
            Quantity("test accuracy, large batches less small ones", float(worse.value),
                     float(worse.standard_error), 0.0, "<"),
        ],
        f"Mean training loss {small.loss.mean():.4f} ({small.name}) and {large.loss.mean():.4f} "
        f"({large.name}); Tr H {small.sharpness.mean():.2f} and {large.sharpness.mean():.2f}; "
        f"test accuracy {small.accuracy.mean():.3f} and {large.accuracy.mean():.3f}.",
    )  # fmt: skip
    return claim.to_datatree()


def scaling_claim(arms: list[Arm], margin: float) -> xr.DataTree:
    """Learning rate in proportion to the batch size."""
    small, _, _, large = arms
    curved = ratio(large, small)
    worse = mean_over_clusters(large.accuracy - small.accuracy)
    claim = Claim(
        "With the learning rate in proportion to the batch size, large batches find minima as flat "
        "and as good as small ones do",
        "Dai, Zhu (2021), arXiv:2112.00987",
        [
            Quantity("log Tr H, large batches less small ones", float(curved.value),
                     float(curved.standard_error), 0.0, margin=3 * margin),
            Quantity("test accuracy, large batches less small ones", float(worse.value),
                     float(worse.standard_error), 0.0, margin=margin / 2),
        ],
        f"Mean training loss {small.loss.mean():.4f} and {large.loss.mean():.4f}; Tr H "
        f"{small.sharpness.mean():.2f} and {large.sharpness.mean():.2f}; test accuracy "
        f"{small.accuracy.mean():.3f} and {large.accuracy.mean():.3f}.",
    )  # fmt: skip
    return claim.to_datatree()


def arm_charts(arms: list[Arm]) -> list[Chart]:
    """Sharpness against training loss, and against test accuracy, run by run."""
    return [
        Chart("Where training ended, run by run", "training loss", "Tr H (loss/params²)",
              tuple(Series(arm.name, arm.loss, arm.sharpness) for arm in arms), log="xy"),
        Chart("Sharpness and test accuracy, run by run", "Tr H (loss/params²)", "test accuracy",
              tuple(Series(arm.name, arm.sharpness, arm.accuracy) for arm in arms), log="x"),
    ]  # fmt: skip
