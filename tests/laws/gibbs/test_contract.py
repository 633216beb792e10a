"""Rules of shapes and of speed that every law of isotropic noise keeps, on its examples."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd.laws.gibbs import EffectivePotentialGibbs, Gibbs, KinkedWellsGibbs, TwoBasinGibbs
from statsgd.laws.law import IntractableError
from statsgd.laws.valleys.curve_laws import ValleyEntropyLaw, ValleySharpnessLaw
from tests.compilation import compilations

KINDS = (
    EffectivePotentialGibbs, Gibbs, KinkedWellsGibbs, TwoBasinGibbs, ValleyEntropyLaw,
    ValleySharpnessLaw,
)  # fmt: skip
CASES = [
    pytest.param(kind, i, id=f"{kind.__name__}-{i}")
    for kind in KINDS
    for i in range(len(kind.examples()))
]


def said(method, *arguments):
    """What the law says, or a skip with the reason why it cannot."""
    try:
        return method(*arguments)
    except IntractableError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["log_density", "cdf", "score"])
@pytest.mark.parametrize(("kind", "index"), CASES)
def test_batches_agree_with_single_points(kind, index, name):
    law = kind.examples()[index]
    points = np.random.default_rng(0).uniform(-0.4, 0.9, (2, 3, law.dimension))
    method = getattr(law, name)
    batch = said(method, points)
    assert batch.dtype == np.float64
    flat = method(points.reshape(6, law.dimension))
    assert_allclose(batch.reshape(flat.shape), flat, rtol=1e-13, atol=1e-13)
    single = [method(point) for point in points.reshape(6, law.dimension)]
    assert_allclose(single, flat, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "index"), CASES)
def test_quantiles_invert_the_distribution_function(kind, index):
    law, levels = kind.examples()[index], np.array([[0.01, 0.3], [0.5, 0.97]])
    quantiles = said(law.quantile, levels)
    assert quantiles.shape == (2, 2, law.dimension)
    assert law.quantile(0.3).shape == (law.dimension,)
    expected = np.broadcast_to(levels[..., None], quantiles.shape)
    assert_allclose(law.cdf(quantiles), expected, atol=1e-9)


@pytest.mark.parametrize(("kind", "index"), CASES)
def test_exact_draws_have_the_moments_of_the_law(kind, index):
    # 4 standard errors of the mean of 4000 draws, which is below a tenth of the spread.
    law = kind.examples()[index]
    draws = np.asarray(said(law.draw, jax.random.key(5), (4000,)), dtype=np.float64)
    spread = np.sqrt(np.diagonal(law.covariance()))
    assert np.all(np.abs(draws.mean(axis=0) - law.mean()) < 4 * spread / np.sqrt(4000))


@pytest.mark.parametrize("kind", KINDS)
def test_second_calls_compile_nothing(kind):
    for first in (True, False):
        law, point = kind.examples()[0], np.zeros(kind.examples()[0].dimension)
        with compilations() as lowered:
            law.log_density(point), law.mean(), law.covariance()
            assert first or lowered() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_traced_density_is_the_concrete_one(kind):
    law = kind.examples()[0]
    point = np.full(law.dimension, 0.3)
    traced = jax.jit(lambda params: law.log_density(params))(point)
    assert_allclose(traced, law.log_density(point), rtol=1e-4)
