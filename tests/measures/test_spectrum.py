"""Spectral measures against eigenvalues, and their standard errors against known variances."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import (
    curvature_matrix,
    gauss_newton_operator,
    hessian,
    log_determinant,
    over_blocks,
    spectral_density,
    top_eigenpairs,
    trace,
    trace_of_square,
)
from statsgd.measures.curvature import eigenpairs, traces
from statsgd.measures.curvature.traces import is_formed
from statsgd.problems.eigenpairs import lanczos_quadrature
from statsgd.problems.landscapes import quadratic
from tests.measures.problem_cases import PARAMS, network, output, square_loss

_rng = np.random.default_rng(0)
_ROOT = _rng.normal(size=(24, 16))
SINGULAR = _ROOT @ _ROOT.T / 16  # rank 16 of 24
PROBLEM, ORIGIN = problems.quadratic(SINGULAR), np.zeros(24)
VALUES = np.linalg.eigvalsh(SINGULAR)[::-1]


def test_no_number_is_certain_where_params_are_nan():
    bent = problems.landscape(lambda x: jnp.sum(jnp.cos(x)), np.zeros(3))
    for measure in (trace, trace_of_square):
        for options in ({}, {"samples": 4}):
            found = measure(bent, np.full(3, np.nan), **options)
            assert np.isnan(found.value)
            assert np.isnan(found.standard_error)
        assert measure(bent, np.zeros(3)).standard_error == 0


def test_traces():
    assert trace(PROBLEM, ORIGIN)[:2] == pytest.approx((VALUES.sum(), 0))
    assert trace_of_square(PROBLEM, ORIGIN)[:2] == pytest.approx((np.sum(VALUES**2), 0))
    # Signs: Var vᵀAv = 2 Σ_{i≠j} A_ij².
    found = trace(PROBLEM, ORIGIN, samples=2000, seed=1)
    off_diagonal = SINGULAR - np.diag(np.diag(SINGULAR))
    spread = np.sqrt(2 * np.sum(off_diagonal**2))
    assert found.standard_error == pytest.approx(spread / np.sqrt(2000), rel=0.1)
    assert 4 * found.standard_error < 0.1 * VALUES.sum()
    assert abs(found.value - VALUES.sum()) < 4 * found.standard_error
    square = trace_of_square(PROBLEM, ORIGIN, samples=2000)
    assert 4 * square.standard_error < 0.1 * np.sum(VALUES**2)
    assert abs(square.value - np.sum(VALUES**2)) < 4 * square.standard_error


def test_directions_taken_out_lower_the_error_of_a_trace():
    # Ten eigenvalues of 10 and 190 of 1/10, turned: plain signs have √(2 Σ_{i≠j} A_ij²/64) = 5.5
    # of 119, and once the ten are out at most √(2 · 190/100/32) = .34.
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    values = np.concatenate([np.full(10, 10.0), np.full(190, 0.1)])
    problem = problems.quadratic((turn * values) @ turn.T)
    plain = trace(problem, np.zeros(200), samples=64)
    found = trace(problem, np.zeros(200), samples=32, rank=16)
    assert 4 < plain.standard_error < 7
    assert found.standard_error < 0.34
    for one in (plain, found):
        assert abs(one.deviation(values.sum())) < 4
    many = [trace(problem, np.zeros(200), samples=32, rank=16, seed=i) for i in range(60)]
    squares = np.mean([one.deviation(values.sum()) ** 2 for one in many])
    assert 0.5 < squares < 1.8  # Student's t² has mean 31/29, and this one an error of .2


@pytest.mark.parametrize("rank", [0, 3])
def test_traces_of_large_problems_are_those_of_the_compiled_program(monkeypatch, rank):
    # The same signs, one product after the other through the chunks of the data.
    problem, params = network(), PARAMS
    ask = {"samples": 6, "seed": 3}
    compiled = trace(problem, params, rank=rank, **ask)
    square = trace_of_square(problem, params, **ask)
    monkeypatch.setattr(traces, "SHORT", 1)
    monkeypatch.setattr(traces, "_trace", None)
    monkeypatch.setattr(traces, "_square", None)
    found = trace(problem, params, rank=rank, **ask)
    np.testing.assert_allclose(found[:2], compiled[:2], rtol=1e-10)
    np.testing.assert_allclose(trace_of_square(problem, params, **ask)[:2], square[:2], rtol=1e-10)
    single = trace(problem, params, rank=rank, double=False, **ask)
    np.testing.assert_allclose(single[:2], compiled[:2], rtol=1e-4)
    assert float(single.value) != float(compiled.value)
    nowhere = {name: np.full_like(leaf, np.nan) for name, leaf in params.items()}
    assert np.isnan(trace(problem, nowhere, rank=0, **ask)[:2]).all()


def test_leading_eigenpairs_of_the_gauss_newton_matrix():
    problem, k = network(), 3
    operator = gauss_newton_operator(output, square_loss)
    values, columns = np.linalg.eigh(curvature_matrix(problem, PARAMS, operator))
    for depth in (None, 10):
        found = top_eigenpairs(problem, PARAMS, k, operator, depth=depth)
        np.testing.assert_allclose(found.values, values[::-1][:k], rtol=1e-6)
        along = np.abs(np.sum(np.asarray(found.vectors) * columns.T[::-1][:k], axis=1))
        np.testing.assert_allclose(along, 1, atol=1e-5)


def test_log_determinant_leaves_out_the_nullspace():
    expected = np.sum(np.log(VALUES[:16]))
    exact = log_determinant(PROBLEM, ORIGIN)
    assert exact == pytest.approx((expected, 0, 8, 0, 0, 0))
    found = log_determinant(PROBLEM, ORIGIN, samples=400)
    assert abs(found.value - expected) < 4 * found.standard_error
    assert abs(found.nullity - 8) < 4 * found.nullity_standard_error < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "decades",
    [2, 4, 6, 8],
)
def test_error_of_the_log_determinant_holds_the_bias(decades):
    # Determinant one. Deeper quadrature comes nearer; the error says how near, or that it cannot.
    spectrum = np.logspace(-decades / 2, decades / 2, 400)
    problem = quadratic(np.diag(spectrum))
    shallow = log_determinant(problem, np.zeros(400), samples=64, depth=64)
    deep = log_determinant(problem, np.zeros(400), samples=64, depth=128)
    for found in (shallow, deep):
        assert abs(found.value) < found.standard_error + 1e-9
        assert found.standard_error < {2: 1e-3, 4: 30, 6: 700, 8: np.inf}[decades] or decades == 8
    assert abs(deep.value) < abs(shallow.value) < {2: 1e-9, 4: 10, 6: 160, 8: 540}[decades]
    assert np.isinf([found.standard_error for found in (shallow, deep)]).all() == (decades == 8)


def test_a_determinant_of_two_clusters():
    # Half of the eigenvalues at one, half over four decades far below: the rest of the series.
    spectrum = np.concatenate([np.ones(200), np.logspace(-8, -4, 200)])
    found = log_determinant(
        quadratic(np.diag(spectrum)), np.zeros(400), samples=64, tolerance=1e-12
    )
    assert abs(found.value - np.sum(np.log(spectrum))) < found.standard_error < 30


def test_log_determinant_at_a_saddle():
    saddle = problems.landscape(lambda x: x[0] ** 2 - 2 * x[1] ** 2 + 0 * x[2], np.zeros(3))
    assert log_determinant(saddle, np.zeros(3)) == pytest.approx((np.log(8), 0, 1, 0, 1, 0))


@pytest.mark.parametrize("depth", [None, 22])
def test_top_eigenpairs(depth):
    found = top_eigenpairs(PROBLEM, ORIGIN, 3, depth=depth)
    np.testing.assert_allclose(found.values, VALUES[:3], rtol=1e-10)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(
        SINGULAR @ found.vectors.T, found.vectors.T * found.values, atol=1e-9
    )
    assert np.all(found.residuals < 1e-9)


def test_residuals_tell_when_a_krylov_space_is_too_small():
    found = top_eigenpairs(PROBLEM, ORIGIN, 2, depth=4)
    off = np.abs(VALUES[None] - found.values[:, None]).min(1)
    assert np.all(off <= found.residuals)
    assert found.residuals[1] > 1e-3


def test_orders_of_eigenpairs():
    saddle = problems.quadratic(np.diag([2.0, 1.0, 0.5]))
    shifted = problems.landscape(
        lambda x: saddle.loss(x) - 2 * x[0] ** 2 - 0.5 * x[1] ** 2, np.zeros(3)
    )  # curvatures −2, 0, 0.5
    at = np.zeros(3)
    assert top_eigenpairs(shifted, at, 2, order="smallest").values == pytest.approx([-2, 0])
    assert top_eigenpairs(shifted, at, 2, order="modulus").values == pytest.approx([-2, 0.5])


def test_a_krylov_space_that_ends_early():
    # H of rank one: two dimensions hold every product; the rest must not be made up.
    single = problems.quadratic(np.diag([1.0, 0, 0, 0, 0]))
    found = top_eigenpairs(single, np.zeros(5), 2, depth=5)
    np.testing.assert_allclose(found.values, [1, 0], atol=1e-9)
    assert np.all(found.residuals < 1e-9)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(2), atol=1e-9)
    sampled = log_determinant(single, np.zeros(5), samples=10, depth=5)
    assert sampled.nullity == pytest.approx(4, abs=1e-9)


def test_spectral_density():
    grid = np.linspace(-2, 7, 200)
    bumps = np.exp(-0.5 * ((grid[:, None] - VALUES) / 0.3) ** 2) / (0.3 * np.sqrt(2 * np.pi))
    exact = spectral_density(PROBLEM, ORIGIN, grid, 0.3)
    np.testing.assert_allclose(exact.value, bumps.mean(1), rtol=1e-6, atol=1e-12)
    assert np.trapezoid(exact.value, grid) == pytest.approx(1, rel=1e-3)
    found = spectral_density(PROBLEM, ORIGIN, grid, 0.3, samples=192, depth=24)
    seen = bumps.mean(1) > 1e-3
    off = np.abs(found.value - exact.value)[seen] / found.standard_error[seen]
    assert np.all(off < 4.5)
    assert np.median(found.standard_error[seen] / exact.value[seen]) < 0.1


def test_blocks_share_the_trace():
    problem = network()
    whole = hessian(problem, PARAMS)
    blocks = over_blocks(problem, PARAMS, trace)
    assert list(blocks) == problem.names
    assert sum(block.value for block in blocks.values()) == pytest.approx(np.trace(whole))


def test_large_problems_are_estimated(monkeypatch):
    monkeypatch.setattr(traces, "DENSE_LIMIT", 8)
    monkeypatch.setattr(traces, "RANK", 8)  # at 16, the rank of this matrix, nothing is left over
    found = trace(PROBLEM, ORIGIN)
    assert 0 < found.standard_error < 0.2 * VALUES.sum()
    assert abs(found.value - VALUES.sum()) < 4 * found.standard_error


@pytest.mark.slow
def test_four_thousand_parameters():
    # H = Q diag(h) Q with a reflection Q, of which only products are ever formed.
    d = 4096
    h = np.exp(np.linspace(0, 4, d))
    h[:3] = 200.0, 150.0, 120.0
    v = np.random.default_rng(1).normal(size=d)
    v /= np.linalg.norm(v)

    def loss(x):
        return 0.5 * jnp.sum(h * (x - 2 * v * (v @ x)) ** 2)

    problem, origin = problems.landscape(loss, np.zeros(d)), np.zeros(d)
    top = top_eigenpairs(problem, origin, 3)
    np.testing.assert_allclose(top.values, [200, 150, 120], rtol=1e-6)
    for found, expected in (
        (trace(problem, origin), h.sum()),
        (trace_of_square(problem, origin), np.sum(h**2)),
        (log_determinant(problem, origin), np.log(h).sum()),
    ):
        assert 0 < found.standard_error < 0.02 * expected
        assert abs(found.value - expected) < 4 * found.standard_error
    assert log_determinant(problem, origin).nullity == 0


def test_refusals(unchecked):
    with pytest.raises(ValueError, match="samples must be at least 2, got 1"):
        trace(PROBLEM, ORIGIN, samples=1)
    with pytest.raises(ValueError, match="number must be at most the 24 rows"):
        top_eigenpairs(PROBLEM, ORIGIN, 25)
    with pytest.raises(ValueError, match="depth must be at least the number of pairs 3"):
        top_eigenpairs(PROBLEM, ORIGIN, 3, depth=2)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        log_determinant(PROBLEM, ORIGIN, tolerance=0.0)
    with pytest.raises(ValueError, match="order must be one of"):
        top_eigenpairs(PROBLEM, ORIGIN, order="middle")


@pytest.mark.parametrize("order", ["largest", "smallest", "modulus", "both"])
def test_eigenpairs_by_restarted_iterations(order):
    # 150 parameters, more than are formed: only products are taken, and both ends are found.
    rng = np.random.default_rng(4)
    turn = np.linalg.qr(rng.normal(size=(150, 150)))[0]
    values = np.concatenate([-3.0 / np.arange(1, 11), np.geomspace(0.01, 5, 140)])
    problem = quadratic((turn * values) @ turn.T)
    found = top_eigenpairs(problem, np.zeros(150), 4, order=order)
    ascending = np.sort(values)
    expected = {
        "largest": ascending[::-1][:4],
        "smallest": ascending[:4],
        "modulus": values[np.argsort(-np.abs(values))][:4],
        "both": ascending[[0, -1, 1, -2]],
    }[order]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    matrix = (turn * values) @ turn.T
    residuals = found.vectors @ matrix - found.values[:, None] * found.vectors
    np.testing.assert_allclose(np.linalg.norm(residuals, axis=1), found.residuals, atol=1e-12)
    assert np.all(found.residuals <= 1.1e-6 * np.abs(found.values))
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-9)


def test_no_more_products_are_taken_than_the_iteration_needs(monkeypatch):
    # 100 rows at most are asked for of 2000, which would be formed by as many products.
    taken = []
    monkeypatch.setattr(
        eigenpairs, "products_of", lambda *_: lambda v: taken.append(1) or diagonal * v
    )
    diagonal = np.concatenate([[50.0, 30.0], np.linspace(0, 1, 1998)])
    found = top_eigenpairs(problems.landscape(lambda x: x @ x, np.zeros(2000)), np.zeros(2000), 2)
    np.testing.assert_allclose(found.values, [50, 30], rtol=1e-10)
    assert len(taken) < 100


@pytest.mark.parametrize("depth", [None, 60])
def test_single_precision_is_that_of_the_params(depth):
    values = np.geomspace(0.01, 5, 150)
    problem = quadratic(np.diag(values))
    double, single = (
        top_eigenpairs(problem, np.zeros(150, np.float32), 3, depth=depth, double=double)
        for double in (True, False)
    )
    np.testing.assert_allclose(single.values, double.values, rtol=2e-6)
    assert np.all(single.values != double.values)  # rounded


def test_eigenvalues_that_are_zero_are_found_to_the_size_of_the_matrix():
    low = np.linalg.qr(np.random.default_rng(5).normal(size=(200, 3)))[0]
    problem = quadratic((low * [3.0, 2.0, 1.0]) @ low.T)
    found = top_eigenpairs(problem, np.zeros(200), 6)
    np.testing.assert_allclose(found.values, [3, 2, 1, 0, 0, 0], atol=1e-5)
    assert np.all(found.residuals < 1e-5)


def test_matrices_are_formed_while_that_is_little_work():
    small = problems.linear_regression(np.ones((100, 20)), np.ones(100))
    assert is_formed(small, 20)
    assert not is_formed(problems.landscape(jnp.sum, np.zeros(3000)), 3000)
    many = problems.linear_regression(np.ones((3000, 1000)), np.ones(3000))
    assert not is_formed(many, 1000)  # 3·10⁹ multiplications
    assert is_formed(many, 500)


def test_quadrature_of_a_start_is_exact_for_polynomials():
    rng = np.random.default_rng(6)
    matrix = rng.normal(size=(12, 12))
    matrix, start = matrix + matrix.T, rng.normal(size=12)
    nodes, weights, *fewer = lanczos_quadrature(lambda v: matrix @ v, start, 5)
    for power in range(10):
        exact = start @ np.linalg.matrix_power(matrix, power) @ start
        assert weights @ nodes**power == pytest.approx(exact, rel=1e-9)
    four = lanczos_quadrature(lambda v: matrix @ v, start, 4)
    np.testing.assert_allclose([part[:4] for part in fewer], four[:2], rtol=1e-9)
    # The space ends after one.
    nodes, weights, *fewer = lanczos_quadrature(lambda v: 2 * v, start, 4)
    np.testing.assert_array_equal(fewer, [nodes, weights])
    np.testing.assert_allclose(weights, [start @ start, 0, 0, 0])
    assert nodes[0] == pytest.approx(2)
    assert lanczos_quadrature(lambda v: 2 * v, 0 * start, 4).weights.sum() == 0
