"""The whole displacement without eigenvectors, against dense sums and replicas."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, problems, simulate
from statsgd.measures import (
    noise_spectrum,
    predicted_displacement,
    predicted_exponent,
    predicted_rise,
)
from statsgd.problems.weighted import example_square, weighted_gradient
from tests.measures.problem_cases import INPUTS, PARAMS, TARGETS, network

ALL_SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=6)))


def small():
    """The network on six of its examples, where curvature is least negative."""
    whole = network()
    return problems.empirical_risk(whole.per_example, (INPUTS[6:], TARGETS[6:]), PARAMS)


@pytest.mark.parametrize("sampling", ["with_replacement", "reshuffle"])
def test_all_signs_and_steps_give_the_dense_sum(sampling):
    # tr(C f_K(H + λI)) and the mean, from the whole matrices: ten parameters, six examples.
    problem, eta, beta, decay = small(), 0.1, 0.6, 0.02
    sgd = SGD(eta, noise.Minibatch(2, sampling), beta, decay)
    found = noise_spectrum(problem, PARAMS, sgd, depth=10, signs=ALL_SIGNS)
    hessian = np.asarray(problems.hessian(problem, PARAMS)) + decay * np.eye(10)
    covariance = np.asarray(noise.noise_covariance(problem, PARAMS, sgd.noise))
    assert found.noise_trace == pytest.approx(np.trace(covariance), rel=1e-9)
    trace = found.noise_integral(lambda h: h).value
    assert trace == pytest.approx(np.trace(covariance @ hessian), rel=1e-8)
    gradients = noise.example_slopes(problem, PARAMS, np.eye(10))
    flat = np.asarray(problem.flatten(PARAMS), dtype=np.float64)
    pull = gradients.mean(0) + decay * flat
    steps = [1, 3, 10, 23]
    eye, expected = np.eye(10), []
    f = np.block([[eye - eta * hessian, -eta * beta * eye], [hessian, beta * eye]])
    g = np.concatenate([-eta * eye, eye])
    for number in steps:
        kicks = [np.linalg.matrix_power(f, number - 1 - n) @ g for n in range(number)]
        epoch = np.arange(number) // 3
        together = (epoch[:, None] == epoch) & (sampling == "reshuffle")
        shared = np.where(together, -1 / 2, 0.0)
        np.fill_diagonal(shared, 1.0)
        spread = sum(
            shared[n, k] * kicks[n][:10] @ covariance @ kicks[k][:10].T
            for n in range(number)
            for k in range(number)
        )
        moved = sum(kick[:10] @ pull for kick in kicks)
        rise = np.trace(hessian @ spread) / 2 + pull @ moved + moved @ hessian @ moved / 2
        expected.append((np.trace(spread) + moved @ moved, rise))
    for of, values in zip((predicted_displacement, predicted_rise), zip(*expected, strict=True),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(of(found, sgd, steps).value, values, rtol=1e-8)


def test_a_checkpoint_that_was_left_gives_its_force_and_nothing_else():
    problem, eta, beta, decay, steps = small(), 0.1, 0.6, 0.02, 7
    sgd = SGD(eta, noise.Minibatch(2), beta, decay)
    flat = np.asarray(problem.flatten(PARAMS), dtype=np.float64)
    away = problem.unflatten(flat + 0.05 * np.arange(10))
    ask = {"depth": 10, "signs": ALL_SIGNS}
    found = noise_spectrum(problem, away, sgd, checkpoint=PARAMS, **ask)
    hessian = np.asarray(problems.hessian(problem, away)) + decay * np.eye(10)
    pull = np.asarray(problem.flatten(problem.gradient(PARAMS))) + decay * flat
    state, buffer = np.zeros(10), np.zeros(10)
    for _ in range(steps):
        buffer = beta * buffer + pull + hessian @ state
        state = state - eta * buffer
    there = noise_spectrum(problem, away, sgd, **ask)
    for one in (found, there._replace(gradient_weights=0 * there.gradient_weights)):
        assert one.noise_trace == there.noise_trace
        np.testing.assert_array_equal(one.weights, there.weights)
    without = found._replace(gradient_weights=0 * found.gradient_weights)
    moved, rest = (predicted_displacement(one, sgd, [steps]).value[0] for one in (found, without))
    assert moved - rest == pytest.approx(state @ state, rel=1e-5)


def test_products_in_single_precision_change_the_last_digits():
    sgd = SGD(0.1, noise.Minibatch(2), 0.6, 0.02)
    exact, rough = (
        predicted_displacement(
            noise_spectrum(small(), PARAMS, sgd, depth=10, signs=ALL_SIGNS, double=double), sgd, [9]
        ).value[0]
        for double in (True, False)
    )
    assert rough != exact
    assert rough == pytest.approx(exact, rel=1e-5)


def test_random_starts_scatter_as_they_say():
    problem = small()
    sgd = SGD(0.1, noise.Minibatch(2), 0.6, 0.02)
    exact = noise_spectrum(problem, PARAMS, sgd, depth=10, signs=ALL_SIGNS)
    rough = noise_spectrum(problem, PARAMS, sgd, starts=12, depth=6, seed=3)
    assert rough.weights.sum(axis=1).mean() == pytest.approx(exact.noise_trace, rel=1e-9)
    steps = [5, 20, 80]  # at 80 the depth is what the error is made of
    for of in (predicted_displacement, predicted_exponent):
        one, other = of(rough, sgd, steps), of(exact, sgd, steps)
        assert np.all(np.abs(one.value - other.value) < 4 * one.standard_error)
    # Four steps do not find the curvature that outgrows all others: the error is as large as the
    # value, which is far too small.
    shallow = predicted_displacement(
        noise_spectrum(problem, PARAMS, sgd, starts=12, depth=4, seed=3), sgd, [5, 80]
    )
    early, late = shallow.standard_error / shallow.value
    assert early < 0.1
    assert late > 0.5
    slope = np.polyfit(np.log(steps), np.log(predicted_displacement(exact, sgd, steps).value), 1)[0]
    assert predicted_exponent(exact, sgd, steps).value == pytest.approx(slope, abs=1e-3)


def test_batches_of_another_size_have_the_same_quadrature_and_errors():
    problem, momentum = small(), 0.6
    whole = {size: SGD(0.1, noise.Minibatch(size), momentum, 0.02) for size in (1, 3)}
    one, three = (
        noise_spectrum(problem, PARAMS, sgd, starts=4, depth=5, seed=3) for sgd in whole.values()
    )
    for of in (predicted_displacement, predicted_rise, predicted_exponent):
        scaled = of(one.with_noise_times(1 / 3), whole[3], [5, 20])
        expected = of(three, whole[3], [5, 20])
        np.testing.assert_allclose(scaled.value, expected.value, rtol=1e-9)
        np.testing.assert_allclose(scaled.standard_error, expected.standard_error, rtol=1e-6)
    with pytest.raises(ValueError, match="factor must be non-negative"):
        one.with_noise_times(-1.0)


def test_replicas_go_as_far_as_predicted():
    # Constant Gaussian noise on a quadratic: every assumption holds. 4000 replicas, 4 errors.
    hessian = np.diag([3.0, 1.0, 0.1, -0.05])
    covariance = np.diag([1.0, 0.6, 0.3, 0.2]) + 0.1
    problem = problems.landscape(lambda x: 0.5 * x @ (np.float32(hessian) @ x), np.zeros(4))
    sgd, start = SGD(0.1, noise.Anisotropic(covariance), 0.5, 0.01), np.array([0.1, 0.2, -0.3, 0.4])
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    found = noise_spectrum(problem, start, sgd, signs=signs)
    steps = [2, 10, 40]
    runs = simulate(
        problem, sgd, steps=40, replicas=4000, seed=0, start=start, keep=[0, *steps], progress=False
    )
    records = runs["snapshots"]["params"].values
    moved = np.sum((records[:, 1:] - records[:, :1]) ** 2, axis=2)
    error = moved.std(0) / np.sqrt(4000)
    expected = predicted_displacement(found, sgd, steps).value
    assert np.all(np.abs(moved.mean(0) - expected) < 4 * error)
    assert np.all(4 * error < 0.1 * expected)


def test_weights_and_squares_of_examples():
    problem = network()
    gradients = noise.example_slopes(problem, PARAMS, np.eye(10))
    weights = np.random.default_rng(0).normal(size=12)
    found = weighted_gradient(problem, PARAMS, weights)
    np.testing.assert_allclose(found, weights @ gradients / 12, rtol=1e-10)
    assert example_square(problem, PARAMS) == pytest.approx(np.sum(gradients**2) / 12)


def test_what_is_wrong_is_named():
    problem, sgd = network(), SGD(0.1, noise.Minibatch(4), 0.5)
    with pytest.raises(ValueError, match="signs must have shape"):
        noise_spectrum(problem, PARAMS, sgd, signs=np.ones((3, 5)))
    with pytest.raises(ValueError, match="starts must be at least 2"):
        noise_spectrum(problem, PARAMS, sgd, starts=1)
    spectrum = noise_spectrum(problem, PARAMS, sgd, starts=2, depth=1)
    with pytest.raises(ValueError, match="steps"):
        predicted_displacement(spectrum, sgd, [0])


def test_the_error_of_a_force_that_is_known_by_draws_is_no_force():
    # Of the 1820 batches of 4 of 16 a loss knows 4: over orders of the data, which choose them, the
    # square of the force has its mean, and that of the fixed batches alone has not.
    rng = np.random.default_rng(5)
    values, start = rng.normal(size=16), np.array([0.3])

    def loss(params, batch):
        return (jnp.max(batch) ** 2 - 1.8) * params[0] + 0.5 * params[0] ** 2

    batches = itertools.combinations(values, 4)
    exact = (np.mean([max(batch) ** 2 for batch in batches]) - 1.5) ** 2
    sgd = SGD(0.1, noise.Minibatch(4, "without_replacement"))
    squares, naive = [], []
    for _ in range(40):
        problem = problems.batch_risk(
            loss, rng.permutation(values), start, batch_size=4, loss_batches=4
        )
        squares.append(noise_spectrum(problem, start, sgd, starts=2).gradient_weights.sum())
        naive.append(float(problem.gradient(start)[0]) ** 2)
    error = np.std(squares, ddof=1) / np.sqrt(40)
    assert abs(np.mean(squares) - exact) < 4 * error
    assert np.mean(naive) - exact > 4 * error
