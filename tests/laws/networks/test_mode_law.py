"""The law in modes around a checkpoint: against printed values, enumeration and simulation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, compare, noise, problems, simulate
from statsgd.ensembles import endpoint_trajectories
from statsgd.laws import EpochNoiseGaussian, HeavyBallGaussian, ImproperLawError, ModeLaw, check
from statsgd.laws.minimum.mode_chain import Epoch
from statsgd.measures import noise_and_curvature_along, top_eigenpairs
from tests.laws.examples import example
from tests.measures.problem_cases import PARAMS, network
from tests.statistical import assert_mean_within, assert_printed, assert_variance_within

SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])
SADDLE = np.array([[1.5, 0.4, 0.0], [0.4, -0.2, 0.1], [0.0, 0.1, 0.3]])
PULLS = np.array([[1.0, 0.5, -1.0], [-1.0, 1.5, 0.0], [0.5, -2.0, 1.5], [0.7, 0.3, -0.2]])


def tilted_saddle():
    """Four examples that differ in their slope alone: the linear chain is exact."""
    return problems.empirical_risk(
        lambda x, pull: 0.5 * x @ jnp.asarray(SADDLE, x.dtype) @ x + pull @ x, PULLS, np.zeros(3)
    )


@pytest.mark.parametrize(
    ("h", "steps", "params", "buffer", "cross"),
    [
        (2.0, 5, "1.31308618e-3", "1.83680621e-2", "-1.84197951e-3"),
        (2.0, 20, "2.33387792e-3", "4.84485866e-2", "-2.43895169e-3"),
        (2.0, None, "2.63888889e-3", "5.55555556e-2", "-2.77777778e-3"),
        (-0.1, 5, "4.28824856e-3", "3.68763980e-2", "-1.09549913e-2"),
        (-0.1, 20, ".171053735", ".127225323", "-.131266617"),
    ],
)
def test_variances_of_one_mode(h, steps, params, buffer, cross):
    law = ModeLaw([h], [[0.01]], 0.1, 0.9, steps)
    assert_printed(law.covariance()[0, 0], params)
    assert_printed(law.covariance("momentum_buffer")[0, 0], buffer)
    assert_printed(law.covariance("params", "momentum_buffer")[0, 0], cross)


def test_without_force_or_memory_variance_is_that_of_a_walk():
    law = ModeLaw([0.0], [[0.3]], 0.2, steps=7)
    assert law.covariance()[0, 0] == pytest.approx(0.2**2 * 0.3 * 7, rel=1e-14)


def test_late_transients_are_stationary():
    for batches in (None, 4, Epoch(4, 3.6, 0.6), Epoch(4, 4.3, 1.0, repeated=True)):
        ever = ModeLaw([2.0, 0.3], SKEW, 0.1, 0.9, gradient=[0.2, -0.1], num_batches=batches)
        late = ever.after(4000)
        np.testing.assert_allclose(late.joint, ever.joint, rtol=1e-9)
        np.testing.assert_allclose(late.mean(), ever.mean(), rtol=1e-9)
        np.testing.assert_allclose(ever.mean(), [-0.1, 1 / 3], rtol=1e-12)


def test_stationary_forms_are_those_of_the_laws_at_a_minimum():
    h = np.array([2.0, 0.5])
    white = HeavyBallGaussian(np.diag(h), SKEW, 0.1, 0.9)
    np.testing.assert_allclose(ModeLaw(h, SKEW, 0.1, 0.9).joint, white.joint, rtol=1e-12)
    for phase in (0, 3):
        epochs = EpochNoiseGaussian(np.diag(h), SKEW, 0.1, 5, 0.9, phase=phase)
        law = ModeLaw(h, SKEW, 0.1, 0.9, num_batches=5, phase=phase)
        np.testing.assert_allclose(law.joint, epochs.joint, rtol=1e-9, atol=1e-13)


def batches_of(order, size, drop_last):
    """The batches of an epoch in this order."""
    cuts = range(0, len(order) - len(order) % size if drop_last else len(order), size)
    return [order[i : i + size] for i in cuts]


@pytest.mark.parametrize(
    ("sampling", "size", "drop_last", "steps"),
    [
        ("with_replacement", 1, None, 3),
        ("reshuffle", 1, None, 3),
        ("reshuffle", 1, None, 7),
        ("reshuffle", 3, True, 2),  # one example is left out of each epoch
        ("reshuffle", 3, False, 3),  # the second batch is one example
        ("reshuffle", 3, False, 4),
        ("single_shuffle", 1, None, 3),
        ("single_shuffle", 1, None, 11),
        ("single_shuffle", 3, True, 4),
        ("single_shuffle", 3, False, 5),
        ("single_shuffle", 3, False, 6),
        ("single_shuffle", 2, None, 7),
    ],
)
def test_transients_are_those_of_all_runs_there_are(sampling, size, drop_last, steps):
    # All sequences of batches of four examples, or of their orders, one by one.
    eta, beta, decay = 0.2, 0.6, 0.05
    problem, start = tilted_saddle(), np.array([0.3, -0.2, 0.5])
    sgd = SGD(eta, noise.Minibatch(size, sampling, drop_last=drop_last), beta, decay)
    law = ModeLaw.from_checkpoint(problem, sgd, start, 3, steps)
    epochs = [batches_of(order, size, drop_last) for order in itertools.permutations(range(4))]
    if sampling == "reshuffle":
        turns = -(-steps // len(epochs[0]))
        orders = itertools.product(epochs, repeat=turns)
        runs = [list(itertools.chain(*some))[:steps] for some in orders]
    elif sampling == "single_shuffle":
        runs = [(epoch * steps)[:steps] for epoch in epochs]
    else:
        runs = list(itertools.product([(i,) for i in range(4)], repeat=steps))
    theta, buffer = np.tile(start, (len(runs), 1)), np.zeros((len(runs), 3))
    for step in range(steps):
        pull = np.array([PULLS[list(run[step])].mean(0) for run in runs])
        buffer = beta * buffer + theta @ (SADDLE + decay * np.eye(3)) + pull
        theta = theta - eta * buffer
    state = np.concatenate([law.project(theta), buffer @ law.modes], axis=1)
    np.testing.assert_allclose(np.cov(state.T, bias=True), law.joint, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(state.mean(0)[:3], law.mean(), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(state.mean(0)[3:], law.mean("momentum_buffer"), rtol=1e-6)


@pytest.mark.parametrize("repeated", [False, True])
def test_noise_that_every_batch_has_for_itself(repeated):
    # Beside the choice of examples: P ← FPFᵀ + G W Gᵀ, 1/t times as much for the last batch.
    h, eta, beta, epoch = np.array([2.0, 0.7]), 0.1, 0.8, Epoch(4, 3.6, 0.6, repeated)
    chosen, own = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([[0.4, -0.1], [-0.1, 0.2]])
    f = np.block([[np.eye(2) - eta * np.diag(h), -eta * beta * np.eye(2)],
                  [np.diag(h), beta * np.eye(2)]])  # fmt: skip
    g = np.concatenate([-eta * np.eye(2), np.eye(2)])
    with_own = {"num_batches": epoch, "independent_noise": own}
    expected, stationary = np.zeros((4, 4)), {}
    for step in range(1, 4001):
        size = epoch.last if step % 4 == 0 else 1.0
        expected = f @ expected @ f.T + g @ own @ g.T / size
        stationary[step % 4] = expected
        if step in (1, 4, 6, 11):
            alone = ModeLaw(h, chosen, eta, beta, step, num_batches=epoch).joint
            law = ModeLaw(h, chosen + own, eta, beta, step, **with_own)
            np.testing.assert_allclose(law.joint, alone + expected, rtol=1e-10, atol=1e-14)
    for phase, left in stationary.items():
        alone = ModeLaw(h, chosen, eta, beta, num_batches=epoch, phase=phase).joint
        law = ModeLaw(h, chosen + own, eta, beta, phase=phase, **with_own)
        np.testing.assert_allclose(law.joint, alone + left, rtol=1e-10, atol=1e-14)


def test_noise_that_grows_with_the_loss():
    # Step by step: P ← FPFᵀ + C_n GGᵀ, C_n = C + (C̄ − C) q_n, in matrices of all modes at once.
    h, eta, beta, steps = np.array([2.0, 0.3, -0.1]), 0.1, 0.8, 12
    noises = [np.diag([1.0, 0.5, 0.4]) + 0.1, np.diag([2.0, 0.7, 0.9]) + 0.3]
    eye = np.eye(3)
    f = np.block([[eye - eta * np.diag(h), -eta * beta * eye], [np.diag(h), beta * eye]])
    g = np.concatenate([-eta * eye, eye])
    plain, excess = np.zeros((6, 6)), []
    for _ in range(steps):
        excess.append(np.array([2.0, 0.3, 0.0]) @ np.diag(plain)[:3])
        plain = f @ plain @ f.T + g @ noises[0] @ g.T
    end = np.array([2.0, 0.3, 0.0]) @ np.diag(plain)[:3]
    expected = np.zeros((6, 6))
    for q in np.array(excess) / end:
        now = noises[0] + (noises[1] - noises[0]) * q
        expected = f @ expected @ f.T + g @ now @ g.T
    law = ModeLaw(h, noises[0], eta, beta, steps, noise_at_end=noises[1])
    np.testing.assert_allclose(law.joint, expected, rtol=1e-11, atol=1e-15)
    # Full after one step.
    early = ModeLaw(h, noises[0], eta, beta, 2, noise_at_end=noises[1], noise_steps=1)
    once = f @ (g @ noises[0] @ g.T) @ f.T + g @ noises[1] @ g.T
    np.testing.assert_allclose(early.joint, once, rtol=1e-11, atol=1e-15)
    ever = ModeLaw([2.0], [[1.0]], 0.1, noise_at_end=[[3.0]])
    assert ever.covariance() == 3 * ModeLaw([2.0], [[1.0]], 0.1).covariance()


def test_what_is_measured_at_a_checkpoint_of_a_network():
    problem, params, decay = network(), PARAMS, 0.03
    flat = np.asarray(problem.flatten(params), dtype=np.float64)
    values, vectors = np.linalg.eigh(problems.hessian(problem, params))
    for sampling in ("with_replacement", "without_replacement", "reshuffle"):
        sgd = SGD(0.1, noise.Minibatch(4, sampling), 0.5, decay)
        law = ModeLaw.from_checkpoint(problem, sgd, params, 4, steps=9)
        np.testing.assert_allclose(law.curvatures, values[::-1][:4] + decay, rtol=1e-9)
        overlap = np.abs(law.modes.T @ vectors[:, ::-1][:, :4])
        np.testing.assert_allclose(overlap, np.eye(4), atol=1e-7)
        factor = {"with_replacement": 1 / 4}.get(sampling, 8 / (4 * 11))
        single = noise.noise_covariance(problem, params, noise.Minibatch(1))
        expected = factor * law.modes.T @ single @ law.modes
        np.testing.assert_allclose(law.noise_covariance, expected, rtol=1e-9, atol=1e-14)
        pull = jax.flatten_util.ravel_pytree(problem.gradient(params))[0] + decay * flat
        np.testing.assert_allclose(law.gradient, pull @ law.modes, rtol=1e-4)
        assert law.num_batches == (3 if sampling == "reshuffle" else None)
        assert np.all(law.residuals < 1e-6)
    carried = ModeLaw.from_checkpoint(
        problem, sgd, params, top_eigenpairs(problem, params, 4), 9, momentum_buffer=params
    )
    np.testing.assert_allclose(np.abs(carried.momentum_buffer), np.abs(flat @ law.modes), rtol=1e-6)
    assert not np.allclose(carried.mean(), law.mean())


def test_replicas_follow_the_law_from_a_checkpoint_that_is_no_minimum():
    covariance = np.diag([1.0, 0.5, 0.2]) + 0.2
    problem = problems.landscape(lambda x: 0.5 * x @ jnp.asarray(SADDLE, x.dtype) @ x, np.zeros(3))
    sgd = SGD(0.1, noise.Anisotropic(covariance), 0.8, 0.02)
    start = np.array([1.0, -0.5, 0.3])
    law = ModeLaw.from_checkpoint(problem, sgd, start, modes=2, steps=25)
    runs = simulate(
        problem, sgd, steps=25, replicas=8000, seed=1, start=start, keep=[5], progress=False
    )
    along = law.project(runs)
    for tree, expected in ((along["endpoints"], law), (along["snapshots"], law.after(5))):
        values = tree["params"].values.reshape(-1, 2)
        assert_mean_within(values, expected.mean(), resolve=1.3)
        # 8000 runs: a factor of 1.07 is seen.
        assert_variance_within(values, expected.covariance().diagonal())
    told = compare(along, law, seed=0, coordinates=False)
    assert not any(str(verdict).startswith("differs") for verdict in told.table["verdict"])


def test_a_pilot_of_a_large_network_is_measured_in_the_precision_of_its_params(monkeypatch):
    problem = network()
    sgd = SGD(0.1, noise.Minibatch(4, "without_replacement"), 0.5, 0.03)
    exact = ModeLaw.from_checkpoint(problem, sgd, PARAMS, 3, 9, pilot=2, seed=2).pilot
    monkeypatch.setattr("statsgd.laws.networks.pilot.DENSE_LIMIT", 1)
    single = ModeLaw.from_checkpoint(problem, sgd, PARAMS, 3, 9, pilot=2, seed=2).pilot
    scale = np.max(exact.noise_covariance)
    np.testing.assert_allclose(single.endpoint_noises, exact.endpoint_noises, atol=1e-5 * scale)
    np.testing.assert_allclose(single.endpoint_curvatures, exact.endpoint_curvatures, rtol=1e-5)
    assert np.any(single.endpoint_curvatures != exact.endpoint_curvatures)
    # Along more directions than noise has, rounding must not leave a variance below zero.
    twice = np.concatenate([np.eye(problem.dimension)[:, :2]] * 2, axis=1)
    ask = problem, PARAMS, sgd.noise, twice
    covariance, _ = noise_and_curvature_along(*ask, double=False)
    assert np.linalg.eigvalsh(covariance)[0] > -1e-12 * np.max(covariance)
    np.testing.assert_allclose(
        covariance, noise_and_curvature_along(*ask)[0], atol=1e-5 * np.max(covariance)
    )


def test_a_pilot_measures_how_noise_and_curvature_change():
    problem = network()
    sgd = SGD(0.1, noise.Minibatch(4, "without_replacement"), 0.5, 0.03)
    law = ModeLaw.from_checkpoint(problem, sgd, PARAMS, 3, 9, pilot=3, seed=2)
    runs = simulate(problem, sgd, steps=9, replicas=3, seed=2, start=PARAMS, progress=False)
    given = ModeLaw.from_checkpoint(problem, sgd, PARAMS, 3, 9, pilot=runs)
    ends = endpoint_trajectories(runs, problem.names).params[:, 0]
    matrices = [
        [np.asarray(of(problem, problem.unflatten(end), *more)) for end in ends]
        for of, more in ((noise.noise_covariance, (sgd.noise,)), (problems.hessian, ()))
    ]
    c, h = (np.array([law.modes.T @ one @ law.modes for one in those]) for those in matrices)
    for pilot in (law.pilot, given.pilot):
        np.testing.assert_allclose(pilot.noise_covariance, c.mean(0), rtol=1e-6, atol=1e-9)
        ratio = c.diagonal(axis1=1, axis2=2) / law.noise_covariance.diagonal()
        np.testing.assert_allclose(pilot.noise_growth.value, ratio.mean(0), rtol=1e-6)
        error = ratio.std(0, ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(pilot.noise_growth.standard_error, error, rtol=1e-5)
        curved = h.diagonal(axis1=1, axis2=2).mean(0) + 0.03
        np.testing.assert_allclose(pilot.curvatures, curved, rtol=1e-5)
        grown = pilot.curvature_growth.value * law.curvatures
        np.testing.assert_allclose(grown, curved, rtol=1e-5)
    corrected = law.corrected
    np.testing.assert_array_equal(corrected.curvatures, law.pilot.curvatures)
    np.testing.assert_array_equal(corrected.noise_at_end, law.pilot.noise_covariance)
    assert not np.allclose(corrected.covariance(), law.covariance(), rtol=0.01)
    others = law.corrected_without_each()
    for index, other in enumerate(others):
        kept = np.delete(c, index, axis=0).mean(0)
        np.testing.assert_allclose(other.noise_at_end, kept, rtol=1e-6, atol=1e-9)
    plain = ModeLaw([2.0], [[1.0]], 0.1)
    with pytest.raises(ValueError, match="pilot must be given"):
        _ = plain.corrected
    with pytest.raises(ValueError, match="pilot must be given"):
        plain.corrected_without_each()
    with pytest.raises(ValueError, match="pilot must be at least 2, got 1"):
        ModeLaw.from_checkpoint(problem, sgd, PARAMS, 3, 9, pilot=1)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(5))
def test_examples_pass_the_check(index):
    assert check(example("ModeLaw", index)).passed


def test_flat_directions_are_modes_too():
    # A direction that no example sees: no curvature, no noise, no motion.
    inputs = np.random.default_rng(0).normal(size=(20, 3)) * [1.0, 2.0, 0.0]
    problem = problems.linear_regression(inputs, inputs @ [1.0, 0.5, 0.0] + 1)
    law = ModeLaw.from_checkpoint(problem, SGD(0.05, noise.Minibatch(4)), np.ones(3), 3, 10)
    assert law.curvatures[2] == pytest.approx(0, abs=1e-12)
    assert law.covariance()[2, 2] == pytest.approx(0, abs=1e-12)
    assert law.covariance()[0, 0] > 1e-3


def test_the_stationary_form_alone_asks_for_a_minimum():
    for h in (-0.1, 0.0, 40.0):
        law = ModeLaw([2.0, h], np.eye(2), 0.1, 0.9)
        with pytest.raises(ImproperLawError, match=r"learning_rate\*h"):
            law.covariance()
        assert np.all(np.isfinite(law.after(50).covariance()))
    with pytest.raises(ImproperLawError, match="beyond the largest number"):
        ModeLaw([2.0], [[1.0]], 100.0, 0.9, 10_000).mean()


def test_what_is_wrong_is_named():
    problem, sgd = network(), SGD(0.1, noise.Minibatch(4), 0.5)
    for other, error in (
        (SGD(0.1, noise.Minibatch(4), 0.5, nesterov=True), "nesterov"),
        (SGD(0.1, noise.Minibatch(40, "without_replacement")), "batch_size must be at most"),
    ):
        with pytest.raises(ValueError, match=error):
            ModeLaw.from_checkpoint(problem, other, PARAMS, 2, 5)
    batches = problems.batch_risk(lambda x, pulls: jnp.mean(pulls @ x), PULLS, np.zeros(3))
    with pytest.raises(ValueError, match="losses of single examples, for this law, got Minibatch"):
        ModeLaw.from_checkpoint(batches, SGD(0.1, noise.Minibatch(2, "reshuffle")), np.zeros(3), 1)
    with pytest.raises(ValueError, match="independent_noise must go with num_batches"):
        ModeLaw([2.0], [[1.0]], 0.1, independent_noise=[[0.5]])
    with pytest.raises(ValueError, match="modes must be at most 10, got 32"):
        ModeLaw.from_checkpoint(problem, sgd, PARAMS, steps=5)
    broken = {**PARAMS, "bias": np.full(2, np.nan)}
    with pytest.raises(ValueError, match="finite loss"):
        ModeLaw.from_checkpoint(problem, sgd, broken, 2, 5)
    law = ModeLaw([2.0], [[1.0]], 0.1)
    with pytest.raises(ValueError, match="modes and checkpoint must be given"):
        law.project(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="10 parameters"):
        ModeLaw.from_checkpoint(problem, sgd, PARAMS, 2, 5).project(np.zeros((3, 2)))
