"""Problems: losses, gradients, parameter pytrees, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.noise import Minibatch, NoNoise
from statsgd.problems import empirical_risk, landscape, linear_regression, population_risk


def tree_loss(params, example):
    return (params["w"] @ example["x"] + params["b"] - example["y"]) ** 2


def tree_problem(n=20):
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(n, 3)), "y": rng.normal(size=n)}
    return empirical_risk(tree_loss, data, {"w": np.ones(3), "b": 0.5}), data


def test_empirical_risk_is_the_mean_of_example_losses():
    problem, data = tree_problem()
    params = problem.initial_params(jax.random.key(0))
    residual = data["x"] @ np.ones(3) + 0.5 - data["y"]
    np.testing.assert_allclose(problem.loss(params), np.mean(residual**2), rtol=1e-6)
    gradient = problem.gradient(params)
    np.testing.assert_allclose(gradient["b"], 2 * residual.mean(), rtol=1e-5)
    each = problem.example_gradients(params, jnp.arange(20))
    np.testing.assert_allclose(each["w"], 2 * residual[:, None] * data["x"], rtol=1e-4, atol=1e-6)
    assert problem.num_examples == 20


def test_flatten_and_unflatten_are_inverse():
    problem, _ = tree_problem()
    params = {"w": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array(4.0)}
    flat = problem.flatten(params)
    assert flat.shape == (problem.dimension,) == (4,)
    back = problem.unflatten(flat)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, back, params))
    assert problem.names == ["b", "w"]


def test_equinox_model_keeps_its_activation_aside():
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
    data = (np.ones((5, 2)), np.zeros(5))
    problem = empirical_risk(lambda m, e: (m(e[0]) - e[1]) ** 2, data, model)
    assert problem.dimension == 2 * 4 + 4 + 4 + 1
    params = problem.initial_params(jax.random.key(0))
    np.testing.assert_allclose(problem.loss(params), model(jnp.ones(2)) ** 2, rtol=1e-6)


def test_random_start_differs_between_keys():
    problem = landscape(lambda x: jnp.sum(x**2), lambda key: jax.random.normal(key, (3,)))
    first, second = (problem.initial_params(jax.random.key(i)) for i in (0, 1))
    assert problem.dimension == 3
    assert not np.allclose(first, second)


def test_regression_gradient_is_that_of_its_loss():
    rng = np.random.default_rng(1)
    problem = linear_regression(rng.normal(size=(12, 4)), rng.normal(size=12))
    theta = jnp.asarray(rng.normal(size=4), dtype=float)
    batch = problem.take(jnp.array([3, 3, 7]))
    by_hand = problem.batch_gradient(theta, batch)
    np.testing.assert_allclose(
        by_hand, jax.grad(problem.batch_loss)(theta, batch), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        problem.example_gradients(theta, jnp.arange(12)).mean(axis=0),
        problem.gradient(theta),
        rtol=1e-5,
        atol=1e-6,
    )


def test_population_loss_is_exact_where_given_and_an_average_elsewhere():
    def draw(key):
        return 1.0 + jax.random.normal(key)

    def loss(theta, x):
        return 0.5 * (theta - x) ** 2

    exact = population_risk(loss, draw, 0.0, exact_loss=lambda t: 0.5 * (t - 1) ** 2 + 0.5)
    sampled = population_risk(loss, draw, 0.0, loss_examples=20_000)
    assert float(exact.loss(jnp.asarray(3.0))) == 2.5
    # The standard deviation of ½(3 − x)² with x ~ N(1, 1) is √(4.5): standard error .015.
    assert abs(float(sampled.loss(jnp.asarray(3.0))) - 2.5) < 4 * np.sqrt(4.5 / 20_000)


def test_parameters_that_are_single_numbers():
    problem = landscape(lambda x: x**2, 1.5)
    assert problem.dimension == 1
    assert problem.names == ["params"]
    assert float(problem.gradient(jnp.asarray(2.0))) == 4.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: linear_regression(np.array([[1.0, np.nan]]), [1.0]),
            "inputs must be finite, got 1 NaN",
        ),
        (
            lambda: linear_regression([[1.0], [1.0, 2.0]], [1.0, 2.0]),
            "inputs must be a rectangular",
        ),
        (lambda: linear_regression(np.ones((3, 2)), np.ones(4)), "common, non-empty leading axis"),
        (lambda: linear_regression(np.ones((0, 2)), np.ones(0)), "common, non-empty leading axis"),
        (lambda: linear_regression(np.ones(3), np.ones(3)), "inputs must have 2 axes"),
        (lambda: linear_regression(np.ones((3, 2)), np.ones(3), np.ones(3)), "initial_params must"),
        (
            lambda: empirical_risk(tree_loss, {"x": np.ones((3, 2)), "y": np.ones(2)}, np.ones(2)),
            "examples must be arrays with one common",
        ),
        (
            lambda: empirical_risk(tree_loss, {}, np.ones(2)),
            "examples must hold at least one array",
        ),
        (
            lambda: empirical_risk(lambda p, e: p * e, np.ones((3, 2)), np.ones(2)),
            "example_loss must return one scalar",
        ),
        (lambda: landscape(lambda x: x, np.ones(2)), "loss must return one scalar"),
        (
            lambda: landscape(jnp.sum, np.array([np.inf, 1])),
            "initial_params 'params' must be finite",
        ),
        (lambda: landscape(lambda x: jnp.sum(x), "here"), "initial_params must be a pytree"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.slow
def test_a_random_network_for_every_replica_works_as_the_module_does():
    inputs, targets = np.linspace(-1, 1, 8).reshape(-1, 1), np.linspace(0, 1, 8)

    def network(key):
        return eqx.nn.MLP(1, 1, 4, 1, key=key)

    def loss(model, example):
        x, y = example
        return (model(x)[0] - y) ** 2

    drawn = empirical_risk(loss, (inputs, targets), network)
    given = empirical_risk(loss, (inputs, targets), network(jax.random.key(0)))
    assert drawn.names == given.names
    key = jax.random.key(3)
    model = network(key)
    expected = np.mean([(model(x)[0] - y) ** 2 for x, y in zip(inputs, targets, strict=True)])
    np.testing.assert_allclose(drawn.loss(drawn.initial_params(key)), expected, rtol=1e-5)
    sgd = statsgd.SGD(0.1, Minibatch(2))
    run = {"steps": 5, "replicas": 3, "seed": 0, "progress": False}
    tree = statsgd.simulate(drawn, sgd, keep=[0], **run)
    starts = tree["snapshots"].isel(step=0).to_dataset()
    leaves = [jnp.asarray(starts[name].values) for name in drawn.names]
    assert all(len(np.unique(leaf, axis=0)) == 3 for leaf in leaves)
    start = jax.tree.unflatten(jax.tree.structure(given.template), leaves)
    again = statsgd.simulate(given, sgd, start=start, **run)
    assert again["endpoints"].to_dataset().equals(tree["endpoints"].to_dataset())


@pytest.mark.parametrize(
    "initial",
    [
        np.ones(2) * 1j,
        {"w": np.ones(2), "z": jnp.ones(2, complex)},
        lambda key: jnp.ones(2, complex),
        {"w": np.ones(2), "z": 1j},
    ],
    ids=["array", "leaf", "function", "number"],
)
def test_complex_parameters_are_refused(initial):
    def loss(params):
        return sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(params))

    with pytest.raises(ValueError, match=r"must be real, got '(params|z)' of dtype complex"):
        landscape(loss, initial)


def test_complex_starts_are_refused():
    problem = landscape(lambda params: jnp.sum(params**2), np.ones(2))
    with pytest.raises(ValueError, match="start must be real, got 'params' of dtype complex"):
        statsgd.simulate(
            problem, statsgd.SGD(0.1, NoNoise()), steps=1, replicas=1, seed=0, progress=False,
            start=np.ones(2) * 1j,
        )  # fmt: skip
