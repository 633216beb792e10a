"""One battery over every noise model: what it draws against the covariance it claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.dynamics.noise import NOISES, noise_covariance
from statsgd.noise import (
    Anisotropic,
    Empirical,
    HessianScaled,
    Isotropic,
    LabelNoise,
    LossScaled,
    Minibatch,
    NoNoise,
    Stable,
    StudentT,
    TraceMatched,
)
from statsgd.problems import empirical_risk, landscape, linear_regression, population_risk
from statsgd.running import stream_key

RNG = np.random.default_rng(4)
INPUTS = RNG.normal(size=(12, 2))
TARGETS = INPUTS @ [0.7, -0.4] + 0.5 * RNG.normal(size=12)


def tanh_loss(params, example):
    x, y = example
    return 0.5 * (jnp.tanh(x @ params["w"]) + params["b"] - y) ** 2


def vector_loss(params, example):
    x, y = example
    return jnp.sum((x @ params - y) ** 2)


def draw_example(key):
    one, two = jax.random.split(key)
    x = jax.random.normal(one, (2,))
    return x, x @ jnp.array([0.7, -0.4]) + 0.5 * jax.random.normal(two)


START = {"b": 0.0, "w": np.zeros(2)}
AT = {"b": 0.3, "w": np.array([0.8, -0.5])}
TANH = empirical_risk(tanh_loss, (INPUTS, TARGETS), START)
LINEAR = linear_regression(INPUTS, TARGETS)
VECTOR = empirical_risk(
    vector_loss, (INPUTS, np.stack([TARGETS, -0.5 * TARGETS], 1)), np.zeros((2, 2))
)
SURFACE = landscape(
    lambda p: 1.5 * p["b"] ** 2 + jnp.sum(jnp.cosh(p["w"])) + p["b"] * p["w"][0], START
)


def fresh_covariance(at):
    # The exact one of ½(x·θ − y)², x standard normal: with δ = θ − w* and label variance s,
    # C = ((s + |δ|²)I + δδᵀ)/S.
    delta = np.asarray(at) - [0.7, -0.4]
    return ((0.25 + delta @ delta) * np.eye(2) + np.outer(delta, delta)) / 4


FRESH = population_risk(
    lambda params, example: 0.5 * (example[0] @ params - example[1]) ** 2,
    draw_example,
    np.zeros(2),
    exact_loss=lambda p: 0.5 * (jnp.sum((p - jnp.array([0.7, -0.4])) ** 2) + 0.25),
)
FLAT = np.array([0.9, 0.4])
SKEW = np.array([[1.0, 0.6, 0.1], [0.6, 0.8, -0.2], [0.1, -0.2, 0.5]])


def varying(params):
    return jnp.asarray(SKEW) * (1 + params["b"] ** 2)


CASES = {
    "NoNoise": [(NoNoise(), TANH, AT), (NoNoise(), SURFACE, AT)],
    "Isotropic": [(Isotropic(0.7), TANH, AT), (Isotropic(0.7), SURFACE, AT)],
    "LossScaled": [
        (LossScaled(0.5), TANH, AT),
        (LossScaled(0.5, floor=0.3, saturation=0.8), SURFACE, AT),
    ],
    "Anisotropic": [
        (Anisotropic(SKEW), SURFACE, AT),
        (Anisotropic(varying), TANH, AT),
    ],
    "HessianScaled": [
        (HessianScaled(0.4), SURFACE, AT),
        (HessianScaled(0.4, floor=0.2), TANH, AT),
    ],
    "Minibatch": [
        *((Minibatch(4, scheme), TANH, AT) for scheme in Minibatch.SAMPLING if scheme != "fresh"),
        (Minibatch(3, "without_replacement"), VECTOR, np.array([[0.2, 0.5], [-0.3, 0.8]])),
        (Minibatch(4, "fresh"), FRESH, FLAT),
    ],
    "LabelNoise": [
        (LabelNoise(0.8, 3), LINEAR, FLAT),
        (LabelNoise(0.8, 12, "without_replacement"), LINEAR, FLAT),
        (LabelNoise(0.8, 4, "reshuffle"), TANH, AT),
        (LabelNoise(0.8, 3, "single_shuffle"), VECTOR, np.array([[0.2, 0.5], [-0.3, 0.8]])),
        (LabelNoise(0.8, 4, "fresh"), FRESH, FLAT),
    ],
    "Stable": [
        (Stable(2.0, 0.6), TANH, AT),
        (Stable(2.0, [0.2, 0.5, 0.9], "independent"), SURFACE, AT),
    ],
    "StudentT": [
        (StudentT(14.0, 0.6), TANH, AT),
        (StudentT(14.0, [0.2, 0.5, 0.9], "independent"), SURFACE, AT),
    ],
    "Empirical": [(Empirical(RNG.normal(size=(7, 3)) ** 3 + 2.0), SURFACE, AT)],
    "TraceMatched": [
        (TraceMatched(Minibatch(4), "diagonal"), TANH, AT),
        (TraceMatched(Minibatch(4), "leading", rank=2), TANH, AT),
        (TraceMatched(LabelNoise(0.8, 3), "hessian"), LINEAR, FLAT),
        (TraceMatched(Anisotropic(SKEW), "hessian", rank=2), SURFACE, AT),
        (TraceMatched(Anisotropic(SKEW), "top", trace=0.4), SURFACE, AT),
    ],
}
#: Every noise and every way to sample minibatches by default, other forms with the slow tests.
FLAT_CASES = [
    pytest.param(
        *case, id=f"{name}-{i}", marks=[pytest.mark.slow] if i and name != "Minibatch" else []
    )
    for name, cases in CASES.items()
    for i, case in enumerate(cases)
]


def exact_covariance(noise, problem, params):
    if problem is FRESH:  # the noise's own covariance is an average over a sample there
        labels = noise.standard_deviation**2 / 4 if isinstance(noise, LabelNoise) else 0.0
        return fresh_covariance(params) + labels * np.eye(2)
    return noise_covariance(problem, params, noise)


def test_every_registered_noise_is_in_the_battery():
    assert set(CASES) == set(NOISES)


@pytest.mark.parametrize(("noise", "problem", "params"), FLAT_CASES)
def test_draws_have_the_mean_and_covariance_claimed(noise, problem, params):
    number = 40_000
    noise.check(problem)
    params = jax.tree.map(jnp.asarray, params)
    draw = jax.jit(jax.vmap(lambda key: problem.flatten(noise.draw(key, problem, params))))
    draws = np.asarray(draw(jax.random.split(stream_key(17), number)), dtype=np.float64)
    deviations = draws - np.asarray(problem.flatten(problem.gradient(params)))
    expected = exact_covariance(noise, problem, params)
    floor = 1e-5 * (1 + np.abs(draws).max())  # rounding of float32
    error = draws.std(0) / np.sqrt(number)
    assert np.all(np.abs(deviations.mean(0)) < 4 * error + floor)
    products = deviations[:, :, None] * deviations[:, None, :]
    error = products.std(0) / np.sqrt(number)
    assert np.all(np.abs(products.mean(0) - expected) < 4 * error + floor)
    total = np.trace(expected)
    spread = np.sum(deviations**2, 1).std() / np.sqrt(number)
    assert total == 0 or 4 * spread < 0.1 * total  # a factor 1.1 would show


@pytest.mark.parametrize(("noise", "problem", "params"), [cases[-1] for cases in CASES.values()])
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.slow
def test_precision_and_structure_follow_the_params(noise, problem, params, wide):
    with jax.enable_x64(wide):
        dtype = jnp.float64 if wide else jnp.float32
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        drawn = noise.draw(stream_key(1), problem, params)
        assert jax.tree.structure(drawn) == jax.tree.structure(params)
        assert all(
            one.dtype == dtype and one.shape == other.shape
            for one, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(params), strict=True)
        )
        covariance = noise.covariance(problem, params)
        assert covariance.shape == (problem.dimension, problem.dimension)
        assert np.all(np.isfinite(covariance))


@pytest.mark.parametrize("scheme", ["with_replacement", "without_replacement"])
def test_white_noises_give_another_batch_at_every_step(scheme):
    noise = LabelNoise(0.5, 2, scheme)
    steps = jax.vmap(lambda step: noise.at_step(stream_key(3), step, LINEAR, jnp.asarray(FLAT)))
    assert len(np.unique(np.asarray(steps(jnp.arange(50)))[:, 0])) == 50


@pytest.mark.slow
def test_shuffled_label_noise_keeps_the_order_and_redraws_the_labels():
    quiet = LabelNoise(1e-6, 4, "single_shuffle")
    loud = LabelNoise(1.0, 4, "single_shuffle")
    assert not loud.white

    def run(noise):
        at = jnp.asarray(FLAT)
        return np.asarray(
            jax.vmap(lambda step: noise.at_step(stream_key(3), step, LINEAR, at))(jnp.arange(6))
        )

    np.testing.assert_allclose(run(quiet)[:3], run(quiet)[3:], atol=1e-4)
    assert np.abs(run(loud)[:3] - run(loud)[3:]).min() > 1e-3


@pytest.mark.parametrize("shape", ["isotropic", "diagonal", "leading", "hessian", "top"])
@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_trace_is_matched_at_every_point(shape, scale):
    params = jax.tree.map(lambda leaf: scale * leaf, AT)
    reference = Minibatch(4, "without_replacement")
    matched = noise_covariance(TANH, params, TraceMatched(reference, shape))
    trace = np.trace(noise_covariance(TANH, params, reference))
    assert np.trace(matched) == pytest.approx(trace, rel=1e-6)


def test_shapes_are_those_of_the_source():
    c = np.array([[2.0, 0.5], [0.5, 1.0]])
    h = np.array([[3.0, 1.0], [1.0, -1.0]])  # eigenvalues 1 ± √5: the negative one is clipped
    problem = landscape(lambda p: 0.5 * p @ jnp.asarray(h, p.dtype) @ p, np.zeros(2))
    at = np.array([0.2, -0.1])

    def shaped(shape, **options):
        return noise_covariance(problem, at, TraceMatched(Anisotropic(c), shape, **options))

    v = np.linalg.eigh(c)[1]
    u = np.linalg.eigh(h)[1][:, -1]
    np.testing.assert_allclose(shaped("isotropic"), 1.5 * np.eye(2), rtol=1e-12)
    np.testing.assert_allclose(shaped("diagonal"), np.diag([2.0, 1.0]), rtol=1e-12)
    np.testing.assert_allclose(shaped("leading"), c, rtol=1e-12)
    one = 3 * np.outer(v[:, -1], v[:, -1])
    np.testing.assert_allclose(shaped("leading", rank=1), one, rtol=1e-12)
    np.testing.assert_allclose(shaped("hessian"), 3 * np.outer(u, u), atol=1e-12)
    np.testing.assert_allclose(shaped("top"), 3 * np.outer(u, u), rtol=1e-12)
    np.testing.assert_allclose(shaped("top", trace=0.4), 0.4 * np.outer(u, u), rtol=1e-12)
    # Eigenvectors at 45°: diagonal is isotropic. On the axes: diagonal is leading.
    even = TraceMatched(Anisotropic([[1.0, 0.4], [0.4, 1.0]]), "diagonal")
    np.testing.assert_allclose(noise_covariance(problem, at, even), np.eye(2), rtol=1e-12)


@pytest.mark.parametrize("shape", ["hessian", "top"])
def test_hessian_shapes_are_refused_at_a_maximum(shape):
    problem = landscape(lambda p: -jnp.sum(p**2), np.zeros(2))
    noise = TraceMatched(Isotropic(1.0), shape)
    with pytest.raises(ValueError, match="largest Hessian eigenvalue -2 <= 0"):
        noise.covariance(problem, jnp.zeros(2))
    traced = jax.jit(lambda p: noise.covariance(problem, p))(jnp.zeros(2))
    assert np.all(np.isnan(traced))


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="shape must be one of 'isotropic'"):
        TraceMatched(Isotropic(1.0), "round")
    with pytest.raises(ValueError, match="reference must be one of"):
        TraceMatched("minibatch")
    with pytest.raises(ValueError, match="rank must be at most the number of parameters, 3, got 4"):
        TraceMatched(Isotropic(1.0), "leading", rank=4).check(SURFACE)
    with pytest.raises(ValueError, match="trace must be positive"):
        TraceMatched(Isotropic(1.0), trace=0.0)
    with pytest.raises(ValueError, match="must have a positive trace, got 0"):
        TraceMatched(NoNoise()).covariance(SURFACE, jax.tree.map(jnp.asarray, AT))
    with pytest.raises(ValueError, match="standard_deviation must be positive"):
        LabelNoise(0.0, 2)
    single = empirical_risk(lambda p, x: jnp.sum((p - x) ** 2), np.ones((4, 2)), np.zeros(2))
    with pytest.raises(ValueError, match=r"examples must be pairs \(inputs, targets\)"):
        LabelNoise(0.1, 2).check(single)
    classes = empirical_risk(
        lambda p, e: p[e[1]] * e[0], (np.ones(4), np.array([0, 1, 0, 1])), np.zeros(2)
    )
    with pytest.raises(ValueError, match="targets must be one floating array"):
        LabelNoise(0.1, 2).check(classes)
    with pytest.raises(ValueError, match="noise other than Minibatch on a landscape"):
        LabelNoise(0.1, 2).check(SURFACE)
