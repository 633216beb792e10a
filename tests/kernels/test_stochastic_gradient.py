"""What the stochastic-gradient kernels share: scaling, variance reduction, batches, bad targets."""

import functools
import itertools
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from numpyro.infer.util import potential_energy

from statsgd import sample
from statsgd.dynamics.noise import Isotropic, Minibatch
from statsgd.kernels import KERNELS, SGHMC, SGLD, SGWORLD
from statsgd.kernels.stochastic_gradient import reference_at
from statsgd.kernels.stochastic_potential import PlatePotential, RiskPotential
from statsgd.laws import Gibbs
from statsgd.problems import empirical_risk, landscape
from tests.kernels.stochastic import mean_problem, normal_scores, plate_model, walk
from tests.statistical import assert_mean_within

NAMES = ("SGLD", "PreconditionedSGLD", "SGHMC", "SGNHT", "SGWORLD")
RANDOM = np.random.default_rng(3)
INPUTS, LABELS = RANDOM.standard_normal((6, 2)), np.array([0, 1, 1, 0, 1, 0])


def logistic(params, example):
    x, y = example
    return jnp.logaddexp(0.0, x @ params) - y * (x @ params)


def logistic_model(batch_size):
    params = numpyro.sample("params", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("data", 6, subsample_size=batch_size) as index:
        logits = jnp.asarray(INPUTS)[index] @ params
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=jnp.asarray(LABELS)[index])


def targets():
    """The same posterior as a problem and as a model, at batches of 2 of 6."""
    problem = empirical_risk(logistic, (INPUTS, LABELS), np.zeros(2))
    prior = lambda params: -jnp.sum(params**2) / 8 - jnp.log(8 * jnp.pi)  # noqa: E731
    noise = Minibatch(2, "without_replacement")
    risk = SGLD.from_problem(problem, noise, log_prior=prior)._potential((), {})
    kernel = SGLD(functools.partial(logistic_model, 2))
    kernel.init(jax.random.key(0), 0, None, (), {})
    plate = kernel._potential((), {})
    return (risk, lambda p: p, problem.take), (
        plate,
        lambda p: {"params": p},
        lambda i: {"data": i},
    )


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("reduced", [False, True])
def test_mean_over_all_minibatches_is_the_full_gradient(which, reduced):
    potential, wrap, batch = targets()[which]
    assert isinstance(potential, (RiskPotential, PlatePotential)[which])
    point, mode = wrap(jnp.array([0.4, -0.7])), wrap(jnp.array([0.3, -0.5]))
    subsets = jnp.array(list(itertools.combinations(range(6), 2)))

    @jax.jit
    def estimates(at):
        return jax.lax.map(lambda i: jax.value_and_grad(potential.on_batch)(at, batch(i)), subsets)

    value, gradient = estimates(point)
    value, gradient = np.asarray(value), np.asarray(jax.tree.leaves(gradient)[0])
    plain = gradient.var(axis=0)
    if reduced:
        reference = reference_at(mode, potential)
        there, back = estimates(mode)
        value = value - there + reference.potential
        gradient = gradient - jax.tree.leaves(back)[0] + jax.tree.leaves(reference.gradient)[0]
        assert np.all(gradient.var(axis=0) < 0.05 * plain)
    full, slope = jax.value_and_grad(potential)(point)
    np.testing.assert_allclose(value.mean(), full, rtol=1e-5)
    np.testing.assert_allclose(gradient.mean(axis=0), jax.tree.leaves(slope)[0], rtol=1e-4)
    # NumPyro's own value on all data.
    own = potential_energy(
        functools.partial(logistic_model, None), (), {}, {"params": np.array([0.4, -0.7])}
    )
    np.testing.assert_allclose(full, own, rtol=1e-5)


def test_weight_decay_is_part_of_every_gradient():
    # U = N(L + λθ²/2) with L = mean (y − θ)²/2 has ∇U = N(θ − ȳ + λθ).
    data = np.array([1.0, 2.0, 6.0, 3.0])
    kernel = SGLD.from_problem(mean_problem(data), Minibatch(2), weight_decay=0.5)
    slope = jax.grad(kernel._potential((), {}))({"x": jnp.asarray(2.0)})
    np.testing.assert_allclose(slope["x"], 4 * (2.0 - 3.0 + 0.5 * 2.0), atol=1e-5)


@pytest.mark.parametrize(
    "reduction", ["svrg", pytest.param("control_variate", marks=pytest.mark.slow)]
)
def test_variance_reduction_removes_the_bias_of_minibatches(reduction):
    # Additive noise cancels exactly: V·h = 1/(1 − ε/2) where plain SGLD has (1 + εM/2)/(1 − ε/2).
    problem = mean_problem(normal_scores(20, 0))
    at = {"x": 0.7} if reduction == "control_variate" else None
    kernel = SGLD.from_problem(
        problem,
        Minibatch(1),
        step_size=0.1 / 20,
        variance_reduction=reduction,
        at=at,
        refresh_every=7,
    )
    end = walk(kernel, {"x": np.zeros(8000)}, 50)
    x = np.asarray(end.z["x"], float)
    assert_mean_within(x**2, 1 / 20 / (1 - 0.05))
    if reduction == "svrg":
        # The last snapshot was taken at step 49, a step before the end.
        stale = np.asarray(end.core.estimate.reference.position["x"])
        assert 0 < np.abs(stale - x).mean() < 0.15


def run(kernel, *args, init_params=None, key=0, **changes):
    settings = {"num_warmup": 5, "num_samples": 40, "num_chains": 2, "progress_bar": False}
    mcmc = MCMC(kernel, **({"chain_method": "vectorized"} | settings | changes))
    mcmc.run(jax.random.key(key), *args, init_params=init_params, extra_fields=("diverging",))
    return mcmc


def test_posterior_of_a_subsampled_model():
    # y ~ N(x, 1), N = 20: precision 20 + 1/100; SGHMC's heat is hC/(2ζ) of T = 1.
    data = normal_scores(20, 0) + 1.5
    model = functools.partial(plate_model, data, 5)
    end = walk(SGHMC(model, step_size=0.02, friction=8.0), {"x": np.zeros(4000)}, 200)
    x = np.asarray(end.z["x"], float)
    assert_mean_within(x, 1.5 * 20 / 20.01)
    # C without replacement: N² s²(N−S)/(S(N−1)) = 400·15/95.
    heat = 1 + 0.02 * (400 * 15 / 95) / 16
    expected = heat * 2 * 1.84 / (20.01 * (2 * 1.84 - 0.0004 * 20.01))
    assert_mean_within((x - x.mean()) ** 2, expected, resolve=1.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_chain_methods_pickling_and_resuming(name):
    data = normal_scores(12, 0)
    kernel = KERNELS[name](plate_model, step_size=0.01, variance_reduction="svrg", refresh_every=3)
    mcmc = run(kernel, data, 3)
    draws = mcmc.get_samples()["x"]
    again = run(
        KERNELS[name](plate_model, step_size=0.01, variance_reduction="svrg", refresh_every=3),
        data,
        3,
        chain_method="sequential",
    )
    np.testing.assert_allclose(again.get_samples()["x"], draws, rtol=1e-4, atol=1e-5)
    mcmc.post_warmup_state = state = mcmc.last_state
    mcmc.run(state.rng_key, data, 3)
    fresh = MCMC(
        pickle.loads(pickle.dumps(kernel)),
        num_warmup=5,
        num_samples=40,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    fresh.post_warmup_state = state
    fresh.run(state.rng_key, data, 3)
    np.testing.assert_array_equal(mcmc.get_samples()["x"], fresh.get_samples()["x"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    NAMES,
)
def test_undefined_gradients_freeze_one_chain_alone(name):
    # Chain 0 starts where the loss of every example is NaN, chain 1 walks.
    problem = empirical_risk(
        lambda p, y: (p["x"] - y) ** 2 / 2 + 0 * jnp.sqrt(p["x"] + 50),
        np.arange(4.0),
        {"x": np.zeros(())},
    )
    noise = Minibatch(2, "reshuffle")
    kernel = KERNELS[name].from_problem(problem, noise, step_size=0.05)
    mcmc = run(kernel, init_params={"x": jnp.array([-60.0, 1.0])})
    draws = mcmc.get_samples(group_by_chain=True)["x"]
    flags = mcmc.get_extra_fields(group_by_chain=True)["diverging"]
    assert np.all(draws[0] == -60.0)
    assert flags[0].all()
    assert not flags[1].any()
    assert len(np.unique(draws[1])) == 40


def test_runs_under_sample_on_a_law_and_on_a_problem():
    law = Gibbs(landscape(lambda x: jnp.sum(x**2) / 2, np.zeros(2)), temperature=1.0)
    tree = sample(law, SGLD(step_size=0.1), warmup=10, draws=20, chains=2, seed=0, progress=False)
    assert tree["posterior"]["params"].shape == (2, 20, 2)
    kernel = SGWORLD.from_problem(
        mean_problem(normal_scores(12, 0)), Minibatch(3, "reshuffle"), step_size=0.01
    )
    settings = {"warmup": 10, "draws": 20, "chains": 2, "seed": 0, "progress": False}
    tree = sample(None, kernel, **settings)
    assert tree["posterior"]["x"].shape == (2, 20)
    assert np.all(np.isfinite(tree["posterior"]["x"]))


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named():
    problem = mean_problem(normal_scores(10, 0))
    cases = (
        (lambda: Minibatch(0), "batch_size must be at least 1, got 0"),
        (
            lambda: SGLD.from_problem(problem, Minibatch(11, "without_replacement")),
            "batch_size must be at most num_examples = 10",
        ),
        (lambda: SGLD.from_problem(problem, Isotropic(1.0)), "noise must be a Minibatch"),
        (
            lambda: SGLD.from_problem(landscape(lambda x: x**2, 0.0), Minibatch(1)),
            "problem must be an empirical_risk",
        ),
        (
            lambda: SGLD.from_problem(problem, Minibatch(2), weight_decay=-1.0),
            "weight_decay must be non-negative",
        ),
        (lambda: SGLD(variance_reduction="control_variate"), "at must be given with"),
        (lambda: SGLD(at=1.0), "at must be given with"),
        (lambda: SGLD(variance_reduction="best"), "variance_reduction must be one of"),
        (lambda: SGLD(sampling="fresh"), "sampling must be one of"),
        (lambda: SGLD(refresh_every=0), "refresh_every must be at least 1"),
        (lambda: run(SGLD(plate_model), np.zeros(10), 12), "batch_size must be at most"),
        (lambda: run(SGLD(plate_model), np.zeros(10), 0), "batch_size must be at least 1"),
        (lambda: run(SGWORLD(plate_model), np.zeros(10), 3), "batch_size must divide"),
        (lambda: run(SGLD(local_model)), "unknowns must be outside a subsampled plate"),
    )
    for make, message in cases:
        with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
            make()


def local_model():
    with numpyro.plate("data", 10, subsample_size=2):
        numpyro.sample("x", dist.Normal(0.0, 1.0))
