"""Curvature against another library's, on the same weights and data."""

import numpy as np
import pytest

from statsgd.measures import top_eigenpairs, trace
from studies.peers.perceptron import classification, in_torch

curvlinops = pytest.importorskip("curvlinops", reason="curvlinops comes with the extra bench")

# Of torch, which the peer imports late.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def both():
    """A problem with its parameters, and the Hessian as curvlinops has it, column by column."""
    import torch

    rng = np.random.default_rng(0)
    problem, params = classification(rng.random((120, 12)), rng.integers(0, 5, 120), (12, 9, 5))
    model, images, labels = in_torch(problem, params)
    batches = list(zip(images.split(50), labels.split(50), strict=True))
    hessian = curvlinops.HessianLinearOperator(
        model,
        torch.nn.CrossEntropyLoss(),
        list(model.parameters()),
        batches,
        check_deterministic=False,
    )
    matrix = (hessian @ torch.eye(problem.dimension)).detach().numpy().astype(np.float64)
    return problem, params, (matrix + matrix.T) / 2


def test_outermost_eigenvalues_are_those_of_curvlinops(both):
    problem, params, matrix = both
    values = np.linalg.eigvalsh(matrix)
    largest = top_eigenpairs(problem, params, 5)
    np.testing.assert_allclose(largest.values, values[::-1][:5], rtol=1e-3)
    ends = top_eigenpairs(problem, params, 4, order="both")
    expected = [values[0], values[-1], values[1], values[-2]]
    np.testing.assert_allclose(ends.values, expected, rtol=1e-3)


def test_the_trace_is_that_of_curvlinops(both):
    problem, params, matrix = both
    assert float(trace(problem, params).value) == pytest.approx(np.trace(matrix), rel=1e-4)
    drawn = trace(problem, params, samples=1024, seed=0)
    assert 0 < drawn.standard_error < 0.1 * np.trace(matrix)
    assert abs(drawn.deviation(np.trace(matrix))) < 4
