"""What every kernel in the registry must do: exactness, chain methods, pickling, bad targets."""

import pickle

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from statsgd.kernels import KERNELS

SETTINGS = {"num_warmup": 500, "num_samples": 4000, "num_chains": 4, "progress_bar": False}


def skewed():
    """A target with a sign to get wrong, a constraint, and unequal scales."""
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("x", dist.Normal(jnp.array([1.0, -2.0]), jnp.array([1.0, 3.0])).to_event(1))


def run(kernel, key=0, **changes):
    mcmc = MCMC(kernel, chain_method="vectorized", **(SETTINGS | changes))
    mcmc.run(jax.random.key(key), extra_fields=("potential_energy", "accept_prob", "step_size"))
    return mcmc


def assert_mean(draws, expected, chains=4, sigmas=4):
    """The mean of chains `(chains, draws)` is `expected`, gated on the effective sample size."""
    draws = np.asarray(draws, dtype=float).reshape(chains, -1)
    effective = float(arviz.ess(draws, method="mean"))
    error = draws.std() / np.sqrt(effective)
    assert error < 0.1 * max(abs(expected), draws.std()), f"only {effective:.0f} effective draws"
    assert abs(draws.mean() - expected) < sigmas * error


@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_moments_of_a_skewed_target(kind):
    draws = run(kind.example(skewed)).get_samples()
    # Gamma(3, 2): mean 3/2, E log = ψ(3) − log 2, P(rate > 3) = e⁻⁶(1 + 6 + 18).
    assert_mean(draws["rate"], 1.5)
    assert_mean(draws["rate"] ** 2, 3.0)
    assert_mean(draws["rate"] > 3, np.exp(-6) * 25)
    assert_mean(draws["x"][:, 0], 1.0)
    assert_mean((draws["x"][:, 1] + 2) ** 2, 9.0)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_temperature_is_that_of_the_potential(kind, temperature):
    # exp(−U/T) of N(0, 1/λ) is N(0, T/λ).
    kernel = kind.example(potential_fn=lambda z: 2.0 * z["x"] ** 2, temperature=temperature)
    mcmc = MCMC(kernel, chain_method="vectorized", **SETTINGS)
    mcmc.run(jax.random.key(1), init_params={"x": jnp.ones(4)})
    assert_mean(mcmc.get_samples()["x"] ** 2, temperature / 4)


@pytest.mark.filterwarnings("ignore:There are not enough devices", "ignore:Some donated buffers")
@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_chain_methods_give_the_same_draws(kind):
    # At a fixed step: adaptation would turn a last digit into another path.
    fixed = {"step_size": 0.3, "adapt_step_size": False}
    short = {"num_warmup": 5, "num_samples": 30}
    reference = run(kind.example(skewed, **fixed), **short).get_samples()["x"]
    for method in ("sequential", "parallel", jax.vmap):
        mcmc = MCMC(kind.example(skewed, **fixed), chain_method=method, **(SETTINGS | short))
        mcmc.run(jax.random.key(0))
        np.testing.assert_allclose(mcmc.get_samples()["x"], reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_pickled_and_resumed_run_goes_on_bitwise(kind):
    mcmc = run(kind.example(skewed), num_samples=20)
    mcmc.post_warmup_state = mcmc.last_state
    state, kernel = mcmc.last_state, pickle.loads(pickle.dumps(mcmc.sampler))
    mcmc.run(state.rng_key)
    again = MCMC(kernel, chain_method="vectorized", **(SETTINGS | {"num_samples": 20}))
    again.post_warmup_state = state
    again.run(state.rng_key)
    np.testing.assert_array_equal(mcmc.get_samples()["x"], again.get_samples()["x"])


@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_arviz_reads_the_run(kind):
    tree = arviz.from_numpyro(run(kind.example(skewed), num_samples=50))
    stats = tree["sample_stats"]
    for name in ("lp", "acceptance_rate", "step_size", "diverging"):
        assert stats[name].shape == (4, 50)


@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_undefined_target_is_rejected_and_flagged_per_chain(kind):
    # The square root has no real value below zero: chain 0 starts near the edge, chain 1 far off.
    def potential(z):
        return (z["x"] - 0.2) ** 2 / 2 + 0 * jnp.sqrt(z["x"])

    kernel = kind.example(potential_fn=potential, step_size=0.5, adapt_step_size=False)
    settings = SETTINGS | {"num_chains": 2, "num_warmup": 0, "num_samples": 500}
    mcmc = MCMC(kernel, chain_method="vectorized", **settings)
    mcmc.run(
        jax.random.key(0),
        init_params={"x": jnp.array([0.1, 50.0])},
        extra_fields=("diverging",),
    )
    draws = mcmc.get_samples(group_by_chain=True)["x"]
    assert np.all(np.isfinite(draws))
    assert np.all(draws > 0)
    assert mcmc.get_extra_fields(group_by_chain=True)["diverging"][0].sum() > 10


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_bad_settings_are_named(kind):
    for settings, message in (
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"model": skewed, "potential_fn": skewed}, "only one of model and potential_fn"),
    ):
        with pytest.raises(ValueError, match=message):
            kind.example(**settings)
    with pytest.raises(ValueError, match="the kernel has no target"):
        MCMC(kind.example(), **SETTINGS, chain_method="vectorized").run(
            jax.random.key(0), init_params={"x": jnp.ones(4)}
        )


@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_kernel_describes_itself(kind):
    assert kind.citation
    assert kind.exactness
    assert kind.__doc__
