"""The study of oscillation, currents and anomalous diffusion around a minimum."""

import dataclasses

import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian
from statsgd.laws.minimum import PhaseSpaceTransition
from studies import limiting_dynamics
from studies.phase_space.followed import (
    Predicted,
    Theory,
    chosen_modes,
    in_modes,
    log_spaced,
    quadratic_with_noise,
    wandering,
)

INPUTS = np.array([[1, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])
TARGETS = np.array([1, -1, 0.5, 2, 0, -1.5])


def test_settings_that_diverge_are_refused(tmp_path):
    config = limiting_dynamics.Config(learning_rate=6.0, output=str(tmp_path), progress=False)
    with pytest.raises(ValueError, match="learning_rate must be below"):
        limiting_dynamics.run(config)


def test_lags_are_different_whole_numbers():
    lags = log_spaced(1, 400, 25)
    assert lags[0] == 1
    assert lags[-1] == 400
    assert sorted(set(lags)) == lags


def test_exponent_of_diffusion_is_one():
    # E|θ_k − θ_0|² of a random walk is linear in k.
    lags = log_spaced(1, 200, 12)
    steps = np.random.default_rng(0).normal(size=(1000, 200, 2))
    moved = (np.cumsum(steps, axis=1) ** 2).sum(axis=2)[:, np.array(lags) - 1]
    found = wandering(moved, lags)
    assert abs(found.exponent.value - 1) < 4 * found.exponent.standard_error
    assert found.exponent.standard_error < 0.04


def test_theory_of_one_setting():
    # The exact chain has more noise than the one with the noise of the minimum; the model has the
    # frozen chain's trace of C, in the shape of the Hessian.
    problem = problems.linear_regression(INPUTS, TARGETS)
    theory = Theory.of(problem, SGD(0.1, noise.Minibatch(2), 0.5, 0.1))
    frozen, model = theory.frozen.noise_covariance, theory.model.noise_covariance
    assert np.trace(theory.exact.noise_covariance) > np.trace(frozen)
    np.testing.assert_allclose(np.trace(model), np.trace(frozen))
    np.testing.assert_allclose(
        model / model[0, 0], theory.model.hessian / theory.model.hessian[0, 0]
    )
    assert 0 < theory.gain < 1


@pytest.mark.slow
def test_quadratic_with_noise_has_the_law_it_is_made_from():
    # Cov θ and Cov m of 4096 runs, errors √(2/n) = 2.2 %; a factor 1.1 is 4.5 of them.
    law = HeavyBallGaussian(np.diag([2.0, 0.5]), np.diag([1.0, 0.4]), 0.1, 0.5, 0.1, [1.0, 2.0])
    problem, sgd = quadratic_with_noise(law)
    tree = simulate(
        problem, sgd, steps=160, replicas=4096, seed=0, start=law.location, keep=[160],
        progress=False,
    )  # fmt: skip
    runs = in_modes(tree, law, 160, [0])
    q = law.modes().vectors
    for found, variable in ((runs.position, "params"), (runs.velocity, "momentum_buffer")):
        expected = np.diagonal(q.T @ law.covariance(variable) @ q)
        np.testing.assert_allclose((found[:, 0] ** 2).mean(0), expected, rtol=4 * 0.022)


def test_predicted_displacement_refuses_what_has_no_law():
    law = HeavyBallGaussian(np.diag([1.0, 0.0]), np.eye(2), 0.1)
    with pytest.raises(ImproperLawError, match="outside"):
        Predicted.of(law, [1, 2])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limiting_dynamics")
    quick = limiting_dynamics.Config.quick()
    return limiting_dynamics.run(dataclasses.replace(quick, output=str(folder), progress=False))


def table(results, part):
    frame = results[part]["table"].to_dataset().to_dataframe()
    return frame.set_index("quantity")


@pytest.mark.slow
def test_claims_come_out_as_theory_demands(results):
    verdicts = {
        name: node.attrs["verdict"]
        for name, node in results.children.items()
        if node.attrs.get("kind") == "claim"
    }
    false = {
        "without momentum", "modified loss, minibatches", "speed", "anomalous diffusion",
    }  # fmt: skip
    for name, verdict in verdicts.items():
        if name in false:
            assert verdict == "does not hold", name
        else:
            assert verdict.startswith("holds"), (name, verdict)

    # Without momentum corr(1) = 1 − ηh = 0.2 in the chain, which the model has as B₁₁(1).
    lag = table(results, "without momentum").iloc[0]
    model = PhaseSpaceTransition([1.0], 0.8, 0.0, "continuous").correlation(1)[0]
    assert abs(lag["measured"] - (0.2 - model)) < 4 * lag["standard_error"]
    # The chain sweeps (1+β)/2 = 0.95 of the model's area.
    swept = table(results, "currents in phase space").iloc[-1]
    assert abs(swept["measured"] - 0.95) < 4 * swept["standard_error"]
    # E|δ|² of the exact law is 1.17 times the formula's at η = 0.1, β = 0.9, S = 16.
    speed = table(results, "speed").iloc[0]
    problem = limiting_dynamics.digits_problem()
    theory = Theory.of(problem, SGD(0.1, noise.Minibatch(16), 0.9, 0.01))
    exact = np.trace(theory.exact.covariance("momentum_buffer"))
    expected = exact / np.trace(theory.model.covariance("momentum_buffer"))
    assert abs(speed["measured"] - expected) < 4 * speed["standard_error"]
    assert chosen_modes(theory)["sharpest mode"] == 60
