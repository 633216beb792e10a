"""Sums over all examples: chunk by chunk they are what they are at once, in little memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.problems import (
    empirical_risk,
    hessian,
    hessian_product,
    landscape,
    mean_over_examples,
    quadratic,
    sums,
)
from statsgd.problems.chunk_sizes import COMPANY, SMALLEST_CHUNK, chunk_size
from studies.compilations import compilations

N, D = 101, 6  # a prime number of examples: the last chunk is never full


def loss(params, example):
    x, y = example
    return jnp.log1p(jnp.exp(-y * (jnp.tanh(params["w"] @ x) @ params["a"] + params["b"])))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return rng.normal(size=(N, 4)).astype(np.float32), rng.choice([-1.0, 1.0], size=N)


@pytest.fixture(scope="module")
def start():
    rng = np.random.default_rng(4)
    return {"w": rng.normal(size=(3, 4)), "a": rng.normal(size=3), "b": np.zeros(())}


@pytest.fixture(scope="module")
def whole(data, start):
    return empirical_risk(loss, data, start, memory_budget=2**30)


@pytest.fixture(scope="module")
def chunked(data, start):
    return empirical_risk(loss, data, start, memory_budget=1)


def losses_by_hand(data, params):
    x, y = (np.asarray(part, dtype=np.float64) for part in data)
    w, a, b = (np.asarray(params[name], dtype=np.float64) for name in "wab")
    return np.log1p(np.exp(-y * (np.tanh(x @ w.T) @ a + b)))


def test_chunks_are_small_and_add_up_to_the_whole(data, whole, chunked):
    params = chunked.initial_params(jax.random.key(0))
    assert chunk_size(whole, params) == N
    assert chunk_size(chunked, params) <= SMALLEST_CHUNK
    by_hand = losses_by_hand(data, params).mean()
    np.testing.assert_allclose(chunked.loss(params), by_hand, rtol=1e-6)
    traced = jax.jit(lambda at: (chunked.loss(at), chunked.gradient(at)))
    np.testing.assert_allclose(traced(params)[0], by_hand, rtol=1e-6)
    flat = chunked.flatten
    for gradient in (chunked.gradient, lambda at: traced(at)[1], jax.grad(chunked.loss)):
        np.testing.assert_allclose(
            flat(gradient(params)), flat(whole.gradient(params)), rtol=1e-5, atol=1e-7
        )


def test_examples_have_company_as_far_as_memory_goes():
    def large(params, example):
        return jnp.sum(jnp.tanh(jnp.outer(params * example, jnp.ones(40_000)))) / 40_000

    problem = empirical_risk(large, np.ones((640, 1)), np.ones(1))
    assert chunk_size(problem, np.ones(1)) == COMPANY
    assert chunk_size(problem, np.ones(1), copies=10_000) <= SMALLEST_CHUNK


def test_second_products_do_not_trace_the_loss(data, start):
    traced = []

    def counted(params, example):
        traced.append(0)
        return loss(params, example)

    product = hessian_product(empirical_risk(counted, data, start, memory_budget=2**30), start)
    product(np.ones(3 * 4 + 3 + 1))
    before = len(traced)
    product(np.ones(3 * 4 + 3 + 1))
    assert len(traced) == before


def test_hessian_products_are_those_of_the_matrix(whole, chunked):
    params = chunked.initial_params(jax.random.key(0))
    matrix, vector = hessian(whole, params), np.linspace(-1, 1, chunked.dimension)
    np.testing.assert_allclose(hessian(chunked, params), matrix, rtol=1e-10, atol=1e-12)
    single, double = (hessian_product(chunked, params, double=d) for d in (False, True))
    np.testing.assert_allclose(single(vector), matrix @ vector, rtol=1e-4, atol=1e-6)
    found = double(vector)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, matrix @ vector, rtol=1e-10, atol=1e-12)
    with compilations() as number:
        single(vector + 1)
        double(vector + 1)
    assert number() == 0


def test_products_without_examples_are_those_of_the_loss():
    bowl = quadratic(np.diag([1.0, 3.0]))
    vector = np.array([2.0, -1.0])
    np.testing.assert_allclose(hessian_product(bowl, np.ones(2))(vector), [2.0, -3.0], rtol=1e-6)
    quartic = landscape(lambda x: jnp.sum(x**4), np.ones(2))
    product = hessian_product(quartic, np.array([1.0, 2.0]), double=True)
    np.testing.assert_allclose(product(vector), [24.0, -48.0], rtol=1e-12)


def squared_loss(problem, params, example, power):
    return {"moment": problem.example_loss(params, example) ** power}


def test_means_of_any_function_of_an_example(data, chunked):
    params = chunked.initial_params(jax.random.key(0))
    by_hand = np.mean(losses_by_hand(data, params) ** 3)
    for found in (
        mean_over_examples(chunked, squared_loss, params, 3.0),
        mean_over_examples(chunked, squared_loss, params, 3.0, double=True),
        jax.jit(lambda at: mean_over_examples(chunked, squared_loss, at, 3.0))(params),
    ):
        np.testing.assert_allclose(found["moment"], by_hand, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_a_budget_is_a_number_of_bytes(data, start):
    with pytest.raises(ValueError, match="memory_budget must be at least 1, got 0"):
        empirical_risk(loss, data, start, memory_budget=0)


@pytest.mark.parametrize("watched", [True, False])
def test_bars_show_where_somebody_watches(data, start, monkeypatch, capsys, watched):
    monkeypatch.setattr(sums, "_PATIENCE", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: watched)
    problem = empirical_risk(loss, data, start)
    mean_over_examples(problem, lambda _, *given: loss(*given), start, progress=True)
    assert ("examples" in capsys.readouterr().err) == watched
