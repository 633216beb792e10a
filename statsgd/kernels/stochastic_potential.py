"""Potentials that can be estimated from minibatches: of problems, and of subsampled models."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree
from numpyro.handlers import seed, substitute
from numpyro.infer.util import potential_energy
from numpyro.primitives import Messenger

from statsgd.dynamics.noise import Minibatch
from statsgd.problems import EmpiricalRisk


class StochasticPotential(eqx.Module):
    """A potential U with unbiased estimates of it, and of its gradient, from minibatches."""

    @abc.abstractmethod
    def __call__(self, position: PyTree) -> Float[Any, ""]:
        """U from all the data."""

    @abc.abstractmethod
    def batch(self, order: PRNGKeyArray, step: Int[Any, ""]) -> Any:
        """The minibatch of step `step` of the chain whose order of the data is `order`."""

    @abc.abstractmethod
    def on_batch(self, position: PyTree, batch: Any) -> Float[Any, ""]:
        """The estimate of U from one minibatch."""

    @property
    @abc.abstractmethod
    def batches(self) -> int:
        """Minibatches M = N/S in an epoch, rounded down."""


class RiskPotential(StochasticPotential):
    """U = N(L + λ|θ|²/2) − ln π of a problem with data; from a minibatch, L is the mean over it."""

    problem: EmpiricalRisk
    noise: Minibatch
    weight_decay: Float[Any, ""]
    log_prior: Callable[[PyTree], Float[Any, ""]] | None

    def __call__(self, position: PyTree) -> Float[Any, ""]:
        """U from all the data."""
        return self._total(self.problem.loss(position), position)

    def batch(self, order: PRNGKeyArray, step: Int[Any, ""]) -> PyTree:
        """The examples of step `step`."""
        return self.noise.batch(order, step, self.problem)

    def on_batch(self, position: PyTree, batch: PyTree) -> Float[Any, ""]:
        """The estimate of U from `batch`."""
        return self._total(self.problem.batch_loss(position, batch), position)

    @property
    def batches(self) -> int:
        """Minibatches M = N/S in an epoch."""
        return self.problem.num_examples // self.noise.batch_size

    def _total(self, loss: Float[Any, ""], position: PyTree) -> Float[Any, ""]:
        flat = self.problem.flatten(position)
        total = self.problem.num_examples * (loss + self.weight_decay * (flat @ flat) / 2)
        return total if self.log_prior is None else total - self.log_prior(position)


class PlatePotential(StochasticPotential):
    """−log density of a NumPyro model with subsampled plates; NumPyro scales them by N/S."""

    model: Callable
    model_args: tuple
    model_kwargs: dict
    noises: dict[str, Minibatch]
    sizes: dict[str, int] = eqx.field(static=True)

    def __call__(self, position: PyTree) -> Float[Any, ""]:
        """U from all the data."""
        return self._energy(WholePlates(self.model), position)

    def batch(self, order: PRNGKeyArray, step: Int[Any, ""]) -> dict[str, Any]:
        """The indices of every subsampled plate."""
        return {
            name: noise.indices(jax.random.fold_in(order, i), step, self.sizes[name])
            for i, (name, noise) in enumerate(self.noises.items())
        }

    def on_batch(self, position: PyTree, batch: dict[str, Any]) -> Float[Any, ""]:
        """The estimate of U from the indices `batch`."""
        return self._energy(substitute(self.model, data=batch), position)

    @property
    def batches(self) -> int:
        """Minibatches in an epoch. Raises `ValueError` if plates differ in it."""
        numbers = {self.sizes[n] // noise.batch_size for n, noise in self.noises.items()}
        if len(numbers) > 1:
            raise ValueError(
                f"subsampled plates must have the same number of minibatches for epochs, got "
                f"{sorted(numbers)}"
            )
        return numbers.pop()

    def _energy(self, model: Callable, position: PyTree) -> Float[Any, ""]:
        return potential_energy(
            seed(model, rng_seed=0), self.model_args, self.model_kwargs, position
        )


class WholePlates(Messenger):
    """Runs a model on all its data; keeps `sizes`, (N, S) of every plate that it subsamples."""

    def __init__(self, fn: Callable):
        super().__init__(fn)
        self.sizes: dict[str, tuple[int, int]] = {}

    def process_message(self, msg: Any) -> None:
        """Give a subsampled plate all its indices; refuse unknowns within one."""
        if msg["type"] == "plate":
            size, part = msg["args"]
            if part is not None and part != size:
                self.sizes[msg["name"]] = size, part
                msg["args"], msg["value"] = (size, size), jnp.arange(size)
        elif msg["type"] == "sample" and not msg["is_observed"]:
            inside = [f.name for f in msg["cond_indep_stack"] if f.name in self.sizes]
            if inside:
                raise ValueError(
                    f"unknowns must be outside a subsampled plate, got site {msg['name']!r} "
                    f"in plate {inside[0]!r}"
                )
