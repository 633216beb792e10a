"""What is trained of a model: chosen by filters of Flax NNX or by truth values, and by no more."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from statsgd.problems import empirical_risk, landscape

RNG = np.random.default_rng(2)
DATA = RNG.normal(size=(6, 2)), RNG.normal(size=6)
ALL = ["a.bias", "a.kernel", "b.bias", "b.kernel"]


class Layers(nnx.Module):
    """Two layers, beside parameters that are integers and variables that are none."""

    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)
        self.table, self.shift = nnx.Param(jnp.arange(3)), nnx.Variable(jnp.full(3, 0.25))

    def __call__(self, x):
        return self.b(jnp.tanh(self.a(x)) * self.table[...] + self.shift[...])[0]


class Adapted(nnx.Module):
    def __init__(self, rngs):
        self.base = nnx.Linear(2, 3, rngs=rngs)
        self.adapter = nnx.LoRA(3, 1, 2, rngs=rngs)

    def __call__(self, x):
        return self.adapter(self.base(x))[0] + jnp.sum(self.base(x))


def error(model, example):
    return (model(example[0]) - example[1]) ** 2


@pytest.fixture(scope="module")
def layers():
    return Layers(nnx.Rngs(0))


def by_path(path, variable):
    return path[0] == "b" and variable.ndim == 2


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (nnx.Param, ALL),
        (..., ALL),
        (nnx.PathContains("a"), ALL[:2]),
        (nnx.Not(nnx.PathContains("a")), ALL[2:]),
        (nnx.All(nnx.Param, nnx.PathContains("kernel")), ALL[1::2]),
        (nnx.filterlib.PathIn(("a", "bias"), ("b", "kernel")), ["a.bias", "b.kernel"]),
        ([nnx.LoRAParam, nnx.PathContains("b")], ALL[2:]),
        (by_path, ["b.kernel"]),
        (lambda name: name.startswith("a"), ALL[:2]),
    ],
)
def test_filters_of_nnx_choose_what_they_match(chosen, names, layers):
    problem = empirical_risk(error, DATA, layers, trainable=chosen)
    assert problem.names == names
    whole = problem.model(2 * problem.flatten(layers))
    for name in ALL:
        layer, part = name.split(".")
        before, after = (getattr(getattr(model, layer), part)[...] for model in (layers, whole))
        np.testing.assert_allclose(after, before * (2 if name in names else 1), rtol=1e-6)


def test_adapters_alone_are_trained_by_their_class():
    problem = empirical_risk(error, DATA, Adapted(nnx.Rngs(1)), trainable=nnx.LoRAParam)
    assert problem.names == ["adapter.lora_a", "adapter.lora_b"]
    assert problem.dimension == 3 * 1 + 1 * 2


def test_paths_of_filters_begin_outside_of_modules(layers):
    pair = {"one": layers, "two": Layers(nnx.Rngs(1)), "scale": np.ones(2)}
    problem = landscape(
        lambda p: jnp.sum(p["one"].a.kernel[...] ** 2 + p["two"].a.kernel[...] ** 2),
        pair,
        trainable=nnx.All(nnx.Param, nnx.PathContains("two"), nnx.PathContains("a")),
    )
    assert problem.names == ["two.a.bias", "two.a.kernel"]


def test_integers_and_other_variables_of_nnx_are_no_parameters(layers):
    problem = empirical_risk(error, DATA, layers)
    assert problem.names == ALL
    # They are constants of the model: the loss is the same with them, by hand.
    kernel, bias = (np.asarray(getattr(layers.a, part)[...]) for part in ("kernel", "bias"))
    hidden = np.tanh(DATA[0] @ kernel + bias) * np.arange(3) + 0.25
    by_hand = hidden @ np.asarray(layers.b.kernel[...])[:, 0] + float(layers.b.bias[...][0])
    np.testing.assert_allclose(problem.loss(layers), np.mean((by_hand - DATA[1]) ** 2), rtol=1e-5)
    trained = problem.model(problem.flatten(layers) + 1)
    np.testing.assert_array_equal(trained.table[...], np.arange(3))
    np.testing.assert_array_equal(trained.shift[...], np.full(3, 0.25))


def bowl(trainable):
    start = {"a": np.ones(2), "b": np.zeros(3)}
    return landscape(lambda p: jnp.sum(p["a"]), start, trainable=trainable)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda m: empirical_risk(error, DATA, m, trainable=nnx.LoRAParam),
            r"trainable must choose at least one of \['a.bias'",
        ),
        (
            lambda m: empirical_risk(error, DATA, m, trainable=lambda path, leaf: path),
            r"trainable must choose by True or False, got a tuple of 2",
        ),
        (lambda m: bowl(nnx.LoRAParam), "got the class LoRAParam: a filter of Flax NNX is for"),
        (lambda m: bowl(eqx.nn.Linear), "trainable must be .* got the class Linear"),
        (lambda m: bowl(nnx.PathContains("a")), "trainable must be .* got PathContains"),
        (lambda m: bowl({"a": nnx.LoRAParam, "b": False}), "trainable must .* LoRAParam"),
        (lambda m: bowl({"a": 1, "b": False}), "trainable must choose by True or False, got 1"),
        (lambda m: bowl(lambda name: name), "must choose by True or False, got 'a'"),
        (lambda m: bowl(lambda leaf: leaf > 0), "True or False, got an array of shape"),
        (lambda m: bowl(lambda leaf: leaf.missing), "must be a function of one name or of one"),
    ],
)
def test_what_chooses_by_anything_else_is_refused(build, message, layers):
    with pytest.raises(ValueError, match=message):
        build(layers)


def test_truth_values_may_be_those_of_numpy_and_of_jax():
    for chosen in (
        {"a": np.True_, "b": np.False_},
        lambda leaf: jnp.all(leaf > 0),
        lambda leaf: np.all(leaf > 0),
        {"a": lambda leaf: leaf.size == 2, "b": False},
    ):
        assert bowl(chosen).names == ["a"]
    assert jax.tree.leaves(bowl("b").template)[0].shape == (3,)
