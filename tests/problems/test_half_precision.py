"""Parameters of 16 bits: computed in, added up in single precision, measured in double."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.laws import ModeLaw
from statsgd.measures import (
    fisher_operator,
    gauss_newton_operator,
    hessian_operator,
    local_learning_coefficient,
    noise_and_curvature_along,
    noise_covariance_along,
    noise_operator,
    top_eigenpairs,
    trace,
)
from statsgd.noise import Isotropic, Minibatch
from statsgd.problems import (
    batch_risk,
    empirical_risk,
    hessian,
    hessian_product,
    landscape,
    population_risk,
)
from statsgd.problems.weighted import squared_gradient

# Such numbers that gradients of single examples need no more than the 8 bits of bfloat16: what is
# wrong of a mean of them is wrong of the sum.
N = 400
RNG = np.random.default_rng(1)
X = RNG.choice([-2.0, -1.0, 1.0, 2.0], size=(N, 3), p=[0.1, 0.2, 0.3, 0.4]).astype(np.float32)
Y = RNG.integers(-3, 4, N).astype(np.float32)
AT = np.array([0.25, -0.625, 1.125])
HALVES = [jnp.bfloat16, jnp.float16]

# Sums of 400 numbers in float32; in 16 bits they are wrong by 1e-3 and more.
SINGLE = {"rtol": 2e-6, "atol": 1e-6}


def gap(w, example):
    return w @ example[0].astype(w.dtype) - example[1].astype(w.dtype)


def loss(w, example):
    return gap(w, example) ** 2


def batch_loss(w, batch):
    """The product of two gaps: not a mean over examples."""
    x, y = batch
    return gap(w, (x[0], y[0])) * gap(w, (x[1], y[1]))


def in_double():
    """Gaps and gradients of the examples, from NumPy."""
    gaps = X.astype(float) @ AT - Y
    return gaps, 2 * gaps[:, None] * X


@pytest.fixture(params=HALVES, ids=["bfloat16", "float16"])
def half(request):
    return request.param


@pytest.mark.parametrize("budget", [None, 1, 3000])
def test_gradients_of_examples_are_added_up_in_single_precision(half, budget):
    problem = empirical_risk(loss, (X, Y), jnp.asarray(AT, half), memory_budget=budget)
    params = problem.initial_params(jax.random.key(0))
    assert params.dtype == half
    assert jax.grad(loss)(params, (X[0], Y[0])).dtype == half
    assert problem.loss(params).dtype == problem.gradient(params).dtype == np.float32
    gaps, each = in_double()
    for gradient in (problem.gradient, jax.jit(lambda at: problem.gradient(at))):
        np.testing.assert_allclose(gradient(params), each.mean(axis=0), **SINGLE)
    # The square of a gap would be rounded, its modulus is not.
    moduli = empirical_risk(lambda w, one: jnp.abs(gap(w, one)), (X, Y), params)
    np.testing.assert_allclose(moduli.loss(params), np.mean(np.abs(gaps)), **SINGLE)
    assert problem.model(problem.flatten(params)).dtype == half


def test_sums_may_be_larger_than_any_number_of_16_bits():
    problem = empirical_risk(lambda w, x: w * x.astype(w.dtype), np.full(N, 300.0), jnp.float16(1))
    assert float(problem.gradient(jnp.float16(1))) == 300.0
    found = squared_gradient(problem.without_examples, jnp.float16(1), jnp.float32(300))
    assert float(found) == 300.0**2


def test_gradients_of_batches_are_added_up_in_single_precision(half):
    problem = batch_risk(batch_loss, (X, Y), jnp.asarray(AT, half), batch_size=2, loss_batches=300)
    params = problem.initial_params(jax.random.key(0))
    one, other = problem._batches().T
    gaps = in_double()[0]
    expected = X[one] * gaps[other, None] + X[other] * gaps[one, None]
    assert problem.gradient(params).dtype == np.float32
    for gradient in (problem.gradient, jax.jit(lambda at: problem.gradient(at))):
        np.testing.assert_allclose(gradient(params), expected.mean(axis=0), **SINGLE)


def test_gradients_of_fresh_examples_and_of_landscapes_have_single_precision(half):
    start, keys = jnp.asarray(AT, half), jax.random.split(jax.random.key(0), 300)

    def draw(key):
        return jax.random.randint(key, (3,), -3, 4).astype(float)

    problem = population_risk(
        lambda w, x: jnp.sum((w - x.astype(w.dtype)) ** 2), draw, start, loss_examples=len(keys)
    )
    expected = 2 * (AT - np.mean(jax.vmap(draw)(keys), axis=0))
    np.testing.assert_allclose(problem.gradient(start), expected, **SINGLE)
    bowl = landscape(lambda w: jnp.sum(w**2), start)
    assert bowl.gradient(start).dtype == np.float32
    np.testing.assert_array_equal(bowl.gradient(start), 2 * AT)


def test_measures_and_laws_are_of_the_rounded_parameters_in_double_precision(half):
    problem = empirical_risk(loss, (X, Y), jnp.asarray(AT, half))
    params = problem.initial_params(jax.random.key(0))
    each = in_double()[1]
    curvature = 2 * X.astype(float).T @ X.astype(float) / N
    noise = np.cov(each.T, bias=True) / 8
    np.testing.assert_allclose(hessian(problem, params), curvature, rtol=1e-10)
    product = hessian_product(problem, params, double=True)
    np.testing.assert_allclose(product(np.ones(3)), curvature.sum(axis=1), rtol=1e-10)
    values, vectors = (part[..., ::-1] for part in np.linalg.eigh(curvature))
    pairs = top_eigenpairs(problem, params, 2)
    np.testing.assert_allclose(pairs.values, values[:2], rtol=1e-8)
    np.testing.assert_allclose(np.abs(pairs.vectors @ vectors)[:, :2], np.eye(2), atol=1e-6)
    minibatch = Minibatch(8)
    columns = np.linalg.qr(RNG.normal(size=(3, 2)))[0]
    along = noise_covariance_along(problem, params, minibatch, columns)
    np.testing.assert_allclose(along, columns.T @ noise @ columns, rtol=1e-8)
    sgd = statsgd.SGD(0.02, minibatch, 0.5, 0.1)
    law = ModeLaw.from_checkpoint(problem, sgd, params, 2, 6)
    np.testing.assert_allclose(law.curvatures, values[:2] + 0.1, rtol=1e-8)
    np.testing.assert_allclose(law.noise_covariance, law.modes.T @ noise @ law.modes, rtol=1e-8)
    gradient = each.mean(axis=0) + 0.1 * AT
    np.testing.assert_allclose(law.gradient, gradient @ law.modes, rtol=1e-8)


def predicted(model, example):
    return model @ example[0].astype(model.dtype)


def squared(value, example):
    return (value - example[1]) ** 2


def test_products_with_matrices_are_of_the_rounded_parameters_in_single_precision(half):
    problem = empirical_risk(loss, (X, Y), jnp.asarray(AT, half))
    params, vector = problem.initial_params(jax.random.key(0)), np.float32([0.3, -0.7, 0.45])
    each, curvature = in_double()[1], 2 * X.astype(float).T @ X.astype(float) / N
    for product, matrix in (
        (hessian_product(problem, params), curvature),
        (hessian_operator(problem, params).product, curvature),
        (gauss_newton_operator(predicted, squared)(problem, params).product, curvature),
        (fisher_operator(problem, params).product, each.T @ each / N),
        (noise_operator(Minibatch(8))(problem, params).product, np.cov(each.T, bias=True) / 8),
    ):
        np.testing.assert_allclose(product(vector), matrix @ vector, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "noise", [Minibatch(4), Minibatch(7, "reshuffle", drop_last=False), Isotropic(0.1)]
)
def test_runs_stay_in_16_bits(noise):
    problem = empirical_risk(loss, (X[:60], Y[:60]), jnp.asarray(AT, jnp.bfloat16))
    sgd = statsgd.SGD(0.01, noise, momentum=0.5)
    ran = statsgd.simulate(problem, sgd, steps=12, replicas=3, seed=0, progress=False)
    ends = ran["endpoints"]["params"].values.astype(float)
    assert np.all(np.isfinite(ends))
    np.testing.assert_array_equal(ends, jnp.asarray(ends, jnp.bfloat16).astype(float))
    assert not ran["run"]["diverged"].values.any()


@pytest.mark.parametrize("dtype", HALVES)
def test_measures_that_are_not_in_double_are_in_single(dtype):
    # Of the same data and parameters in single precision, whose numbers 16 bits hold exactly.
    points = [jnp.asarray(AT, dtype), jnp.asarray(AT, jnp.float32)]
    pairs = [(empirical_risk(loss, (X, Y), at), at) for at in points]

    def both(measure):
        return [np.asarray(measure(*pair)) for pair in pairs]

    def chains(problem, params):
        found = local_learning_coefficient(
            problem, params, step_size=1e-5, localization=1.0, steps=200, burn_in=50, seed=0,
            inverse_temperature=10.0, chains=4, double=False,
        )  # fmt: skip
        return found.value

    for measure in (
        lambda problem, params: trace(problem, params, samples=4, double=False).value,
        lambda problem, params: top_eigenpairs(problem, params, 2, double=False).values,
        lambda problem, params: noise_and_curvature_along(
            problem, params, Minibatch(4), np.eye(3), double=False
        )[1],
        chains,
    ):
        np.testing.assert_allclose(*both(measure), rtol=1e-5)
