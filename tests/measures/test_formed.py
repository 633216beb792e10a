"""When measures form a matrix: either side of the limits, by the products that are taken."""

import jax
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import (
    hessian_operator,
    log_determinant,
    top_eigenpairs,
    trace,
    trace_of_square,
)
from statsgd.measures.curvature import eigenpairs, traces
from statsgd.measures.curvature.operators import Operator

ROWS, EXAMPLES = 24, 40
_rng = np.random.default_rng(0)
_inputs = _rng.normal(size=(EXAMPLES, 10)) @ _rng.normal(size=(10, ROWS))
#: Of rank ten: less than the sixteen directions that a trace of products takes out.
PROBLEM = problems.linear_regression(_inputs, _rng.normal(size=EXAMPLES))
ORIGIN = np.zeros(ROWS)
VALUES = np.linalg.eigvalsh(_inputs.T @ _inputs / EXAMPLES)[::-1]


class Counted:
    """Products with the Hessian, of which every one that is taken is counted."""

    def __init__(self):
        self.taken = 0

    def __call__(self, problem, params):
        of = hessian_operator(problem, params)

        def product(vector):
            jax.debug.callback(self._count, vector)
            return of.product(vector)

        return Operator(product, of.dimension)

    def _count(self, _):
        self.taken += 1

    def of(self, measure, *arguments, **options):
        """What `measure` finds, and the products it took."""
        self.taken = 0
        found = measure(PROBLEM, ORIGIN, *arguments, operator=self, **options)
        jax.effects_barrier()
        return found, self.taken


@pytest.fixture
def counted():
    return Counted()


#: The limits between which the matrix of `ROWS` rows and `EXAMPLES` examples is just formed, and
#: what each of them is where it no longer is.
AT_LIMIT = {"DENSE_LIMIT": ROWS, "MOST_WORK": ROWS * ROWS * EXAMPLES}


@pytest.fixture(params=list(AT_LIMIT))
def beyond(request, monkeypatch):
    """Set limits that just allow the matrix; called, one of them just does not."""
    for name, limit in AT_LIMIT.items():
        monkeypatch.setattr(traces, name, limit)

    def lowered():
        monkeypatch.setattr(traces, request.param, AT_LIMIT[request.param] - 1)

    return lowered


def test_traces_are_of_the_matrix_up_to_the_limits_and_of_products_above(counted, beyond):
    formed, products = counted.of(trace)
    assert products == ROWS
    assert formed.standard_error == 0
    beyond()
    estimated, products = counted.of(trace)
    assert products == 2 * traces.RANK + traces.SAMPLES != ROWS
    # Nothing is left beyond the directions taken out: the two routes give the same number.
    for found in (formed, estimated):
        assert found.value == pytest.approx(VALUES.sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [(trace_of_square, np.sum(VALUES**2)), (log_determinant, np.sum(np.log(VALUES[:10])))],
)
def test_other_measures_keep_the_same_rule(counted, beyond, measure, expected):
    formed, products = counted.of(measure)
    assert products == ROWS
    assert formed[:2] == pytest.approx((expected, 0), rel=1e-9)
    beyond()
    estimated, products = counted.of(measure)
    assert products > 2 * ROWS
    assert 0 < estimated.standard_error < 0.2 * abs(expected)
    assert abs(estimated.value - expected) < 4 * estimated.standard_error


def test_samples_that_are_asked_for_are_taken_whatever_the_size(counted):
    found, products = counted.of(trace, samples=8)
    assert products == 8
    assert found.standard_error > 0


def test_eigenpairs_have_a_limit_of_their_own(counted, monkeypatch):
    monkeypatch.setattr(eigenpairs, "FORMED_ROWS", ROWS)
    formed, whole = counted.of(top_eigenpairs, 3)
    monkeypatch.setattr(eigenpairs, "FORMED_ROWS", ROWS - 1)
    iterated, products = counted.of(top_eigenpairs, 3)
    assert whole == ROWS + 3  # three more for the residuals
    assert products != whole
    for found in (formed, iterated):
        np.testing.assert_allclose(found.values, VALUES[:3], rtol=1e-9)


def test_traced_eigenpairs_keep_the_rule_of_the_other_measures(counted, monkeypatch, beyond):
    monkeypatch.setattr(eigenpairs, "FORMED_ROWS", 1)
    monkeypatch.setattr(eigenpairs, "DEPTH", 16)
    taken = []
    for lower in (lambda: None, beyond):
        lower()
        counted.taken = 0
        traced = jax.jit(lambda at: top_eigenpairs(PROBLEM, at, 2, operator=counted).values)
        np.testing.assert_allclose(traced(ORIGIN), VALUES[:2], rtol=1e-4)  # single precision
        jax.effects_barrier()
        taken.append(counted.taken)
    assert taken[0] == ROWS + 2
    assert taken[1] < ROWS
