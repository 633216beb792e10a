"""Symmetries found and declared, their charges step by step, and where noise balances."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, laws, noise, problems, simulate
from statsgd.measures import (
    candidate_symmetries,
    charge_change,
    charge_decay_rate,
    charge_identity,
    check_charge_identity,
    exponential_symmetry,
    find_symmetries,
    noise_equilibrium_residual,
    predicted_charge_change,
    rescaling_symmetry,
    scale_symmetry,
    symmetry_violation,
    trajectories,
)
from statsgd.measures.balance.charges import noise_sides
from statsgd.measures.balance.symmetries import Symmetry

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(12, 2)), RNG.normal(size=(12, 1))

# Five examples, ℓ = (uwx − y)² at (u, w) = (1.2, .4): q = 1.28.
X, Y = np.array([-1.5, -0.5, 0.5, 1, 2]), np.array([-1, 0.2, 0.3, 0.6, 1.4])
PAIR = problems.diagonal_linear_network(X, Y, initial_params=np.array([[1.2, 0.4]]))
(SWAP,) = candidate_symmetries(PAIR)


def product_problem():
    # Four examples, model u (w·x), ℓ = (output − y)².
    inputs = np.array([[1, 0], [0, 1], [1, 1], [-1, 0.5]])
    start = {"u": np.array([1.5]), "w": np.array([0.6, -0.2])}
    return problems.empirical_risk(
        lambda p, e: (p["u"][0] * (p["w"] @ e[0]) - e[1]) ** 2,
        (inputs, np.array([1, -0.5, 0.3, 0.2])),
        start,
    )


@pytest.mark.slow
def test_symmetries_are_found_where_they_are():
    def network(**more):
        return problems.multilayer_perceptron(INPUTS, TARGETS, [3], **more)

    relu = network()
    found = find_symmetries(relu)
    assert [s.name for s in found] == [
        f"weights.0[{j}] + biases.0[{j}] / weights.1[:,{j}]" for j in range(3)
    ]
    assert find_symmetries(network(activation="tanh")) == []
    # A linear layer of two units may also be mixed; a wrong generator is found out.
    linear = problems.linear_network(INPUTS, TARGETS, [2])
    assert [s.diagonal for s in find_symmetries(linear, mixing=True)] == [True, True, False]
    assert symmetry_violation(linear, exponential_symmetry(linear, np.eye(6))) > 1e-3
    assert len(find_symmetries(problems.hadamard_regression(INPUTS, TARGETS[:, 0]))) == 2
    deep = problems.diagonal_linear_network(X, Y, num_layers=3, width=2)
    assert len(find_symmetries(deep)) == 4
    normalised = problems.empirical_risk(
        lambda p, e: (p["g"][0] * (p["v"] @ e[0]) / jnp.linalg.norm(p["v"]) - e[1][0]) ** 2,
        (INPUTS, TARGETS),
        {"g": np.ones(1), "v": np.array([1.0, 2.0])},
    )
    assert [s.name for s in find_symmetries(normalised)] == ["scale of v"]
    # Matrices stored as (inputs, outputs) chain the other way round.
    kernels = problems.empirical_risk(
        lambda p, e: jnp.sum((jnp.maximum(e[0] @ p["a"], 0) @ p["b"] - e[1]) ** 2),
        (INPUTS, TARGETS),
        {"a": np.ones((2, 3)), "b": np.ones((3, 1))},
    )
    assert [s.name for s in find_symmetries(kernels)] == [f"a[:,{j}] / b[{j}]" for j in range(3)]


def test_parameters_that_do_nothing_are_no_evidence():
    # Parameters that the loss ignores have every symmetry, and no charge worth the name.
    problem = problems.empirical_risk(
        lambda p, e: (
            (p["out"] @ jnp.maximum(p["in"] @ e[0], 0) - e[1][0]) ** 2 + 0 * jnp.sum(p["idle"])
        ),
        (INPUTS, TARGETS),
        {"in": np.ones((2, 2)), "out": np.ones(2), "idle": np.ones((2, 2))},
    )
    idle = scale_symmetry(problem, ["idle"])
    assert np.isnan(symmetry_violation(problem, idle))
    assert find_symmetries(problem, [idle]) == []
    units = [rescaling_symmetry(problem, [("in", j)], [("out", j)]) for j in range(2)]
    assert find_symmetries(problem, [idle, *units]) == units


def test_generators_act_as_they_say():
    relu = problems.multilayer_perceptron(INPUTS, TARGETS, [3])
    whole = rescaling_symmetry(relu, ["weights.0", "biases.0"], ["weights.1"])
    theta = RNG.normal(size=relu.dimension)
    moved = whole.move(theta, 0.3)
    assert relu.loss(relu.unflatten(moved)) == pytest.approx(
        float(relu.loss(relu.unflatten(theta))), rel=1e-5
    )
    np.testing.assert_allclose(whole.charge(theta), laws.balance.charge(theta, whole.matrix()))
    full = exponential_symmetry(relu, whole.matrix())
    np.testing.assert_allclose(full.move(theta, 0.3), moved)
    np.testing.assert_allclose(full.size(theta), whole.size(theta))
    # The units' generators sum to that of the layer.
    units = find_symmetries(relu)
    np.testing.assert_array_equal(sum(u.generator for u in units), whole.generator)


@pytest.mark.parametrize(
    ("batch", "sampling", "decay", "after"),
    [
        (1, "with_replacement", 0.0, 1.27740288),
        (2, "with_replacement", 0.0, 1.2783141376),
        (2, "without_replacement", 0.0, 1.2785419520),
        (2, "with_replacement", 0.2, 1.2528421376),
    ],
)
def test_mean_change_of_a_charge(batch, sampling, decay, after):
    # E q' = (1−ηλ)²q + η²(tr AC + ∇LᵀA∇L) at η = .05.
    sgd = SGD(0.05, noise.Minibatch(batch, sampling), weight_decay=decay)
    change = predicted_charge_change(PAIR, sgd, SWAP, np.array([[1.2, 0.4]]))
    np.testing.assert_allclose(1.28 + change, after, rtol=1e-9)


def test_the_exact_identity_of_a_step():
    relu = problems.multilayer_perceptron(INPUTS, TARGETS, [3])
    start = relu.unflatten(RNG.normal(size=relu.dimension))
    sgd = SGD(0.05, noise.Minibatch(3, "reshuffle"), momentum=0.6, weight_decay=0.1)
    unit = find_symmetries(relu)[0]
    held = check_charge_identity(relu, sgd, unit, start)
    assert held.discrepancy.shape == (8,)
    assert held.discrepancy.max() < 1e-12
    assert np.ptp(held.after) > 1e-3
    tanh = problems.multilayer_perceptron(INPUTS, TARGETS, [3], activation="tanh")
    assert check_charge_identity(tanh, sgd, unit, start).discrepancy.max() > 1e-6
    # β = .6, η = .05, examples in the order x = −1.5, 1, 2, −.5, .5: q = 1.2548324834 at the end.
    theta, buffer = np.array([1.2, 0.4]), np.zeros(2)
    for x in (-1.5, 1, 2, -0.5, 0.5):
        residual = theta[0] * theta[1] * x - Y[list(X).index(x)]
        m = 0.6 * buffer + 2 * residual * x * theta[::-1]
        later = theta - 0.05 * m
        step = charge_identity(SWAP, theta, buffer, later, m, 0.05, 0.6)
        assert step.discrepancy < 1e-14
        theta, buffer = later, m
    assert step.predicted == pytest.approx(1.2548324834, rel=1e-10)


@pytest.mark.slow
def test_decay_of_a_charge_in_real_runs():
    # x = ±1, y = x + ε: dq/dt = −(4T a₃ + 2λ) q whatever the slope, a₃ = Var(xy), T = η.
    targets = 1 + 0.5 * np.repeat([1.0, -1.0], 10)
    problem = problems.diagonal_linear_network(np.ones(20), targets)
    eta, decay = 0.02, 0.05
    sgd = SGD(eta, noise.Minibatch(1), weight_decay=decay)
    run = simulate(
        problem,
        sgd,
        start=np.array([[1.3, 0.7]]),
        steps=300,
        replicas=250,
        seed=1,
        keep=[*range(0, 300, 20), *range(281, 301)],
        progress=False,
    )
    (pair,) = find_symmetries(problem)
    found = trajectories(run)
    rate = charge_decay_rate(pair.charge(found.params), eta * found.steps)
    sigma = np.cov(problem.inputs * targets, bias=True)
    law = 4 * eta * sigma + 2 * decay
    at = np.array([1.3, 0.7])
    gradients = np.array([2 * (0.91 - y) * at[::-1] for y in targets])
    exact = laws.balance.balance_rate(
        at,
        np.cov(gradients.T, bias=True),
        pair.matrix(),
        laws.networks.noise_scale(problem, sgd),
        decay,
    )
    assert law == pytest.approx(-exact / 1.2)
    assert 4 * rate.standard_error < 0.1 * law
    # The chain adds η⟨(dL/df)²⟩, 1 % here; its own mean change over these states has it.
    assert rate.value == pytest.approx(law, rel=0.02)
    states = found.params.reshape(-1, 2)
    said = predicted_charge_change(problem, sgd, pair, states) / pair.charge(states)
    assert rate.value == pytest.approx(-np.mean(said) / eta, rel=0.005)
    # Step by step, against the exact mean change at the same states.
    consecutive = trajectories(run).params[:, -20:]
    change = charge_change(problem, sgd, pair, consecutive)
    assert abs(change.gap.deviation(0.0)) < 4
    assert 4 * change.gap.standard_error < 0.1 * abs(change.predicted.value)
    assert change.measured.value == pytest.approx(change.predicted.value, rel=0.1)
    # With momentum the law of balance at η/(1−β), here at one point.
    heavy = SGD(eta, noise.Minibatch(1), momentum=0.5, weight_decay=decay)
    said = predicted_charge_change(problem, heavy, pair, at[None])
    step = 2 * eta
    assert said[0] == pytest.approx(-step * (4 * step * sigma + 2 * decay) * 1.2)


def test_noise_equilibrium():
    problem = product_problem()
    pair = rescaling_symmetry(problem, ["u"], ["w"])
    at = np.array([[1.5, 0.6, -0.2]])
    up, down = noise_sides(problem, noise.Minibatch(1), pair, at)
    np.testing.assert_allclose([up[0], down[0]], [0.58496875, 3.7205859375])
    same = noise_sides(
        problem, noise.Minibatch(1), exponential_symmetry(problem, pair.matrix()), at
    )
    np.testing.assert_allclose([same[0][0], same[1][0]], [up[0], down[0]])
    # ρ = .6296951 puts this orbit at its balance.
    there = pair.move(at[0], np.log(0.6296951))[None]
    balanced = noise_sides(problem, noise.Minibatch(1), pair, there)
    assert balanced[0] == pytest.approx(balanced[1], rel=1e-6)
    sgd = SGD(0.05, noise.Minibatch(1))
    start = noise_equilibrium_residual(problem, sgd, pair, np.repeat(at, 2, axis=0))
    assert start.value == pytest.approx(
        2 * (0.58496875 - 3.7205859375) / (0.58496875 + 3.7205859375)
    )
    # Decay pulls q down as well: at one point the residual gains −(2λ/η) q over half the noise.
    pulled = SGD(0.05, noise.Minibatch(1), weight_decay=0.1)
    more = noise_equilibrium_residual(problem, pulled, pair, np.repeat(at, 2, axis=0))
    extra = 2 * (2 * 0.1 / 0.05) * (1.5**2 - 0.4) / (0.58496875 + 3.7205859375)
    assert start.value - more.value == pytest.approx(extra)


@pytest.mark.slow
def test_runs_end_at_the_noise_equilibrium():
    problem = product_problem()
    pair = rescaling_symmetry(problem, ["u"], ["w"])
    sgd = SGD(0.05, noise.Minibatch(1))
    run = simulate(problem, sgd, steps=4000, replicas=512, seed=1, progress=False)
    ends = np.concatenate([run["endpoints"][name].values for name in ("u", "w")], axis=1)
    residual = noise_equilibrium_residual(problem, sgd, pair, ends)
    # At rest E Δq = 0: the residual is that of the mean gradient, −2⟨∇LᵀA∇L⟩/⟨tr|A|C⟩, O(η).
    assert residual.standard_error < 0.01
    assert abs(residual.value) < 0.005 + 4 * residual.standard_error
    assert pair.charge(ends).mean() < -0.05  # the norms are not in balance


def test_bad_input(unchecked):
    relu = problems.multilayer_perceptron(INPUTS, TARGETS, [3])
    with pytest.raises(ValueError, match=r"parts must be of the leaves .* got 'w'"):
        rescaling_symmetry(relu, ["w"], ["weights.1"])
    with pytest.raises(ValueError, match="must not share parameters"):
        rescaling_symmetry(relu, ["weights.0"], ["weights.0"])
    with pytest.raises(ValueError, match="must fit its shape"):
        rescaling_symmetry(relu, [("weights.0", 7)], ["weights.1"])
    with pytest.raises(ValueError, match="each once"):
        scale_symmetry(relu, ["weights.0", "weights.0"])
    with pytest.raises(ValueError, match="charges must keep their sign"):
        charge_decay_rate(np.array([[1.0, -1.0], [1.0, 0.5]]), np.arange(2.0))
    with pytest.raises(ValueError, match=r"generator of shape \(2,\) or \(2, 2\)"):
        charge_identity(Symmetry("three", np.ones(3)), *4 * [np.ones(2)], 0.1)
    with pytest.raises(ValueError, match="independent from step to step"):
        noise_sides(PAIR, noise.Minibatch(1, "reshuffle"), SWAP, np.ones((2, 2)))
