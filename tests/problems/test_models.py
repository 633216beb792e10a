"""Models of Equinox and Flax NNX as problems: what is trained, what is not, and back again."""

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import statsgd
from statsgd.laws import HeavyBallGaussian
from statsgd.measures import noise_alignment, noise_covariance_along, noise_spectrum, trace
from statsgd.noise import Minibatch
from statsgd.problems import (
    empirical_risk,
    hessian,
    landscape,
    linear_network,
    multilayer_perceptron,
    population_risk,
)

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(10, 2)), RNG.normal(size=10)


class Gated(eqx.Module):
    """A linear layer with all kinds of leaves that are no parameters."""

    layer: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    rate: float
    table: jax.Array

    def __init__(self, key):
        self.layer = eqx.nn.Linear(2, 1, key=key)
        self.dropout = eqx.nn.Dropout(0.25)
        self.rate = 0.5
        self.table = jnp.arange(3)

    def __call__(self, x):
        return jnp.tanh(self.layer(x)[0]) * self.rate + self.table[1]


class Net(nnx.Module):
    """Two layers, batch statistics and dropout."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        hidden = jnp.tanh(self.norm(self.layers[0](x)))
        return self.layers[1](self.drop(hidden))[..., 0]


def error(model, example):
    x, y = example
    return (model(x) - y) ** 2


@pytest.fixture(scope="module")
def gated():
    return Gated(jax.random.key(0))


@pytest.fixture(scope="module")
def net():
    model = Net(nnx.Rngs(0))
    model.eval()
    return model


def moved(model, by):
    """The model with other parameters: what training leaves behind."""
    return jax.tree.map(lambda leaf: leaf + by if eqx.is_inexact_array(leaf) else leaf, model)


def mean_error(model):
    return np.mean([float(error(model, (jnp.asarray(x), y))) for x, y in zip(*DATA, strict=True)])


def test_parameters_of_an_equinox_model_are_its_inexact_arrays(gated):
    problem = empirical_risk(error, DATA, gated)
    assert problem.names == ["layer.weight", "layer.bias"]
    assert problem.dimension == 3
    trained = moved(gated, 0.3)
    np.testing.assert_allclose(problem.loss(trained), mean_error(trained), rtol=1e-5)
    params = problem.parameters(trained)
    assert params.rate is None
    assert jax.tree.all(jax.tree.map(jnp.array_equal, problem.parameters(params), params))


def test_parameters_of_an_nnx_model_are_its_params(net):
    problem = empirical_risk(error, DATA, net)
    assert problem.names == [
        "layers.0.bias", "layers.0.kernel", "layers.1.bias", "layers.1.kernel",
        "norm.bias", "norm.scale",
    ]  # fmt: skip
    assert problem.dimension == 6 + 3 + 3 + 1 + 6
    np.testing.assert_allclose(problem.loss(net), mean_error(net), rtol=1e-5)
    graph, numbers, rest = nnx.split(net, nnx.Param, ...)
    trained = nnx.merge(graph, jax.tree.map(lambda leaf: 1.5 * leaf, numbers), rest)
    np.testing.assert_allclose(problem.loss(trained), mean_error(trained), rtol=1e-5)
    state = nnx.state(trained, nnx.Param)
    np.testing.assert_array_equal(problem.flatten(state), problem.flatten(trained))


@pytest.mark.parametrize("which", ["gated", "net"])
def test_a_flat_vector_becomes_a_model_that_runs(which, request):
    model = request.getfixturevalue(which)
    problem = empirical_risk(error, DATA, model)
    flat = problem.flatten(model) + 0.1
    back = problem.model(flat)
    assert type(back) is type(model)
    np.testing.assert_allclose(problem.flatten(back), flat, rtol=1e-6)
    np.testing.assert_allclose(mean_error(back), problem.loss(problem.unflatten(flat)), rtol=1e-5)
    inputs = jnp.asarray(DATA[0][0])
    np.testing.assert_allclose(problem.model(problem.parameters(model))(inputs), model(inputs))


@pytest.mark.parametrize("which", ["gated", pytest.param("net", marks=pytest.mark.slow)])
def test_a_trained_model_goes_wherever_parameters_do(which, request):
    model = request.getfixturevalue(which)
    problem = empirical_risk(error, DATA, model)
    params = problem.parameters(model)
    sgd = statsgd.SGD(0.01, Minibatch(2), weight_decay=2.0)
    columns = np.eye(problem.dimension)[:, :2]
    for of in (
        problem.gradient,
        lambda at: hessian(problem, at),
        lambda at: trace(problem, at),
        lambda at: noise_alignment(problem, at, sgd.noise),
        lambda at: statsgd.noise.noise_covariance(problem, at, sgd.noise),
        lambda at: noise_covariance_along(problem, at, sgd.noise, columns),
        lambda at: noise_spectrum(problem, at, sgd, starts=2, depth=2).weights,
        lambda at: HeavyBallGaussian.from_sgd(problem, sgd, at=at).covariance(),
        lambda at: (
            statsgd.simulate(problem, sgd, steps=2, replicas=2, seed=1, start=at, progress=False)[
                "run"
            ]["loss"].values
        ),
    ):
        pairs = zip(jax.tree.leaves(of(model)), jax.tree.leaves(of(params)), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def test_flax_linen_and_functions_of_a_key():
    dense = flax.linen.Dense(1)
    variables = dense.init(jax.random.key(0), jnp.ones(2))
    problem = empirical_risk(lambda p, e: (dense.apply(p, e[0])[0] - e[1]) ** 2, DATA, variables)
    assert problem.names == ["params.bias", "params.kernel"]

    def fresh(key):
        model = Net(nnx.Rngs(key))
        model.eval()
        return model

    drawn = empirical_risk(error, DATA, fresh)
    one, two = (drawn.initial_params(jax.random.key(i)) for i in (1, 2))
    assert not np.allclose(drawn.flatten(one), drawn.flatten(two))
    np.testing.assert_allclose(drawn.loss(one), mean_error(drawn.model(one)), rtol=1e-5)


@pytest.mark.parametrize(
    "trainable",
    [
        "layer.weight",
        ["layer.weight"],
        lambda name: name.endswith("weight"),
        lambda leaf: leaf.ndim == 2,
        "a pytree",
    ],
)
def test_what_is_trained_can_be_chosen(trainable, gated):
    if trainable == "a pytree":
        nothing = jax.tree.map(lambda _: False, gated)
        trainable = eqx.tree_at(lambda model: model.layer.weight, nothing, True)
    problem = empirical_risk(error, DATA, gated, trainable=trainable)
    assert problem.names == ["layer.weight"]
    # The bias stays what it was, and is no parameter.
    np.testing.assert_allclose(problem.loss(gated), mean_error(gated), rtol=1e-5)
    changed = problem.model(problem.flatten(gated) * 2)
    np.testing.assert_array_equal(changed.layer.bias, gated.layer.bias)
    np.testing.assert_allclose(changed.layer.weight, 2 * gated.layer.weight)


def test_parts_of_nnx_models_and_of_other_problems_can_be_trained(net):
    problem = empirical_risk(error, DATA, net, trainable=lambda name: name.startswith("layers.1"))
    assert problem.names == ["layers.1.bias", "layers.1.kernel"]
    np.testing.assert_allclose(mean_error(problem.model(problem.flatten(net))), mean_error(net))
    start = {"a": np.ones(2), "b": np.zeros(3)}
    bowl = landscape(lambda p: jnp.sum(p["a"] ** 2) + jnp.sum(p["b"]), start, trainable="a")
    assert bowl.names == ["a"]
    assert float(bowl.loss({"a": np.array([3.0, 4.0])})) == 25.0
    fresh = population_risk(
        lambda p, x: jnp.sum((p["a"] - x) ** 2 + p["b"][0]),
        lambda key: jax.random.normal(key, (2,)),
        start,
        trainable={"a": True, "b": False},
    )
    assert fresh.names == ["a"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda g: empirical_risk(error, DATA, g, trainable="bias"), "trainable must be names amo"),
        (
            lambda g: empirical_risk(error, DATA, g, trainable=lambda name: False),
            r"trainable must choose at least one of \['layer.weight', 'layer.bias'\]",
        ),
        (
            lambda g: empirical_risk(error, DATA, g, trainable={"x": True}),
            "trainable must be truth",
        ),
        (
            lambda g: empirical_risk(error, DATA, g).loss({"layer": np.ones(2)}),
            r"params must be those of the problem, \['layer.weight', 'layer.bias'\], or a whole",
        ),
        (
            lambda g: landscape(lambda p: jnp.sum(jnp.abs(p)), np.ones(2) * 1j),
            "initial_params must be real",
        ),
        (
            lambda g: empirical_risk(error, DATA, Net(nnx.Rngs(0))),
            r"no batch statistics .* problems.batch_risk .*model.eval\(\)",
        ),
        (
            lambda g: empirical_risk(error, DATA, lambda key: Net(nnx.Rngs(key))),
            "no batch statistics",
        ),
        (
            lambda g: population_risk(
                error, lambda key: DATA, eqx.nn.BatchNorm(3, "batch", mode="batch")
            ),
            "no batch statistics",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_models_are_refused_with_the_way_out(build, message, gated):
    with pytest.raises(ValueError, match=message):
        build(gated)


def test_layers_of_networks_can_be_frozen():
    inputs, targets = DATA[0], DATA[1][:, None]
    weights = [RNG.normal(size=(3, 2)), RNG.normal(size=(1, 3))]
    linear = linear_network(inputs, targets, [3], {"weights": weights}, trainable="weights.1")
    assert linear.dimension == 3
    params = linear.initial_params(jax.random.key(0))
    product = weights[1] @ weights[0]
    np.testing.assert_allclose(linear.product(params), product, rtol=1e-6)
    expected = np.mean(np.sum((inputs @ product.T - targets) ** 2, axis=1))
    np.testing.assert_allclose(linear.loss(params), expected, rtol=1e-5)
    deep = multilayer_perceptron(inputs, targets, [3], trainable=lambda name: "biases" in name)
    assert deep.names == ["biases.0", "biases.1"]
