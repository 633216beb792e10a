"""Ensembles: what they return, and that nothing but the arguments decides it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.dynamics.advance import SEGMENT
from statsgd.laws import HeavyBallGaussian
from statsgd.noise import Anisotropic, Isotropic, Minibatch, NoNoise
from statsgd.problems import landscape, linear_regression

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
TARGETS = INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24)
PROBLEM = linear_regression(INPUTS, TARGETS)
SGD = statsgd.SGD(0.05, Minibatch(4, "reshuffle"), momentum=0.5)
OPTIONS = {
    "steps": 50,
    "replicas": 23,
    "seed": 3,
    "progress": False,
    "observe": {"norm": lambda params: jnp.sum(params**2)},
    "observe_at": [0, 7, 16, 33, 50],
    "keep": 20,
}


@pytest.fixture(scope="module")
def reference():
    return statsgd.simulate(PROBLEM, SGD, **OPTIONS)


def test_groups_dims_and_coordinates(reference):
    assert set(reference.children) == {
        "endpoints",
        "momentum_buffer",
        "observables",
        "snapshots",
        "snapshots_momentum_buffer",
        "run",
    }
    assert reference["endpoints"].params.dims == ("replica", "params_dim_0")
    assert reference["observables"].norm.dims == ("replica", "step")
    assert reference["observables"].step.values.tolist() == [0, 7, 16, 33, 50]
    assert reference["snapshots"].step.values.tolist() == [20, 40]
    assert reference["run"].steps.values.tolist() == [50] * 23
    assert not reference["run"].diverged.any()
    last = np.sum(reference["endpoints"].params.values ** 2, axis=1)
    np.testing.assert_allclose(reference["observables"].norm[:, -1], last, rtol=1e-6)
    assert np.all(reference["observables"].norm[:, 0] == 0)


@pytest.mark.parametrize("block_size", [16, pytest.param(32, marks=pytest.mark.slow)])
def test_blocks_of_whole_vectors_do_not_change_a_bit(block_size):
    options = OPTIONS | {"replicas": 64}
    one = statsgd.simulate(PROBLEM, SGD, **options)
    assert statsgd.simulate(PROBLEM, SGD, block_size=block_size, **options).identical(one)


@pytest.mark.parametrize(
    "block_size", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_other_blocks_may_round_differently_but_no_more(reference, block_size):
    other = statsgd.simulate(PROBLEM, SGD, block_size=block_size, **OPTIONS)
    np.testing.assert_allclose(other["endpoints"].params, reference["endpoints"].params, rtol=1e-5)
    np.testing.assert_array_equal(other["run"].steps, reference["run"].steps)


def test_replicas_do_not_depend_on_how_many_there_are():
    # Both in blocks of 64.
    many, fewer = (statsgd.simulate(PROBLEM, SGD, **(OPTIONS | {"replicas": n})) for n in (90, 70))
    assert fewer["endpoints"].equals(many["endpoints"].isel(replica=slice(70)))


def test_chunks_do_not_change_a_bit(reference, monkeypatch):
    monkeypatch.setattr("statsgd.running.chunks._SECONDS_PER_CHUNK", 0.0)
    assert statsgd.simulate(PROBLEM, SGD, **OPTIONS).identical(reference)


def growing(params):
    # From θ > 0 the step θ ← θ + ηθ³ overflows after a while; θ = 0 stays.
    return -0.25 * jnp.sum(params**4)


@pytest.mark.parametrize(
    ("phases", "block_size"),
    [
        (1, 1),
        (10, 4),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 4), (10, 1))),
    ],
)
def test_divergence_is_frozen_at_the_last_finite_state(block_size, phases):
    problem = landscape(growing, np.zeros(1))
    start = np.array([[0.0], [1.0], [2.0], [0.0], [0.5], [0.01]], dtype=np.float32)
    sgd = statsgd.SGD(0.1, NoNoise())
    result = statsgd.simulate(
        problem,
        sgd,
        steps=100,
        replicas=6,
        seed=0,
        start=start,
        progress=False,
        block_size=block_size,
        phases=phases,
        observe={"value": lambda params: params[0]},
        observe_at=1,
    )
    values = start[:, 0].copy()
    expected = np.full(6, -1)
    last = values.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, 101):
            values = values + np.float32(0.1) * values**3
            expected[(expected < 0) & ~np.isfinite(values)] = step
            last = np.where(expected < 0, values, last)
    assert np.any(expected > SEGMENT // 4)
    assert np.any(expected < 0)
    run = result["run"]
    np.testing.assert_array_equal(run.diverged_at, expected)
    np.testing.assert_array_equal(run.diverged, expected >= 0)
    np.testing.assert_array_equal(run.steps.values[expected >= 0], expected[expected >= 0] - 1)
    endpoints = result["endpoints"].params.values[:, 0]
    assert np.all(np.isfinite(endpoints))
    ran_on = (expected >= 0) | (phases == 1)  # the others ended earlier on their way
    np.testing.assert_allclose(endpoints[ran_on], last[ran_on], rtol=1e-3)
    observed = result["observables"].value.values
    assert np.all(np.isfinite(observed))
    for replica in np.flatnonzero(expected >= 0):
        assert np.all(observed[replica, expected[replica] :] == endpoints[replica])


def test_phases_are_uniform_and_the_run_stops_there():
    result = statsgd.simulate(
        PROBLEM, SGD, steps=60, replicas=3000, seed=5, progress=False, phases=6
    )
    counts = np.bincount(result["run"].steps.values, minlength=61)[55:]
    assert counts.sum() == 3000
    assert np.all(np.abs(counts - 500) < 4 * np.sqrt(500))
    whole = statsgd.simulate(PROBLEM, SGD, steps=60, replicas=3000, seed=5, progress=False)
    ended = result["run"].steps.values == 60
    np.testing.assert_allclose(
        result["endpoints"].params.values[ended], whole["endpoints"].params.values[ended], rtol=1e-5
    )


# d = 1, x = (1,−1,2,.5,−.5,1.5), y = (1,0,1,1,−1,2): enumeration of all 720 permutations.
SIX = linear_regression(
    np.array([[1.0], [-1.0], [2.0], [0.5], [-0.5], [1.5]]),
    np.array([1.0, 0.0, 1.0, 1.0, -1.0, 2.0]),
)


def six(scheme, phases, replicas=60_000):
    sgd = statsgd.SGD(0.1, Minibatch(2, scheme))
    result = statsgd.simulate(
        SIX, sgd, steps=120, replicas=replicas, seed=9, progress=False, phases=phases
    )
    return result["endpoints"].params.values[:, 0].astype(np.float64) - 0.8


def assert_mean(values, expected):
    # Replicas are independent, so the standard error is theirs.
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 4 * error
    return error


@pytest.mark.slow
def test_reshuffled_epochs_end_where_enumeration_says():
    deviation = six("reshuffle", 1)
    assert_mean(deviation, -6.235007e-3)
    error = assert_mean(deviation**2, 2.908262e-4)
    assert 4 * error < 0.1 * 2.908262e-4
    assert_mean((deviation + 6.235007e-3) ** 2, 2.519509e-4)


def test_random_phases_of_an_epoch_are_where_enumeration_says():
    error = assert_mean(six("reshuffle", 3) ** 2, 1.816934e-3)
    assert 4 * error < 0.1 * 1.816934e-3


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("with_replacement", 1.190885e-2), ("without_replacement", 9.464236e-3)],
)
def test_white_batches_have_the_exact_variance(scheme, expected):
    deviation = six(scheme, 1)
    assert_mean(deviation, 0.0)
    error = assert_mean(deviation**2, expected)
    assert 4 * error < 0.1 * expected


# Additive noise: M numbers of mean 0 and mean square 1 as targets, one to a batch; c = 1, and
# inputs √h scaled so that every batch has curvature h. Rows of (η, h, β, M, average, end, single).
EPOCHS = [
    (0.1, 1.0, 0.0, 20, 2.466983e-2, 1.418040e-2, 1.810562e-2),
    (0.1, 0.1, 0.0, 20, 3.364538e-2, 1.769393e-3, 1.766455e-2),
    (0.05, 0.3, 0.5, 7, 8.127547e-3, 2.050579e-3, 2.169282e-3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("eta", "h", "beta", "m", "average", "end", "single"), EPOCHS)
def test_epoch_noise_has_the_exact_variance(eta, h, beta, m, average, end, single):
    xi = np.random.default_rng(0).normal(size=m)
    xi = (xi - xi.mean()) / xi.std()
    problem = linear_regression(np.full((m, 1), np.sqrt(h)), xi / np.sqrt(h))
    epochs = int(np.ceil(8 * (1 - beta) / (eta * h * m))) + 3

    def variance(scheme, phases):
        result = statsgd.simulate(
            problem,
            statsgd.SGD(eta, Minibatch(1, scheme), beta),
            steps=epochs * m,
            replicas=20_000,
            seed=4,
            progress=False,
            phases=phases,
        )
        return result["endpoints"].params.values[:, 0].astype(np.float64) ** 2

    assert_mean(variance("reshuffle", m), average)
    error = assert_mean(variance("reshuffle", 1), end)
    assert 4 * error < 0.1 * end
    assert_mean(variance("single_shuffle", m), single)


def test_heavy_ball_endpoints_have_the_exact_joint_law():
    hessian = np.array([[2.0, 0.3], [0.3, 0.7]])
    noise = np.array([[1.0, 0.6], [0.6, 0.8]])
    problem = landscape(lambda x: 0.5 * x @ jnp.asarray(hessian, x.dtype) @ x, np.zeros(2))
    law = HeavyBallGaussian(hessian, noise, 0.3, 0.5)
    result = statsgd.simulate(
        problem,
        statsgd.SGD(0.3, Anisotropic(noise), 0.5),
        steps=150,
        replicas=40_000,
        seed=1,
        progress=False,
    )
    state = np.concatenate(
        [result["endpoints"].params.values, result["momentum_buffer"].params.values], axis=1
    ).astype(np.float64)
    products = state[:, :, None] * state[:, None, :]
    error = products.std(0) / np.sqrt(len(state))
    assert np.all(np.abs(products.mean(0) - law.joint) < 4 * error)
    assert 4 * error[0, 0] < 0.1 * law.joint[0, 0]


def test_a_change_of_numbers_does_not_compile_again():
    traces = []

    def loss(params):
        traces.append(None)
        return 0.5 * jnp.sum(params**2)

    problem = landscape(loss, np.ones(2))

    def run(rate, variance, seed, steps):
        before = len(traces)
        sgd = statsgd.SGD(rate, Isotropic(variance), 0.1)
        statsgd.simulate(problem, sgd, steps=steps, replicas=4, seed=seed, progress=False)
        return len(traces) - before

    first = run(0.1, 1.0, 0, 30)
    assert first > 0
    assert run(0.2, 0.5, 7, 300) == 0


@pytest.mark.usefixtures("unchecked")
def test_arguments_are_checked_before_anything_is_written(tmp_path):
    def run(**changes):
        options = {"steps": 10, "replicas": 4, "seed": 0, "progress": False}
        return statsgd.simulate(PROBLEM, SGD, **(options | changes), store=tmp_path / "store")

    for changes, message in [
        ({"steps": 0}, "steps must be at least 1"),
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"phases": 11}, "phases must be at most steps = 10"),
        ({"phases": 0}, "phases must be at least 1"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"keep": [10], "phases": 3}, "keep must be steps between 0 and 8"),
        ({"start": np.zeros(4)}, "start must have leaves of shape"),
        ({"start": np.full(3, np.nan)}, "start must be finite"),
        ({"observe": {"x": 3}}, "observe must map names to functions"),
        ({"seed": -1}, "seed must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(**changes)
    with pytest.raises(ValueError, match="learning_rate must be below"):
        statsgd.simulate(
            PROBLEM, statsgd.SGD(5.0, NoNoise()), steps=10, replicas=2, seed=0, progress=False
        )
    assert not (tmp_path / "store").exists()


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        result = statsgd.simulate(PROBLEM, SGD, steps=20, replicas=3, seed=0, progress=False)
    assert result["endpoints"].params.dtype == np.float64
