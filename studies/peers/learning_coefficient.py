"""The local learning coefficient of one small network, by chains of the same settings.

A perceptron of 64, 32 and 10 units on the digits that scikit-learn brings, d = 2410, after plain
SGD. Chains, minibatches, localization, temperature and step size are the same; the peer's
learning rate is twice our step size. Ours runs a second ensemble at half of it for the same time,
and so takes three gradients where the peer takes one, in double precision where it is in single.
"""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import statsgd
from statsgd.measures import local_learning_coefficient
from statsgd.noise import Minibatch
from statsgd.problems import EmpiricalRisk
from studies.peers.perceptron import Layers, classification, in_torch

type Coefficient = Callable[[int], tuple[float, float]]
"""For a seed: the value, and its standard error."""


class Contestant(NamedTuple):
    """One library's estimate, and what it takes for a step of a chain."""

    run: Coefficient
    gradients: int
    precision: str


CHAINS, STEPS, BURN_IN, BATCH = 4, 1000, 1000, 64
_STEP_SIZE, _LOCALIZATION, _WIDTHS = 5e-6, 1000.0, (64, 32, 10)


def contestants() -> dict[str, Contestant]:
    """Ours, and devinterp's where it is installed."""
    problem, params = trained()
    found = {"statsgd": Contestant(_ours(problem, params), 3, "double")}
    if importlib.util.find_spec("devinterp"):
        found["devinterp"] = Contestant(_devinterp(problem, params), 1, "single")
    return found


def trained(steps: int = 20_000) -> tuple[EmpiricalRisk, Layers]:
    """The network's problem, and where one run of SGD left it."""
    inputs, labels = load_digits(return_X_y=True)
    problem, _ = classification(inputs / 16, labels, _WIDTHS)
    dynamics = statsgd.SGD(0.1, Minibatch(BATCH), weight_decay=1e-3)
    tree = statsgd.simulate(problem, dynamics, steps=steps, replicas=1, seed=0, progress=False)
    ends = tree["endpoints"].to_dataset()
    return problem, {str(name): jnp.asarray(end.values[0]) for name, end in ends.items()}


def inverse_temperature(problem: EmpiricalRisk) -> float:
    """nβ at β = 1/log n."""
    return problem.num_examples / np.log(problem.num_examples)


def _ours(problem: EmpiricalRisk, params: Any) -> Coefficient:
    def run(seed: int) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", statsgd.kernels.MixingWarning)
            found = local_learning_coefficient(
                problem,
                params,
                step_size=_STEP_SIZE,
                steps=STEPS,
                burn_in=BURN_IN,
                localization=_LOCALIZATION,
                noise=Minibatch(BATCH, "without_replacement"),
                loss_examples=BATCH,
                chains=CHAINS,
                seed=seed,
            )
        return float(found.value), float(found.standard_error)

    return run


def _devinterp(problem: EmpiricalRisk, params: Any) -> Coefficient:
    import torch
    from devinterp.slt.sampling import sample

    model, inputs, labels = in_torch(problem, params)
    strength = inverse_temperature(problem)

    def losses(model: Any, which: Any) -> Any:
        """It speaks of sequences of tokens: ours are an example's number, twice."""
        index = which[:, 0]
        each = torch.nn.functional.cross_entropy(
            model(inputs[index]), labels[index], reduction="none"
        )
        return each[:, None]

    numbers = [{"input_ids": torch.tensor([i, i])} for i in range(problem.num_examples)]
    baseline = float(problem.loss(params))

    def run(seed: int) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of draws that are kept in a temporary folder only
            draws = sample(
                model,
                numbers,
                {},
                lr=2 * _STEP_SIZE,
                n_beta=strength,
                localization=_LOCALIZATION,
                num_chains=CHAINS,
                num_draws=STEPS,
                num_burnin_steps=BURN_IN,
                batch_size=BATCH,
                init_seed=seed,
                match_sampling_input_ids_across_chains=False,
                device="cpu",
                loss_fn=losses,
            )
        trace = draws.dataset.sampling_loss_micro.mean(["batch_sampling", "token_pos"]).values
        by_chain = strength * (trace[:, BURN_IN:].mean(axis=1) - baseline)
        return float(by_chain.mean()), float(by_chain.std(ddof=1) / np.sqrt(CHAINS))

    return run
