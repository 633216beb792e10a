import numpy as np
import pytest

from statsgd.laws import DiagonalNetworkLaw, InfiniteDepthNetworkLaw, InterpolationLaw
from statsgd.laws.law import IntractableError

EXAMPLES = [
    pytest.param(law, id=f"{kind.__name__}-{i}")
    for kind in (DiagonalNetworkLaw, InfiniteDepthNetworkLaw, InterpolationLaw)
    for i, law in enumerate(kind.examples())
]


def said(method, *arguments):
    try:
        return method(*arguments)
    except IntractableError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize("name", ["log_density", "score", "cdf", "quantile"])
@pytest.mark.parametrize("law", EXAMPLES)
def test_leading_axes_are_batch_axes(law, name):
    points = law.mean() * np.linspace(0.5, 1.5, 6)[:, None]
    values = np.linspace(0.1, 0.9, 6) if name == "quantile" else points
    method = getattr(law, name)
    alone = np.stack([said(method, value) for value in values])
    np.testing.assert_allclose(method(values), alone, rtol=1e-10)
    pairs = method(values.reshape(2, 3, *values.shape[1:]))
    np.testing.assert_allclose(pairs, alone.reshape(2, 3, *alone.shape[1:]), rtol=1e-10)
