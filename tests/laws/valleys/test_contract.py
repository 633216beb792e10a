"""Points and batches of them, alike, for every law of the family."""

import numpy as np
import pytest

from statsgd.laws import IntractableError, TwoValleyLaw, ValleyLaw

LAWS = [
    pytest.param(law, id=f"{kind.__name__}-{i}")
    for kind in (TwoValleyLaw, ValleyLaw)
    for i, law in enumerate(kind.examples())
]


def said(function, *arguments):
    try:
        return function(*arguments)
    except IntractableError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize("what", ["log_density", "cdf", "quantile"])
@pytest.mark.parametrize("law", LAWS)
def test_leading_axes_are_batch_axes(law, what):
    method = getattr(law, what)
    shape = (2, 3) if what == "quantile" else (2, 3, law.dimension)
    points = np.random.default_rng(0).uniform(0.1, 0.9, shape)
    whole = said(method, points)
    assert whole.dtype == np.float64
    assert whole.shape == ((2, 3) if what == "log_density" else (2, 3, law.dimension))
    np.testing.assert_allclose(method(points[1]), whole[1], rtol=1e-12)
    np.testing.assert_allclose(method(points[1, 2]), whole[1, 2], rtol=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_quantiles_invert_the_distribution_function(law):
    probability = np.array([0.01, 0.3, 0.5, 0.99])
    below = said(law.cdf, said(law.quantile, probability))
    np.testing.assert_allclose(below, np.tile(probability, (law.dimension, 1)).T, atol=1e-9)
