"""Optimisers of optax against our own SGD and against their formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import statsgd
from statsgd.noise import Isotropic, Minibatch, NoNoise
from statsgd.problems import landscape, linear_regression

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
PROBLEM = linear_regression(INPUTS, INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24))
BOWL = landscape(lambda x: 0.5 * jnp.sum(jnp.array([3.0, 0.5]) * x**2), np.array([1.0, -2.0]))
OPTIONS = {"steps": 40, "replicas": 6, "seed": 3, "progress": False}


def endpoints(problem, dynamics, **changes):
    result = statsgd.simulate(problem, dynamics, **(OPTIONS | changes))
    return result["endpoints"].params.values


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_of_optax_is_sgd(momentum):
    noise = Minibatch(4, "reshuffle")
    theirs = statsgd.OptaxDynamics(optax.sgd(0.05, momentum=momentum), noise)
    ours = statsgd.SGD(0.05, noise, momentum)
    np.testing.assert_allclose(endpoints(PROBLEM, theirs), endpoints(PROBLEM, ours), rtol=1e-4)


def test_adam_is_its_formula():
    theta, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for k in range(1, 41):
        g = np.array([3.0, 0.5]) * theta
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        theta = theta - 0.1 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.99**k)) + 1e-8)
    for dynamics in (
        statsgd.OptaxDynamics(optax.adam(0.1, b2=0.99), NoNoise()),
        statsgd.OptaxDynamics(optax.adam, NoNoise(), learning_rate=0.1, b2=0.99),
    ):
        np.testing.assert_allclose(endpoints(BOWL, dynamics)[0], theta, rtol=1e-4)


def test_schedules_are_followed():
    schedule = optax.exponential_decay(0.2, 10, 0.5)
    theta = np.array([1.0, -2.0])
    for k in range(40):
        theta = theta - 0.2 * 0.5 ** (k / 10) * np.array([3.0, 0.5]) * theta
    dynamics = statsgd.OptaxDynamics(optax.sgd(schedule), NoNoise())
    np.testing.assert_allclose(endpoints(BOWL, dynamics)[0], theta, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "transformation",
    [optax.amsgrad(0.05), optax.rmsprop(0.01), optax.chain(optax.clip(1.0), optax.adamw(0.05))],
)
def test_other_optimisers_run(transformation):
    dynamics = statsgd.OptaxDynamics(transformation, Minibatch(4))
    result = statsgd.simulate(PROBLEM, dynamics, **OPTIONS)
    assert not result["run"].diverged.any()
    start = float(PROBLEM.loss(jnp.zeros(3)))
    assert np.all(result["run"].loss < start)


def test_hyperparameters_are_axes_of_a_grid():
    dynamics = statsgd.OptaxDynamics(optax.sgd, Isotropic(1.0), learning_rate=0.1)
    grid = statsgd.grid(dynamics, {"hyperparameters.learning_rate": [0.05, 0.2]})
    bowl = landscape(lambda x: 0.5 * jnp.sum(x**2), np.zeros(2))
    result = statsgd.simulate(bowl, grid, steps=200, replicas=4000, seed=0, progress=False)
    variance = result["endpoints"].params.var(("replica", "params_dim_0"))
    # Var = η/(2 − η)
    rates = np.array([0.05, 0.2])
    np.testing.assert_allclose(variance, rates / (2 - rates), rtol=4 * np.sqrt(2 / 8000))


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"transformation must be an optax\.Gradient"):
        statsgd.OptaxDynamics(0.1, NoNoise())
    with pytest.raises(ValueError, match="noise must be one of"):
        statsgd.OptaxDynamics(optax.sgd(0.1), 0.5)
    with pytest.raises(ValueError, match="hyperparameters must go with a function"):
        statsgd.OptaxDynamics(optax.sgd(0.1), NoNoise(), learning_rate=0.1)
    with pytest.raises(ValueError, match="learning_rate must be a finite number"):
        statsgd.OptaxDynamics(optax.sgd, NoNoise(), learning_rate=np.nan)
    with pytest.raises(ValueError, match="transformation must return an optax"):
        statsgd.OptaxDynamics(lambda: 3, NoNoise()).check(BOWL)
    with pytest.raises(ValueError, match="noise other than Minibatch on a landscape"):
        statsgd.OptaxDynamics(optax.sgd(0.1), Minibatch(2)).check(BOWL)


def test_schedules_go_on_where_a_run_goes_on():
    # The learning rate of step 25 on is that of step 25, not of step 0.
    dynamics = statsgd.OptaxDynamics(optax.sgd(optax.cosine_decay_schedule(0.2, 40)), Minibatch(4))
    first = statsgd.simulate(PROBLEM, dynamics, **(OPTIONS | {"steps": 25}))
    rest = statsgd.simulate(PROBLEM, dynamics, start=first, **(OPTIONS | {"steps": 15}))
    whole = statsgd.simulate(PROBLEM, dynamics, **OPTIONS)
    np.testing.assert_array_equal(rest["endpoints"].params, whole["endpoints"].params)


@pytest.mark.parametrize(
    "transformation",
    [
        optax.sgd(optax.cosine_decay_schedule(0.2, 20)),
        optax.adamw(optax.linear_schedule(0.1, 0.0, 20)),
        optax.inject_hyperparams(optax.sgd)(learning_rate=optax.cosine_decay_schedule(0.2, 20)),
    ],
)
def test_schedules_that_end_before_the_run_are_refused(transformation):
    dynamics = statsgd.OptaxDynamics(transformation, NoNoise())
    whole = statsgd.simulate(BOWL, dynamics, **(OPTIONS | {"steps": 20}))
    message = "ends before the run: its updates are zero from step 20 on, and steps go from "
    with pytest.raises(ValueError, match=f"{message}0 to 40"):
        endpoints(BOWL, dynamics)
    with pytest.raises(ValueError, match=f"{message}20 to 30"):
        endpoints(BOWL, dynamics, start=whole, steps=10)
    with pytest.raises(ValueError, match=f"{message}20 to 30"):
        statsgd.simulate(BOWL, [dynamics, dynamics], **(OPTIONS | {"steps": [20, 10]}))


def test_a_schedule_that_ends_at_a_constant_is_followed():
    warm_up = optax.linear_schedule(0.0, 0.2, 10)
    theta = np.array([1.0, -2.0])
    for k in range(40):
        theta = theta - 0.2 * min(k / 10, 1) * np.array([3.0, 0.5]) * theta
    found = endpoints(BOWL, statsgd.OptaxDynamics(optax.sgd(warm_up), NoNoise()))
    np.testing.assert_allclose(found[0], theta, rtol=1e-4, atol=1e-6)


def test_clipping_and_accumulation():
    # Two gradients are averaged at the same θ, clipped to length 1, then followed.
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    accumulated = optax.MultiSteps(clipped, 2).gradient_transformation()
    theta = np.array([1.0, -2.0])
    for _ in range(20):
        g = np.array([3.0, 0.5]) * theta
        theta = theta - 0.1 * g / max(1.0, np.linalg.norm(g))
    found = endpoints(BOWL, statsgd.OptaxDynamics(accumulated, NoNoise()))
    np.testing.assert_allclose(found[0], theta, rtol=1e-4)


@pytest.mark.parametrize(
    ("transformation", "name"),
    [
        (optax.lbfgs(), "scale_by_zoom_linesearch"),
        (optax.lbfgs, "scale_by_zoom_linesearch"),
        (optax.contrib.reduce_on_plateau(), "reduce_on_plateau"),
        (optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), "reduce_on_plateau"),
        (optax.lookahead(optax.sgd(0.1), 5, 0.5), "lookahead"),
        (optax.polyak_sgd(), "scale_by_polyak"),
        (optax.contrib.momo(), "momo"),
    ],
)
def test_what_needs_more_than_gradients_is_refused_by_name(transformation, name):
    with pytest.raises(ValueError, match=f"must need gradients and params alone, but .*{name}"):
        endpoints(BOWL, statsgd.OptaxDynamics(transformation, NoNoise()))


def test_updates_that_do_not_fit_are_refused():
    def forgetful(updates, state, params=None):
        return updates, ()

    shapeless = optax.stateless(lambda updates, params: jnp.zeros(3))
    with pytest.raises(ValueError, match="must return updates like what it was given"):
        endpoints(BOWL, statsgd.OptaxDynamics(shapeless, NoNoise()))
    forgets = optax.GradientTransformation(optax.sgd(0.1, momentum=0.5).init, forgetful)
    with pytest.raises(ValueError, match="must return a state like what it was given"):
        endpoints(BOWL, statsgd.OptaxDynamics(forgets, NoNoise()))
