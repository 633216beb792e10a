"""Contestants of the benchmark do the same thing: on few examples, and without timing anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.problems import Images
from studies.networks.convolutions import convolutional
from studies.peers import convolutional as peers

RATE = 0.01


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return Images(
        rng.uniform(size=(6, 16, 16, 2)).astype(np.float32), np.array([0, 3, 9, 1, 3, 7], np.int32)
    )


def by_lax(params, images, labels):
    """The network once more, of JAX's own convolutions and the formula of its units."""

    def unit(x):
        return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def layer(name, x, stride, border):
        found = jax.lax.conv_general_dilated(
            x, params[name], (stride, stride), [(border, border)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return unit(found + params[f"{name}_bias"])

    hidden = layer("conv", layer("squares", images, 4, 0), 2, 1)
    hidden = unit(hidden.reshape(len(images), -1) @ params["dense"] + params["dense_bias"])
    logits = jax.nn.log_softmax(hidden @ params["out"] + params["out_bias"])
    return -jnp.mean(logits[jnp.arange(len(labels)), labels])


def biased(problem):
    """Weights as they are drawn, and biases that are not zero."""
    rng = np.random.default_rng(1)
    start = problem.initial_params(jax.random.key(0))
    return {name: leaf + 0.1 * rng.normal(size=leaf.shape) for name, leaf in start.items()}


def test_our_convolutional_network_has_the_loss_and_gradient_of_convolutions(data):
    problem = convolutional(data, 3, 0)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), biased(problem))
    loss, gradient = jax.value_and_grad(by_lax)(params, *data)
    np.testing.assert_allclose(problem.loss(params), loss, rtol=1e-5)
    ours = problem.gradient(params)
    for name, leaf in gradient.items():
        np.testing.assert_allclose(ours[name], leaf, atol=2e-6)


def test_pytorch_has_the_loss_and_gradient_of_our_convolutional_network(data):
    torch = pytest.importorskip("torch", reason="torch comes with the extra bench")
    problem = convolutional(data, 3, 0)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), biased(problem))
    module, pixels, labels = peers.in_torch(problem, params)
    loss = torch.nn.functional.cross_entropy(module(pixels), labels)
    loss.backward()
    np.testing.assert_allclose(loss.item(), problem.loss(params), rtol=1e-5)
    ours = problem.gradient(params)
    layers = (module[0], module[2], module[5], module[7])
    for name, layer in zip(("squares", "conv", "dense", "out"), layers, strict=True):
        slope = layer.weight.grad.numpy()
        if name == "dense":  # PyTorch flattens channels first
            slope = slope.reshape(6, 6, 2, 2).transpose(2, 3, 1, 0).reshape(24, 6)
        else:
            slope = slope.T if name == "out" else slope.transpose(2, 3, 1, 0)
        np.testing.assert_allclose(slope, ours[name], atol=2e-6)
        np.testing.assert_allclose(layer.bias.grad.numpy(), ours[f"{name}_bias"], atol=2e-6)


@pytest.mark.slow
def test_contestants_take_the_same_steps_where_all_batches_are_alike(data):
    # Of one image, copied, every batch is the same, whichever random numbers a contestant has.
    same = Images(np.repeat(data.images[:1], 4, axis=0), np.repeat(data.labels[:1], 4))
    problem = convolutional(same, 3, 0)
    params = problem.initial_params(jax.random.key(0))
    start = float(problem.loss(params))
    gradient = jax.jit(lambda at: problem.gradient(at))
    for _ in range(5):
        params = jax.tree.map(lambda p, g: p - RATE * g, params, gradient(params))
    expected = float(problem.loss(params))
    assert expected < 0.9 * start
    runners = peers.on(same, 2, 3)
    ours = np.asarray(runners.pop("statsgd")(5))
    np.testing.assert_allclose(ours.reshape(2, -1)[:, -1], expected, rtol=1e-5)
    idiom = runners.pop("jit, vmap, optax")(5)
    for replica in range(2):
        one = jax.tree.map(lambda leaf, replica=replica: leaf[replica], idiom)
        np.testing.assert_allclose(problem.loss(one), expected, rtol=1e-5)
    for run in runners.values():  # PyTorch, where it is installed
        _, pixels, labels = peers.in_torch(problem, problem.initial_params(jax.random.key(0)))
        logits = run(5)(pixels).detach().numpy()
        found = -jax.nn.log_softmax(logits)[np.arange(4), labels.numpy()]
        np.testing.assert_allclose(found.mean(), expected, rtol=1e-5)
