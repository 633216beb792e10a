"""The catalogue lists every law, and says which speak about a setting and why others do not."""

import numpy as np
import pytest

from statsgd import SGD, noise, problems
from statsgd.laws import LAWS, applicable, catalogue


def test_every_law_is_listed_with_its_source():
    table = catalogue()
    assert list(table["law"]) == sorted(LAWS)
    assert (table[["setting", "exactness", "source"]] != "").all(axis=None)


@pytest.mark.slow
def test_applicable_tells_laws_that_speak_from_laws_that_refuse():
    inputs = np.random.default_rng(0).normal(size=(30, 2))
    problem = problems.linear_regression(inputs, inputs @ [1.0, 2.0] + 0.3)
    table = applicable(problem, SGD(0.1, noise.Minibatch(4))).set_index("law")
    assert table.loc["LinearRegressionGaussian", "applies"]
    assert table.loc["HeavyBallGaussian", "applies"]
    wild = applicable(problem, SGD(0.9, noise.Minibatch(1))).set_index("law")
    assert not wild.loc["LinearRegressionGaussian", "applies"]
    assert "batch_size must be above" in wild.loc["LinearRegressionGaussian", "reason"]
    bowl = problems.landscape(lambda x: x @ x, np.zeros(2))
    other = applicable(bowl, SGD(0.1, noise.Isotropic(1.0))).set_index("law")
    assert other.loc["HeavyBallGaussian", "applies"]
    assert "linear_regression problems" in other.loc["LinearRegressionGaussian", "reason"]
