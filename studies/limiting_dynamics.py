"""Oscillation, currents and anomalous diffusion of heavy-ball SGD around a minimum.

Linear regression on scikit-learn's digits (`studies.digits_regression`): SGD is followed from rest
to stationarity in every eigenmode of the Hessian, and held against the underdamped model of
Kunin et al. (2021): damped oscillations, the modified loss, currents in phase space, the distance
travelled and its exponent. Then a small network on digits, near a minimum of its loss.
"""

import dataclasses
import os
from typing import Self

import xarray as xr

import statsgd
from statsgd.arguments import count
from statsgd.laws import LinearRegressionGaussian
from studies.digits_regression import digits_problem, schedule
from studies.findings import findings
from studies.phase_space.displacement import displacement_claims
from studies.phase_space.followed import (
    Followed,
    Theory,
    chosen_modes,
    log_spaced,
    run_in_phase_space,
)
from studies.phase_space.motion import (
    correlation_claim,
    equipartition_claim,
    no_momentum_claim,
    path_claim,
)
from studies.phase_space.network import network_claims
from studies.phase_space.stationary import (
    imposed_noise_claim,
    minibatch_claim,
    mode_current_claim,
    phase_current_claim,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the study; every field is a command-line option."""

    learning_rate: float = 0.1
    """Learning rate η on the linear problem."""
    momentum: float = 0.9
    """Momentum β there."""
    batch_size: int = 16
    """Examples per step S there; some runs take four times as many."""
    weight_decay: float = 0.01
    """Weight decay λ there. It must be positive: some pixels hardly vary."""
    replicas: int = 8000
    """Independent runs."""
    longest_lag: int = 400
    """Displacements are followed over so many steps."""
    margin: float = 0.05
    """Relative difference that counts as agreement, and absolute one of correlations."""
    network_splits: int = 8
    """Splits of the digits for the network, each with labels and a start of its own."""
    network_replicas: int = 128
    """Independent runs of the network on each split."""
    network_steps: int = 400
    """Steps of the network."""
    seed: int = 0
    """Seed of everything."""
    output: str = os.path.join("results", "limiting_dynamics")
    """Folder for the report."""
    progress: bool = True
    """Show progress bars."""

    @classmethod
    def quick(cls) -> Self:
        """Settings that take less than a minute."""
        return cls(
            replicas=2048,
            longest_lag=200,
            margin=0.1,
            network_splits=1,
            network_replicas=128,
            network_steps=200,
        )


def run(config: Config) -> xr.DataTree:
    """Follow SGD on the digits, and judge what the papers claim of it."""
    lags = log_spaced(1, config.longest_lag, 25)
    case = follow(config, lags)
    parts = {
        "damped oscillation": path_claim(case),
        "correlations": correlation_claim(case),
        "without momentum": no_momentum_claim(case),
        "equipartition": equipartition_claim(case),
        "modified loss, imposed noise": imposed_noise_claim(case),
        "modified loss, minibatches": minibatch_claim(case),
        "currents in phase space": phase_current_claim(case),
        "currents between modes": mode_current_claim(case),
        **displacement_claims(case, lags),
        **network_claims(
            splits=count("network_splits", config.network_splits),
            replicas=config.network_replicas,
            steps=config.network_steps,
            margin=config.margin,
            seed=config.seed,
            progress=config.progress,
        ),
    }
    return findings(
        "How SGD wanders around a minimum",
        "Does SGD near a minimum move as an underdamped oscillator in phase space, and does that "
        "explain how far it travels? Linear regression on digits with "
        f"η = {config.learning_rate:g}, β = {config.momentum:g}, S = {config.batch_size}, "
        f"λ = {config.weight_decay:g}, d = {case.problem.dimension}; then a network.",
        parts,
    )


def follow(config: Config, lags: list[int]) -> Followed:
    """SGD on the linear problem from rest at the origin to stationarity, and `lags` beyond."""
    problem = digits_problem()
    noise = statsgd.noise.Minibatch(config.batch_size)
    sgd = statsgd.SGD(config.learning_rate, noise, config.momentum, config.weight_decay)
    sgd.check(problem)
    burn_in, _ = schedule(LinearRegressionGaussian.from_sgd(problem, sgd), sgd, 0.01)
    theory = Theory.of(problem, sgd)
    runs = run_in_phase_space(
        problem,
        sgd,
        theory.exact,
        burn_in=burn_in,
        steps=[*range(48), *lags],
        early=range(1, 61),
        replicas=config.replicas,
        seed=config.seed,
        progress=config.progress,
    )
    modes = chosen_modes(theory)
    return Followed(problem, sgd, theory, runs, modes, config.margin, config.seed)
