"""What every kernel in the registry must do: its law on every target, and bad targets."""

import functools

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from statsgd.kernels import KERNELS
from tests.kernels import targets
from tests.kernels.settings import BRISK, EXACT, PRECONDITIONER, SETTINGS, at_temperature, build

RUN = {"num_warmup": 500, "num_samples": 4000, "num_chains": 4, "progress_bar": False}
TEMPERATURES = (0.25, 1.0, 4.0)


def every_kernel(*default):
    """Over all kernels, those not in `default` with the slow tests."""
    return pytest.mark.parametrize(
        "name", [n if n in default else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS]
    )


def skewed():
    """A target with a sign to get wrong, a constraint, and unequal scales."""
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("x", dist.Normal(jnp.array([1.0, -2.0]), jnp.array([1.0, 3.0])).to_event(1))


def run(kernel, key=0, **changes):
    mcmc = MCMC(kernel, **({"chain_method": "vectorized"} | RUN | changes))
    mcmc.run(jax.random.key(key), extra_fields=("potential_energy", "accept_prob", "step_size"))
    return mcmc


def assert_mean(draws, expected, chains=4, sigmas=4, allowed=0.0):
    """The mean of chains `(chains, draws)` is `expected`, gated on the effective sample size.

    `allowed` is a bias that is known of, relative to the standard deviation of the draws.
    """
    draws = np.asarray(draws, dtype=float).reshape(chains, -1)
    effective = float(arviz.ess(draws, method="mean"))
    error = draws.std() / np.sqrt(effective)
    assert error < 0.1 * max(abs(expected), draws.std()), f"only {effective:.0f} effective draws"
    assert abs(draws.mean() - expected) < sigmas * error + allowed * draws.std()


def evolve(kernel, positions, steps, thin=1):
    """Positions by temperature and chain every `thin` steps, acceptance and flags."""

    @jax.jit
    def at(temperature, start, key):
        parameters = at_temperature(kernel, temperature)
        bound = kernel.bind(None, parameters, potential_fn=kernel.potential_fn)
        state = bound.init(jax.random.split(key, len(start)), 0, start, (), {})

        def stretch(state, _):
            state = jax.lax.fori_loop(0, thin, lambda _, s: bound.sample(s, (), {}), state)
            return state, (state.z, state.accept_prob, state.diverging)

        return jax.lax.scan(stretch, state, None, steps // thin)[1]

    keys = jax.random.split(jax.random.key(7), len(TEMPERATURES))
    rows = [
        at(jnp.float32(t), jnp.asarray(start, jnp.float32), key)
        for t, start, key in zip(TEMPERATURES, positions, keys, strict=True)
    ]
    return [np.stack([np.asarray(row[i], float) for row in rows]) for i in range(3)]


@functools.cache
def exact_draws(number):
    return [targets.draw(np.random.default_rng(5), t, number) for t in TEMPERATURES]


@every_kernel("MALA", "BAOAB")
def test_exact_draws_stay_exact(name):
    # Chains start in the law itself and are independent: after twelve relaxation times of the
    # unimodal parts an exact kernel is in it still, an unadjusted one in its own biased law.
    setting, number = SETTINGS[name], 8000
    scales = {"preconditioner": PRECONDITIONER} if setting.preconditioned else {}
    kernel = build(name, potential_fn=targets.potential, adapt_step_size=False, **scales)
    start = exact_draws(number)
    steps = int(np.ceil(setting.relaxations / setting.step_size))
    draws, accepted, diverging = evolve(kernel, start, steps, thin=steps)
    assert not np.any(diverging)
    for t, before, after in zip(TEMPERATURES, start, draws[:, 0], strict=True):
        mean, variance, quantile = targets.expected(t)
        if setting.gaussian_variance is not None:
            curvature = np.array([1.0, 100.0]) * PRECONDITIONER[:2]
            factor = setting.gaussian_variance(setting.step_size, curvature)
            variance[:2] *= factor
            quantile[:2] *= np.sqrt(factor)
        allowed = np.full(7, setting.tolerance)
        if setting.gaussian_variance is not None:
            allowed[:2] = 0.0
        close(
            after.mean(axis=0), mean, after.std(axis=0) / np.sqrt(number), allowed * variance**0.5
        )
        squares = (after - after.mean(axis=0)) ** 2
        close(squares.mean(axis=0), variance, squares.std(axis=0) / number**0.5, allowed * variance)
        above = np.mean(after > quantile, axis=0)
        close(above, 0.1, np.sqrt(0.09 / number), allowed)
        # Nothing stands still: what a chain was says little of what it is.
        kept = [np.corrcoef(before[:, i], after[:, i])[0, 1] for i in range(6)]
        assert np.max(np.abs(kept)) < 0.6
    if name in EXACT:
        assert 0.4 < accepted.mean() < 0.95


def close(value, expected, error, allowed):
    off = np.abs(value - expected) - allowed
    assert np.all(off < 4 * error), f"{value} against {expected}: {off / error} standard errors"


@every_kernel()
def test_moments_of_a_constrained_model(name):
    chains, allowed = 32, SETTINGS[name].tolerance
    kernel = build(name, skewed, **BRISK.get(name, {}))
    draws = run(kernel, num_chains=chains, num_samples=2000).get_samples()
    # Gamma(3, 2): mean 3/2, E log = ψ(3) − log 2, P(rate > 3) = e⁻⁶(1 + 6 + 18).
    for values, expected in (
        (draws["rate"], 1.5),
        (draws["rate"] ** 2, 3.0),
        (draws["rate"] > 3, np.exp(-6) * 25),
        (draws["x"][:, 0], 1.0),
        ((draws["x"][:, 1] + 2) ** 2, 9.0),
    ):
        assert_mean(values, expected, chains, allowed=allowed)


@every_kernel("MALA", "BAOAB")
def test_undefined_target_is_refused_and_flagged_per_chain(name):
    # The square root has no real value below zero: chain 0 starts near the edge, chain 1 far off.
    def potential(z):
        return (z["x"] - 0.2) ** 2 / 2 + 0 * jnp.sqrt(z["x"])

    kernel = build(name, potential_fn=potential, step_size=0.5, adapt_step_size=False)
    settings = RUN | {"num_chains": 2, "num_warmup": 0, "num_samples": 500}
    mcmc = MCMC(kernel, chain_method="vectorized", **settings)
    mcmc.run(
        jax.random.key(0),
        init_params={"x": jnp.array([0.1, 500.0])},
        extra_fields=("diverging", "potential_energy", "accept_prob", "step_size", "energy"),
    )
    draws = mcmc.get_samples(group_by_chain=True)["x"]
    assert np.all(np.isfinite(draws))
    assert np.all(draws > 0)
    flags = mcmc.get_extra_fields(group_by_chain=True)["diverging"]
    assert flags[0].sum() > 10
    assert not flags[1, :3].any()
    stats = arviz.from_numpyro(mcmc)["sample_stats"]
    for field in ("lp", "acceptance_rate", "step_size", "diverging", "energy"):
        assert stats[field].shape == (2, 500)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_are_named(name):
    for settings, message in (
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"model": skewed, "potential_fn": skewed}, "only one of model and potential_fn"),
        ({"model": 0.5}, "model must be a function, got 0.5; the arguments are"),
        ({"potential_fn": 0.5}, "potential_fn must be a function, got 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            build(name, **settings)
    with pytest.raises(ValueError, match="the kernel has no target"):
        MCMC(build(name), **RUN, chain_method="vectorized").run(
            jax.random.key(0), init_params={"x": jnp.ones(4)}
        )


def test_every_kernel_is_in_the_battery():
    assert set(SETTINGS) == set(KERNELS)


@pytest.mark.parametrize("kind", KERNELS.values(), ids=KERNELS)
def test_kernel_describes_itself(kind):
    assert kind.citation
    assert kind.exactness
    assert kind.__doc__
