"""Variables of Flax Linen: the collection "params" is trained, and every other one is constant."""

import flax.core
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import statsgd
from statsgd.noise import Minibatch
from statsgd.problems import batch_risk, empirical_risk, landscape, population_risk

RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(12, 2)), RNG.normal(size=12)


class Normalised(flax.linen.Module):
    """A layer, normalisation over the batch or by what it has seen, and another layer."""

    @flax.linen.compact
    def __call__(self, x, train):
        hidden = flax.linen.Dense(3)(x)
        hidden = flax.linen.BatchNorm(use_running_average=not train)(hidden)
        return flax.linen.Dense(1)(jnp.tanh(hidden))[..., 0]


NET = Normalised()
VARIABLES = NET.init(jax.random.key(0), jnp.ones((4, 2)), True)
NAMES = [
    f"params.{name}"
    for name in (
        "BatchNorm_0.bias", "BatchNorm_0.scale", "Dense_0.bias", "Dense_0.kernel", "Dense_1.bias",
        "Dense_1.kernel",
    )
]  # fmt: skip


def batch_loss(variables, batch):
    x, y = batch
    found, _ = NET.apply(variables, x, True, mutable=["batch_stats"])
    return jnp.mean((found - y) ** 2)


def example_loss(variables, example):
    return (NET.apply(variables, example[0][None], False)[0] - example[1]) ** 2


def by_hand(params):
    """The loss of all examples as one batch, from NumPy."""
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    hidden = DATA[0] @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    hidden = hidden * layers["BatchNorm_0"]["scale"] + layers["BatchNorm_0"]["bias"]
    found = np.tanh(hidden) @ layers["Dense_1"]["kernel"] + layers["Dense_1"]["bias"]
    return np.mean((found[:, 0] - DATA[1]) ** 2)


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_statistics_are_constants_of_a_loss_of_batches(frozen):
    variables = flax.core.freeze(VARIABLES) if frozen else VARIABLES
    problem = batch_risk(batch_loss, DATA, variables)
    assert problem.names == NAMES
    assert problem.dimension == 3 + 3 + 3 + 6 + 1 + 3
    np.testing.assert_allclose(problem.loss(variables), by_hand(VARIABLES["params"]), rtol=1e-5)
    # A model that was trained elsewhere brings other statistics: those of the problem count.
    trained = jax.tree.map(lambda leaf: leaf + 0.5, variables)
    np.testing.assert_allclose(
        problem.loss(trained), by_hand(jax.tree.map(lambda leaf: leaf + 0.5, VARIABLES["params"])),
        rtol=1e-5,
    )  # fmt: skip
    whole = problem.model(problem.flatten(trained))
    np.testing.assert_array_equal(whole["batch_stats"]["BatchNorm_0"]["var"], 1)
    np.testing.assert_allclose(whole["params"]["BatchNorm_0"]["scale"], 1.5)
    sgd = statsgd.SGD(0.05, Minibatch(4))
    if not frozen:
        ran = statsgd.simulate(problem, sgd, steps=3, replicas=2, seed=0, progress=False)
        assert list(ran["endpoints"].data_vars) == NAMES


def test_frozen_statistics_are_closed_over_by_a_loss_of_examples():
    statistics = VARIABLES["batch_stats"]

    def loss(variables, example):
        return example_loss({**variables, "batch_stats": statistics}, example)

    problem = empirical_risk(loss, DATA, {"params": VARIABLES["params"]})
    assert problem.names == NAMES
    each = (NET.apply(VARIABLES, DATA[0], False) - DATA[1]) ** 2
    np.testing.assert_allclose(problem.loss(VARIABLES), np.mean(each), rtol=1e-5)


def test_other_collections_are_constants_wherever_they_lie():
    variables = {"params": {"w": np.ones(2)}, "cache": {"scale": np.full(2, 3.0)}}

    def loss(given, example):
        net = given["net"]
        return jnp.sum(net["params"]["w"] * net["cache"]["scale"] * example) + given["shift"]

    problem = empirical_risk(loss, DATA[0], {"net": variables, "shift": 0.5})
    assert problem.names == ["net.params.w", "shift"]
    gradient = problem.gradient(problem.initial_params(jax.random.key(0)))
    expected = [1.0, *(3 * DATA[0].mean(axis=0))]
    np.testing.assert_allclose(np.sort(problem.flatten(gradient)), np.sort(expected), rtol=1e-5)


def test_plain_dicts_and_modules_with_an_attribute_of_that_name_are_no_variables():
    plain = landscape(lambda p: jnp.sum(p["scale"]), {"params": {"w": 1.0}, "scale": np.ones(2)})
    assert plain.names == ["params.w", "scale"]

    class Named(nnx.Module):
        def __init__(self, rngs):
            self.params = nnx.Linear(2, 1, rngs=rngs)
            self.other = nnx.Linear(2, 1, rngs=rngs)

    def loss(model, example):
        return model.params(example[0])[0] * model.other(example[0])[0]

    problem = empirical_risk(loss, DATA, Named(nnx.Rngs(0)))
    assert problem.names == ["other.bias", "other.kernel", "params.bias", "params.kernel"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "build",
    [
        lambda: empirical_risk(example_loss, DATA, VARIABLES),
        lambda: empirical_risk(example_loss, DATA, {"net": VARIABLES, "shift": 0.0}),
        lambda: empirical_risk(
            example_loss, DATA, lambda key: NET.init(key, jnp.ones((4, 2)), True)
        ),
        lambda: population_risk(example_loss, lambda key: DATA, VARIABLES),
    ],
)
def test_batch_statistics_are_refused_for_a_loss_of_examples(build):
    message = r"no batch statistics .* problems.batch_risk .*in Flax Linen give \{'params': …\} al"
    with pytest.raises(ValueError, match=message):
        build()
