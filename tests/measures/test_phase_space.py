"""Displacement, currents and fluctuation–dissipation against the exact laws of the chain."""

import jax
import numpy as np
import optax
import pytest

from statsgd import SGD, OptaxDynamics, grid, laws, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian, LinearRegressionGaussian
from statsgd.measures import (
    anomalous_exponent,
    area_rate,
    entropy_production,
    first_fluctuation_relation,
    fluctuation_dissipation,
    full_gradients,
    mean_over_runs,
    mean_square_step,
    phase_plane_area_rate,
    second_fluctuation_relation,
    squared_displacement,
    stochastic_gradients,
    trajectories,
)
from statsgd.measures.motion.fluctuations import displacement_relations
from tests.statistical import assert_printed

H, C, ETA = np.diag([2.0, 0.5]), np.array([[1.0, 0.6], [0.6, 0.8]]), 0.1
PROBLEM = problems.quadratic(H)
MOMENTA = (0.0, 0.9)
LAWS = [HeavyBallGaussian(H, C, ETA, beta) for beta in MOMENTA]


@pytest.fixture(scope="module")
def runs():
    # From draws of the widest law; 80 steps leave .95^160 of its excess variance.
    start = LAWS[1].draw(jax.random.key(1), (1000,))
    run = simulate(
        PROBLEM,
        grid(SGD(ETA, noise.Anisotropic(C)), momentum=MOMENTA),
        steps=160,
        replicas=1000,
        seed=2,
        start=start,
        keep=range(80, 161),
        progress=False,
    )
    return [run.isel(momentum=i) for i in range(2)]


def assert_close(measured, expected, resolve=1.1):
    expected = np.asarray(expected)
    error = np.asarray(measured.standard_error)
    assert np.all(4 * error <= (resolve - 1) * np.abs(expected)), (error, expected)
    assert np.all(np.abs(measured.deviation(expected)) < 4), (measured, expected)


@pytest.mark.parametrize(
    ("i", "area", "epr"), [(0, 0.001875, 0.07670455), (1, 0.03433735, 0.14047097)]
)
def test_currents_of_a_chain(runs, i, area, epr):
    # Area (η/2)(h₁−h₂)S₁₂/(1−β); entropy production from the chain's spectral density.
    found = trajectories(runs[i])
    swept = area_rate(found.params)
    assert np.isclose(laws.minimum.stochastic_area(LAWS[i])[0, 1], area, rtol=1e-5)
    assert 4 * swept.standard_error[0, 1] < 0.1 * area
    assert abs(swept.deviation(laws.minimum.stochastic_area(LAWS[i]))[0, 1]) < 4
    np.testing.assert_allclose(swept.value, -swept.value.T)
    grad = full_gradients(PROBLEM, found.params)
    for covariance in (None, C):
        assert_close(entropy_production(found.params, grad, ETA, MOMENTA[i], covariance), epr)
    everywhere = np.broadcast_to(C, (*found.params.shape, 2))[:40]
    same = entropy_production(found.params[:40], grad[:40], ETA, MOMENTA[i], everywhere)
    one = entropy_production(found.params[:40], grad[:40], ETA, MOMENTA[i], C)
    assert same.value == pytest.approx(one.value)
    # A single mode is reversible.
    alone = entropy_production(found.params[..., :1], grad[..., :1], ETA, MOMENTA[i])
    assert abs(alone.deviation(0.0)) < 4
    assert alone.standard_error < 0.1 * epr
    modes = LAWS[i].modes().vectors
    turn = phase_plane_area_rate(found.params, found.momentum_buffer, modes)
    assert_close(turn, laws.minimum.phase_plane_area(LAWS[i]))


@pytest.mark.parametrize("i", [0, 1])
def test_displacement(runs, i):
    # 2 Tr(S − [FᵏP]_θθ) from stationary starts; η² tr Cov m in one step.
    lags = [1, 2, 5, 10, 20, 50]
    law = laws.minimum.mean_squared_displacement(LAWS[i], lags)
    found = trajectories(runs[i])
    for average in ("ensemble", "time"):
        moved = squared_displacement(found.params, lags, average)
        assert np.all(np.abs(moved.deviation(law)) < 4)
        if average == "time":
            assert_close(moved, law)
        window = lags[:4]
        exponent = anomalous_exponent(found.params, window, average)
        blunt = 1.15 if average == "ensemble" else 1.1
        assert_close(exponent, laws.minimum.displacement_exponent(window, law[:4]), blunt)
    assert_close(mean_square_step(found.params), laws.minimum.local_displacement(LAWS[i]))
    speed = mean_over_runs(np.sum(found.momentum_buffer**2, axis=2))
    assert_close(speed, laws.minimum.local_displacement(LAWS[i]) / ETA**2)


def test_displacement_along_one_long_run():
    # AR(1): θ' = .9θ + ηξ. One run of 20 000 steps: errors come from stretches.
    theta = _chains(1, 20_000, np.random.default_rng(0))[0][0]
    law = laws.minimum.mean_squared_displacement(
        HeavyBallGaussian([[1.0]], [[1.0]], ETA), [1, 5, 20]
    )
    moved = squared_displacement(theta, [1, 5, 20], "time")
    assert moved.clusters > 8
    assert_close(moved, law, resolve=1.2)
    with pytest.raises(ValueError, match="lags must be below the"):
        squared_displacement(theta, [3000], "time")
    with pytest.raises(ValueError, match="worth 1: run longer"):
        squared_displacement(theta[:, :50], [1], "time")


@pytest.mark.parametrize("i", [0, 1])
def test_fluctuation_dissipation_of_a_chain(runs, i):
    # Sides: Tr(HS) and (η/2)(1+β) Tr Cov m; second: Tr(H²S), 1.25822222 at β = .9.
    sgd = SGD(ETA, noise.Anisotropic(C), momentum=MOMENTA[i])
    found = fluctuation_dissipation(PROBLEM, sgd, runs[i], snapshots=True)
    spread = LAWS[i].covariance()
    for name, expected in (("first", np.trace(H @ spread)), ("second", np.trace(H @ H @ spread))):
        assert_close(found[name].left, expected)
        assert_close(found[name].right, expected)
        assert abs(found[name].gap.deviation(0.0)) < 4
    if MOMENTA[i] == 0.9:
        assert_printed(np.trace(H @ H @ spread), "1.25822222")
    ends = fluctuation_dissipation(PROBLEM, sgd, runs[i])
    assert abs(ends["first"].gap.deviation(0.0)) < 4
    assert list(ends) == ["first", "second"]
    # A learning rate 1.1 times too large in the relation shows, along each mode on its own.
    run = trajectories(runs[i])
    grad = full_gradients(PROBLEM, run.params)
    along = first_fluctuation_relation(
        run.params, grad, run.momentum_buffer, ETA, MOMENTA[i], np.eye(2)
    )
    assert np.all(np.abs(along.gap.deviation(0.0)) < 4)
    off = first_fluctuation_relation(
        run.params, grad, run.momentum_buffer, 1.1 * ETA, MOMENTA[i], np.eye(2)
    )
    assert np.all(np.abs(off.gap.deviation(0.0)) > 4)
    # Stochastic gradients obey it as book-keeping: within the run's own drift.
    kicks = stochastic_gradients(run.momentum_buffer, MOMENTA[i])
    books = first_fluctuation_relation(
        run.params[:, :-1], kicks, run.momentum_buffer[:, :-1], ETA, MOMENTA[i]
    )
    assert abs(books.gap.deviation(0.0)) < 4


INPUTS = np.array([[1, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])


def on_data(sampling):
    problem = problems.linear_regression(INPUTS, np.array([1, -1, 0.5, 2, 0, -1.5]))
    white = SGD(0.1, noise.Minibatch(2, "without_replacement"), momentum=0.5, weight_decay=0.1)
    start = LinearRegressionGaussian.from_sgd(problem, white).draw(jax.random.key(0), (2500,))
    sgd = SGD(0.1, noise.Minibatch(2, sampling), momentum=0.5, weight_decay=0.1)
    ask: dict = {"steps": 42, "replicas": 2500, "seed": 1, "phases": 3, "progress": False}
    run = simulate(problem, sgd, start=start, **ask)
    return fluctuation_dissipation(problem, sgd, run)["first"]


@pytest.mark.slow
def test_fluctuation_dissipation_on_data_with_decay_and_without_repeats():
    # Tr[(H+λI)Cov θ] = (η/2)(1+β) Tr Cov m = .02344497: six examples, S = 2, momentum and decay.
    found = on_data("without_replacement")
    assert_close(found.left, 0.02344497)
    assert_close(found.right, 0.02344497)
    assert abs(found.gap.deviation(0.0)) < 4
    assert abs(found.relative_gap) < 0.1


@pytest.mark.slow
def test_fluctuation_dissipation_sees_reshuffled_batches():
    # Not white: the left side falls far short.
    found = on_data("reshuffle")
    assert found.gap.deviation(0.0) < -8
    assert found.left.value < 0.6 * found.right.value


def _chains(number, steps, rng, theta=None):
    """θ' = θ − η(θ + ξ) with unit noise; θ, ∇ and m (number, 1, step, 1) after each step."""
    theta = rng.normal(size=number) * np.sqrt(ETA / (2 - ETA)) if theta is None else theta
    points, buffers = [], []
    for _ in range(steps):
        buffer = theta + rng.normal(size=number)
        theta = theta - ETA * buffer
        points.append(theta)
        buffers.append(buffer)
    points, buffers = np.array(points).T, np.array(buffers).T
    return points[:, None, :, None], points[:, None, :, None], buffers[:, None, :, None]


def test_p_values_are_calibrated_for_one_run_and_for_many():
    # 250 data sets each; 5 % tests reject 12.5 ± 3.4 of them if p-values are right.
    rng = np.random.default_rng(3)
    one = _chains(250, 3000, rng)
    many = _chains(250 * 40, 1, rng)
    many = [part.reshape(250, 40, 1, 1) for part in many]
    for data in (one, many):
        p = np.array(
            [
                first_fluctuation_relation(*sets, ETA).gap.p_value(0.0)
                for sets in zip(*data, strict=True)
            ]
        )
        assert 1 <= np.sum(p < 0.05) <= 26
        assert 93 < np.sum(p < 0.5) < 157
    # Not stationary: half the width of the law at the start of short runs.
    young = _chains(200, 4, rng, theta=np.zeros(200))
    young = [part.reshape(1, 200, 4, 1)[0] for part in young]
    assert first_fluctuation_relation(*young, ETA).gap.p_value(0.0) < 1e-6


def test_bad_input(unchecked):
    theta = np.zeros((10, 4, 2))
    with pytest.raises(ValueError, match="gradients must have shape"):
        first_fluctuation_relation(theta, theta[:, :2], theta, ETA)
    with pytest.raises(ValueError, match="curvature_along_buffer must have shape"):
        second_fluctuation_relation(theta, theta[..., 0].T, ETA)
    with pytest.raises(ValueError, match="at least 3 steps"):
        entropy_production(theta[:, :2], theta[:, :2], ETA)
    with pytest.raises(ValueError, match="positive definite for an entropy production"):
        entropy_production(theta, theta, ETA)
    with pytest.raises(ValueError, match="average must be one of"):
        squared_displacement(theta, [1], "both")


KEPT = [step for end in range(200, 801, 30) for step in (end - 1, end)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adam", "nesterov"])
def test_relations_of_displacements_hold_for_any_optimiser(kind):
    kicks = noise.Isotropic(1.0)
    dynamics = {
        "adam": OptaxDynamics(optax.adam(0.4, b1=0.5, b2=0.99), kicks),
        "nesterov": SGD(0.4, kicks, 0.5, nesterov=True, decoupled_weight_decay=0.1),
    }[kind]
    options = {"steps": 800, "replicas": 2000, "seed": 5, "keep": KEPT, "progress": False}
    tree = simulate(PROBLEM, dynamics, **options)
    for relation in fluctuation_dissipation(PROBLEM, dynamics, tree, snapshots=True).values():
        assert abs(float(relation.gap.deviation(0))) < 4
        # A factor of 1.1 in one side would be seen.
        assert float(relation.gap.standard_error) < 0.025 * float(relation.right.value)
    early = simulate(
        PROBLEM, dynamics, start=np.array([3.0, 3.0]), **(options | {"steps": 2, "keep": [1, 2]})
    )
    falling = fluctuation_dissipation(PROBLEM, dynamics, early, snapshots=True)
    # The first takes θ from the mean of the others, and so sees no common start.
    assert float(falling["second"].gap.deviation(0)) > 10


@pytest.mark.usefixtures("unchecked")
def test_displacements_need_steps_that_follow_one_another():
    bowl = problems.quadratic(np.eye(1))
    dynamics = OptaxDynamics(optax.adam(0.1), noise.Isotropic(1.0))
    options = {"steps": 9, "replicas": 3, "seed": 5, "keep": [3, 9], "progress": False}
    tree = simulate(bowl, dynamics, **options)
    with pytest.raises(ValueError, match="snapshots must be True for optimisers other than"):
        fluctuation_dissipation(bowl, dynamics, tree)
    with pytest.raises(ValueError, match=r"keep=\[499, 500\], got \[3, 9\]"):
        fluctuation_dissipation(bowl, dynamics, tree, snapshots=True)
    with pytest.raises(ValueError, match=r"moved must have shape \(1, 2, 1\), got \(1, 3, 1\)"):
        displacement_relations(bowl, np.zeros((1, 2, 1)), np.zeros((1, 3, 1)))
