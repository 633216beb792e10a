"""Replicas and chains are distinct and uncorrelated, over every dynamics and every kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import statsgd
import statsgd.ensembles
from statsgd import SGD, noise, problems
from statsgd.dynamics import Diffusion, OptaxDynamics
from statsgd.laws import HeavyBallGaussian
from statsgd.running import stream_key
from statsgd.running.keys import with_own_keys
from tests.dynamics.test_noise import CASES, SURFACE
from tests.kernels.settings import SETTINGS, build
from tests.statistical import SIGMAS, assert_variance_within

REPLICAS, STEPS = 1024, 60
BOWL = problems.landscape(lambda params: 0.5 * jnp.sum(params**2), np.zeros(2))


def drift(params):
    return jax.tree.map(lambda leaf: -leaf, params)


def annealed_by_hand():
    """Noise of an optimiser whose keys are an array of two."""

    def init(params):
        return jax.random.split(jax.random.key(3), 2)

    def update(updates, keys, params=None):
        noises = [jax.random.normal(key, (2,)) for key in keys]
        return jax.tree.map(lambda u: -0.1 * (u + sum(noises)), updates), keys

    def split(updates, keys, params=None):
        updates, keys = update(updates, keys)
        return updates, jax.vmap(lambda key: jax.random.split(key, 1)[0])(keys)

    return optax.GradientTransformation(init, split)


NOISY = optax.noisy_sgd(0.1, eta=1.0, gamma=0.0, key=0)
DYNAMICS = {
    **{
        f"SGD {name} {i}": (SGD(0.05, one, 0.5), problem)
        for name, cases in CASES.items()
        if name != "NoNoise"
        for i, (one, problem, _) in enumerate(cases)
        # One order of examples for ever ends in a few cycles: see the reshuffled case.
        if "single_shuffle" not in str(getattr(one, "sampling", ""))
    },
    "Diffusion": (Diffusion(drift, 0.5, 0.1), BOWL),
    "Diffusion two_point": (Diffusion(drift, 0.5, 0.1, increments="two_point"), SURFACE),
    "UnderdampedDiffusion": (
        SGD(0.1, noise.Isotropic(1.0), 0.5).diffusion_limit(BOWL),
        BOWL,
    ),
    "optax adam": (OptaxDynamics(optax.adam(0.05), noise.Isotropic(1.0)), BOWL),
    "optax noisy_sgd": (OptaxDynamics(NOISY, noise.NoNoise()), BOWL),
    "optax noisy_sgd in a chain": (
        OptaxDynamics(optax.chain(optax.clip(10.0), NOISY), noise.NoNoise()),
        SURFACE,
    ),
    "optax keys in an array": (OptaxDynamics(annealed_by_hand(), noise.NoNoise()), BOWL),
}


def uniform(points):
    """Ranks of each column, of mean 0 and variance 1: correlations of them know no tails."""
    return (np.argsort(np.argsort(points, axis=0), axis=0) / len(points) - 0.5) * np.sqrt(12)


def every(names, *default):
    """Over all names, those not in `default` with the slow tests."""
    return pytest.mark.parametrize(
        "name", [n if n in default else pytest.param(n, marks=pytest.mark.slow) for n in names]
    )


def assert_independent(points, *others):
    """Rows of `(replica, d)` are distinct and uncorrelated, among each other and with `others`."""
    points = np.asarray(points, dtype=float)
    # Noise along one direction may leave a coordinate without any.
    moving = np.array([len(np.unique(column)) > 1 for column in points.T])
    assert moving.any()
    points, others = points[:, moving], [np.asarray(o, dtype=float)[:, moving] for o in others]
    assert len(np.unique(points, axis=0)) == len(points)
    z = uniform(points)
    for lag in (1, 2, 3, 16, 63, 64, 65, len(z) // 2):
        products = z[lag:] * z[:-lag]
        assert np.all(np.abs(products.mean(0)) < SIGMAS * products.std(0) / np.sqrt(len(products)))
    for other in others:
        assert not set(map(tuple, points)) & set(map(tuple, other))
        products = z * uniform(other)
        assert np.all(np.abs(products.mean(0)) < SIGMAS * products.std(0) / np.sqrt(len(products)))


def ends(dynamics, problem, seed, **changes):
    options = {"steps": STEPS, "replicas": REPLICAS, "progress": False, "allow_unstable": True}
    tree = statsgd.simulate(problem, dynamics, seed=seed, **(options | changes))
    return statsgd.ensembles.endpoint_trajectories(tree).params[:, 0]


@every(DYNAMICS, "SGD Minibatch 1", "SGD Isotropic 0", "Diffusion", "optax noisy_sgd")
def test_replicas_of_every_dynamics(name):
    dynamics, problem = DYNAMICS[name]
    assert_independent(ends(dynamics, problem, 0), ends(dynamics, problem, 1))


@every(DYNAMICS, "SGD Minibatch 1", "optax noisy_sgd")
def test_replicas_that_go_on_of_every_dynamics(name):
    # All from one state, so that what they share with the first run could only be its noise.
    dynamics, problem = DYNAMICS[name]
    options = {"steps": STEPS, "progress": False, "allow_unstable": True}
    first = statsgd.simulate(problem, dynamics, seed=0, replicas=REPLICAS, **options)
    alike = first.isel(replica=[0] * REPLICAS)
    before = statsgd.ensembles.endpoint_trajectories(first).params[:, 0]
    again, anew = (ends(dynamics, problem, seed, start=alike) for seed in (0, 1))
    assert_independent(again, before, anew)
    assert_independent(anew, before)


@every([n for n in SETTINGS if n != "MeanFieldLangevin"], "MALA", "SGLD")
def test_chains_of_every_kernel(name):
    # The chains of mean-field dynamics interact: they are one system.
    law = HeavyBallGaussian(np.eye(2), np.eye(2), 0.5, 0.0)

    def last(seed):
        tree = statsgd.sample(
            law, build(name), warmup=0, draws=30, chains=512, seed=seed, progress=False,
            diagnose=False,
        )  # fmt: skip
        draws = tree["posterior"]["params"].values
        return draws[:, -1].reshape(512, -1)

    assert_independent(last(0), last(1))


def test_noise_of_an_optimiser_has_the_variance_of_its_formula():
    # θ ← θ − η(θ + n) with independent n of variance 1: η / (2 − η).
    dynamics = OptaxDynamics(NOISY, noise.NoNoise())
    assert_variance_within(ends(dynamics, BOWL, 0, replicas=6000), 0.1 / 1.9, mean=0.0)


def test_noise_of_an_optimiser_differs_between_cells_with_seeds_of_their_own():
    dynamics = OptaxDynamics(NOISY, noise.NoNoise())
    tree = statsgd.simulate(
        BOWL, statsgd.batch([dynamics, dynamics]), steps=STEPS, replicas=REPLICAS, seed=[0, 1],
        progress=False,
    )  # fmt: skip
    one, other = tree["endpoints"].params.values
    assert_independent(one, other)
    np.testing.assert_array_equal(one, ends(dynamics, BOWL, 0).astype(np.float32))


@pytest.mark.slow
def test_noise_of_an_optimiser_survives_a_store_and_does_not_depend_on_blocks(tmp_path):
    dynamics = OptaxDynamics(NOISY, noise.NoNoise())
    whole = ends(dynamics, BOWL, 0)
    for _ in range(2):
        np.testing.assert_array_equal(ends(dynamics, BOWL, 0, store=tmp_path / "store"), whole)
    np.testing.assert_array_equal(ends(dynamics, BOWL, 0, block_size=16), whole)
    np.testing.assert_array_equal(ends(dynamics, BOWL, 0, replicas=64), whole[:64])


def test_keys_of_their_own():
    state = (jnp.ones(2), jax.random.key(0), jax.random.split(jax.random.key(1), 3))
    found = [with_own_keys(state, stream_key(seed)) for seed in (0, 0, 1)]
    words = [
        np.concatenate([np.ravel(jax.random.key_data(key)) for key in own[1:]]) for own in found
    ]
    np.testing.assert_array_equal(words[0], words[1])
    assert len(np.unique(np.concatenate([words[0], words[2]]))) == 16
    assert found[0][1].dtype == state[1].dtype
    np.testing.assert_array_equal(found[0][0], 1.0)
    # Another key of the optimiser gives other noise.
    other = with_own_keys((state[0], jax.random.key(5), state[2]), stream_key(0))
    assert not np.any(jax.random.key_data(other[1]) == jax.random.key_data(found[0][1]))


def test_keys_as_plain_numbers_are_refused():
    def init(params):
        return {"rng": jax.random.PRNGKey(0)}

    raw = optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    with pytest.raises(ValueError, match=r"as jax\.random\.key.*state\['rng'\]"):
        ends(OptaxDynamics(raw, noise.NoNoise()), BOWL, 0)
