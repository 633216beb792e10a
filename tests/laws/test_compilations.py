"""Second calls compile nothing: neither of the same law nor of one that is built again."""

import jax
import numpy as np
import pytest

from statsgd.laws import LAWS, Gibbs, ImproperLawError, IntractableError
from statsgd.problems import landscape
from studies.compilations import compilations
from tests.laws.examples import OF_EACH_BASE


def use(law):
    """Every method of the contract, as far as the law knows it."""
    point = np.asarray(law.draw(jax.random.key(0))) if law.exact_draws else None
    points = np.full((5, law.dimension), 0.3) if point is None else np.tile(point, (5, 1))
    methods = [
        lambda: law.log_density(points),
        lambda: law.score(points),
        lambda: law.cdf(points),
        lambda: law.quantile([0.2, 0.7]),
        law.mean,
        law.covariance,
        law.quadrature,
        lambda: law.draw_variables(jax.random.key(1), (5,)) if law.exact_draws else None,
    ]
    known = 0
    for method in methods:
        try:
            method()
            known += 1
        except (IntractableError, ImproperLawError):
            continue
    return known


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OF_EACH_BASE else [pytest.mark.slow])
        for name in sorted(LAWS)
    ],
)
def test_second_calls_compile_nothing(name):
    assert use(next(iter(LAWS[name].examples()))) > 1
    with compilations() as count:
        use(next(iter(LAWS[name].examples())))
    assert count() == 0


def test_a_new_density_on_the_line_is_compiled_for_two_numbers_of_points():
    # What finds its wells and tabulates it is compiled for all densities.
    traced = []

    def loss(params):
        traced.append(0)
        return jax.numpy.sum(params**4 - params**2)

    problem = landscape(loss, np.ones(1))
    traced.clear()
    Gibbs(problem, 0.5)
    assert len(traced) == 2
