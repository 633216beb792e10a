"""Replica exchange: its swap, its invariant law, and two wells that MALA alone does not join."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from scipy.integrate import quad

from statsgd import sample
from statsgd.kernels import MALA, OBABO, ReplicaExchange, mixing
from statsgd.kernels.replica_exchange import swap_order, swap_probability
from statsgd.laws import Gibbs
from statsgd.problems.landscapes import smooth_wells
from tests.statistical import assert_mean_within

LADDER = np.geomspace(1.0, 12.0, 6)


def test_swap_probability_is_that_of_the_product_law():
    u, t = np.array([1.0, 3.0, 0.5]), np.array([0.5, 1.0, 4.0])
    for pair in (0, 1):
        exchanged = u.copy()
        exchanged[[pair, pair + 1]] = u[[pair + 1, pair]]
        expected = min(1.0, np.exp(np.sum(u / t) - np.sum(exchanged / t)))
        found = swap_probability(jnp.asarray(u), jnp.asarray(t))[pair]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    undefined = swap_probability(jnp.array([jnp.inf, jnp.inf]), jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(undefined, [0.0])


def test_even_and_odd_pairs_take_turns():
    certain, key = jnp.ones(4), jax.random.key(0)
    np.testing.assert_array_equal(swap_order(key, certain, jnp.array(0)), [1, 0, 3, 2, 4])
    np.testing.assert_array_equal(swap_order(key, certain, jnp.array(1)), [0, 2, 1, 4, 3])
    np.testing.assert_array_equal(swap_order(key, 0 * certain, jnp.array(0)), np.arange(5))


@pytest.mark.slow
def test_joins_two_wells_that_mala_does_not():
    # L_a, a = 2: minima 0 and 1 of equal height, curvatures 1 and 9, barrier 0.0881587 = 8.8 τ.
    # At τ = 0.01 the law has P(x < saddle) = 0.743155.
    law, saddle = Gibbs(smooth_wells(), 0.01), 0.6585913
    settings = {"warmup": 500, "draws": 1500, "chains": 32, "progress": False, "diagnose": False}
    # All chains start in the sharp well.
    kernel = ReplicaExchange(MALA(step_size=0.5), temperatures=LADDER)
    tree = sample(law, kernel, seed=1, starts=np.array([[1.0]]), **settings)
    left = tree["posterior"]["params"].values[..., 0] < saddle
    shares = left.mean(axis=1)
    assert_mean_within(shares, 0.743155, resolve=1.1)
    stats = tree["sample_stats"]
    assert stats["swap_accept_prob"].shape == (32, 1500, 5)
    assert float(stats["swap_accept_prob"].mean()) > 0.2
    trips = stats["round_trips"].values
    assert np.all(np.diff(trips, axis=1) >= 0)
    assert trips[:, -1].mean() > 10
    np.testing.assert_allclose(stats["round_trip_rate"].values[:, -1], trips[:, -1] / 1500)
    wells = np.array([[0.0], [1.0]])
    assert mixing(tree, wells).round_trips.mean() > 1
    alone = sample(law, MALA(step_size=0.5), seed=1, starts=wells, **settings)
    diagnosis = mixing(alone, wells)
    assert not diagnosis.mixed
    assert diagnosis.round_trips.mean() < 1
    # Half of the chains started in each well and most have stayed, though a quarter belongs there.
    assert np.mean(alone["posterior"]["params"].values[..., 0] < saddle) < 0.65


@pytest.mark.slow
def test_every_rung_keeps_its_own_law():
    # On the quartic each rung k has E x² under exp(−x⁴/(4T_k)), by quadrature; 200 chains.
    temperatures = np.array([0.5, 1.0, 3.0])
    kernel = ReplicaExchange(
        MALA(potential_fn=lambda z: z["x"] ** 4 / 4, step_size=0.4), temperatures=temperatures
    )
    mcmc = MCMC(
        kernel, num_warmup=200, num_samples=300, num_chains=200, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(
        jax.random.key(0),
        init_params={"x": jnp.ones(200)},
        extra_fields=("core.rungs.z", "core.round_trips"),
    )
    fields = mcmc.get_extra_fields(group_by_chain=True)
    squares = (np.asarray(fields["core.rungs.z"]["x"], float) ** 2).mean(axis=1)
    expected = [
        quad(lambda x, t=t: x**2 * np.exp(-(x**4) / 4 / t), -9, 9)[0]
        / quad(lambda x, t=t: np.exp(-(x**4) / 4 / t), -9, 9)[0]
        for t in temperatures
    ]
    assert_mean_within(squares, np.array(expected))
    cold = mcmc.get_samples(group_by_chain=True)["x"]
    np.testing.assert_array_equal(cold, fields["core.rungs.z"]["x"][..., 0])


def gamma():
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))


@pytest.mark.slow
def test_runs_under_every_chain_method_and_goes_on_bitwise():
    def go(kernel, method="vectorized", state=None):
        mcmc = MCMC(
            kernel, num_warmup=10, num_samples=30, num_chains=2, chain_method=method,
            progress_bar=False,
        )  # fmt: skip
        mcmc.post_warmup_state = state
        mcmc.run(jax.random.key(0) if state is None else state.rng_key)
        return mcmc

    inner = OBABO(gamma, step_size=0.3, adapt_step_size=False)
    kernel = ReplicaExchange(inner, temperatures=[1.0, 2.0, 4.0])
    first = go(kernel)
    draws = first.get_samples()["rate"]
    others = go(kernel, "sequential").get_samples()["rate"]
    np.testing.assert_allclose(draws, others, rtol=1e-4)
    state, copied = first.last_state, pickle.loads(pickle.dumps(kernel))
    np.testing.assert_array_equal(
        go(kernel, state=state).get_samples()["rate"], go(copied, state=state).get_samples()["rate"]
    )


@pytest.mark.slow
def test_velocities_stay_at_their_temperature():
    # On ½x² with OBABO, E x² = T_k at every rung and E v² = T_k, whatever was exchanged.
    temperatures = np.array([0.5, 1.0, 2.0])
    kernel = ReplicaExchange(
        OBABO(potential_fn=lambda z: z["x"] ** 2 / 2, step_size=0.5, adapt_step_size=False),
        temperatures=temperatures,
    )
    state = kernel.init(jax.random.split(jax.random.key(1), 4000), 0, {"x": jnp.ones(4000)}, (), {})
    state = jax.jit(
        lambda s: jax.lax.fori_loop(0, 60, lambda _, one: kernel.sample(one, (), {}), s)
    )(state)
    rungs = state.core.rungs
    x, v = (np.asarray(tree["x"], float) for tree in (rungs.z, rungs.core.velocity))
    assert_mean_within(x**2, temperatures)
    assert_mean_within(v**2, temperatures)
    np.testing.assert_allclose(rungs.core.energy, (x**2 + v**2) / 2, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.energy, rungs.energy[:, 0])


@pytest.mark.usefixtures("unchecked")
def test_bad_ladders_are_named():
    for ladder in ([1.0], [2.0, 1.0], 1.0, [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="temperatures must be at least two increasing"):
            ReplicaExchange(MALA(), temperatures=ladder)
    with pytest.raises(ValueError, match="temperatures must be positive"):
        ReplicaExchange(MALA(), temperatures=[0.0, 1.0])
    with pytest.raises(ValueError, match="inner_kernel must have adapt_preconditioner=None"):
        ReplicaExchange(MALA(adapt_preconditioner="dense"), temperatures=[1.0, 2.0])
    with pytest.raises(ValueError, match="inner_kernel must be a LangevinKernel"):
        ReplicaExchange("MALA", temperatures=[1.0, 2.0])
