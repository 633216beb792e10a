import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.linalg import expm

from statsgd import ImproperLawError
from statsgd.laws.grids import FokkerPlanckLaw, Grid, markov
from statsgd.laws.grids.fokker_planck_operator import (
    bernoulli,
    fokker_planck_generator,
    selling_decomposition,
)
from statsgd.laws.grids.markov import Generator
from statsgd.laws.grids.transfer_operator import finite_transitions, gaussian_transitions
from statsgd.laws.law import IntractableError

FINE = Grid(-0.3, 1.2, 1000)


def random_generator(size, seed=0):
    rates = np.random.default_rng(seed).exponential(size=(size, size))
    np.fill_diagonal(rates, 0)
    return rates - np.diag(rates.sum(axis=1))


def stationary_of(generator):
    n = len(generator)
    system = np.vstack([generator.T, np.ones(n)])
    return np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0]


def test_jump_process_against_dense_algebra():
    dense = random_generator(12)
    process = Generator(sparse.csr_array(dense), direct=True)
    expected = stationary_of(dense)
    np.testing.assert_allclose(process.stationary, expected, atol=1e-13)
    eigenvalues = np.linalg.eigvals(dense)
    slowest = eigenvalues[np.argsort(np.abs(eigenvalues))[1]]
    assert abs(process.second_eigenvalue()) == pytest.approx(abs(slowest))
    start = np.eye(12)[3]
    np.testing.assert_allclose(process.evolve(start, 0.05), expm(0.05 * dense.T) @ start, atol=1e-9)
    target = np.arange(12) < 3
    inner = dense[3:, 3:]
    np.testing.assert_allclose(
        process.mean_passage(target)[3:], np.linalg.solve(inner, -np.ones(9)), rtol=1e-10
    )
    other = np.arange(12) > 8
    middle = ~(target | other)
    reached = np.linalg.solve(dense[middle][:, middle], -dense[middle] @ target)
    np.testing.assert_allclose(process.committor(target, other)[middle], reached, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:the law is off by")  # numerical diffusion
def test_rings_that_turn_and_drifts_that_outweigh_diffusion_evolve(monkeypatch):
    # Contours miss modes that turn, and are off by 10¹⁵ of the mass for the drift. Truth: Fourier
    # modes, and the mean of x' = −k x.
    ring = np.roll(np.eye(400), 1, axis=1) - np.eye(400)
    process, start = Generator(sparse.csr_array(ring), direct=True), np.eye(400)[0]
    decay = np.exp(2000.0 * (np.exp(-2j * np.pi * np.arange(400) / 400) - 1))
    truth = np.fft.ifft(decay).real
    np.testing.assert_allclose(process.evolve(start, 2000.0), truth, atol=1e-9)
    for drift, rate in ((20.0, 1e-4), (200.0, 1e-4)):
        law = FokkerPlanckLaw(lambda x, k=drift: -k * (x - 0.55), [[rate]], 1.0, FINE)
        masses = law.evolve(np.eye(1000)[200], 1 / drift)
        assert masses.min() > -1e-12
        assert masses.sum() == pytest.approx(1, abs=1e-10)
        away = FINE.centres()[200] - 0.55
        assert masses @ FINE.centres() == pytest.approx(0.55 + away / np.e, rel=2e-3)
    monkeypatch.setattr(markov, "_FEW", 1)
    np.testing.assert_allclose(law.evolve(np.eye(1000)[200], 1 / drift), masses, atol=1e-12)
    monkeypatch.setattr(markov, "_MOST", 1)
    with pytest.raises(IntractableError, match="distribution after the time"):
        law.evolve(np.eye(1000)[200], 1 / drift)


@pytest.mark.parametrize("direct", [True, False])
def test_chain_against_dense_algebra(direct):
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.full(40, 0.2), size=40)
    process = Generator(sparse.csr_array(transition - np.eye(40)), direct=direct)
    np.testing.assert_allclose(
        process.stationary, stationary_of(transition - np.eye(40)), atol=1e-10
    )
    modulus = np.sort(np.abs(np.linalg.eigvals(transition)))[-2]
    assert process.second_modulus() == pytest.approx(modulus, rel=1e-6)
    target = np.arange(40) == 0
    steps = np.linalg.solve(np.eye(39) - transition[1:, 1:], np.ones(39))
    np.testing.assert_allclose(process.mean_passage(target)[1:], steps, rtol=1e-7)


def test_iterations_agree_with_factorisation_for_a_slow_chain():
    # Two blocks that exchange 10⁻⁵ of their mass a step.
    rng = np.random.default_rng(2)
    blocks = np.zeros((60, 60))
    blocks[:30, :30] = rng.dirichlet(np.ones(30), size=30)
    blocks[30:, 30:] = rng.dirichlet(np.ones(30), size=30)
    transition = (1 - 1e-5) * blocks
    transition[:30, 30:] += 1e-5 / 30
    transition[30:, :30] += 1e-5 / 30
    transition[30:, :30] *= 3
    transition /= transition.sum(axis=1, keepdims=True)
    generator = sparse.csr_array(transition - np.eye(60))
    direct = Generator(generator, direct=True).stationary
    steps = Generator(generator, direct=False).stationary
    np.testing.assert_allclose(steps, direct, rtol=1e-5)
    assert direct[:30].sum() == pytest.approx(0.75, abs=1e-4)


def test_several_closed_sets_have_no_single_law():
    stuck = sparse.csr_array(np.array([[0.0, 0, 0], [1, -2, 1], [0, 0, 0]]))
    process = Generator(stuck, direct=True)
    assert np.all(np.isnan(process.stationary))
    with pytest.raises(ImproperLawError, match="2 > 1 sets of cells"):
        process.require_unique()
    absorbed = sparse.csr_array(np.array([[0.0, 0, 0], [1, -2, 1], [0, 1, -1]]))
    np.testing.assert_allclose(Generator(absorbed, direct=True).stationary, [1, 0, 0], atol=1e-15)


def test_barriers_of_any_height_on_a_line():
    # Rates from a potential 800 high: masses by detailed balance, far below machine precision.
    potential = 400 * (1 - np.cos(np.linspace(0, 4 * np.pi, 81))) + np.linspace(0, 1, 81)
    up, down = np.exp(-np.diff(potential) / 2), np.exp(np.diff(potential) / 2)
    off = sparse.diags_array([up, down], offsets=[1, -1])
    generator = sparse.csr_array(off - sparse.diags_array(off.sum(axis=1)))
    process = Generator(generator, direct=True)
    expected = np.exp(-potential) / np.exp(-potential).sum()
    np.testing.assert_allclose(process.stationary, expected, rtol=1e-9)
    assert process.weight_error == 0


def test_lost_weights_are_noticed():
    # The same idea with a barrier of 45 on a ring, where elimination rounds.
    potential = 22.5 * (1 - np.cos(np.linspace(0, 4 * np.pi, 80, endpoint=False)))
    size = len(potential)
    rates = np.zeros((size, size))
    for i in range(size):
        for j in ((i + 1) % size, (i - 1) % size):
            rates[i, j] = np.exp((potential[i] - potential[j]) / 2)
    generator = rates - np.diag(rates.sum(axis=1))
    assert Generator(sparse.csr_array(generator), direct=True).weight_error > 0.01


@settings(max_examples=30)
@given(st.integers(2, 3), st.integers(0, 10_000), st.floats(-4, 0))
def test_selling_reconstructs_any_matrix(d, seed, smallest):
    rng = np.random.default_rng(seed)
    frame, _ = np.linalg.qr(rng.standard_normal((d, d)))
    values = np.append(np.ones(d - 1), 10**smallest)
    matrix = (frame * values) @ frame.T
    weights, vectors = selling_decomposition(matrix[None])
    assert np.all(weights >= 0)
    rebuilt = np.einsum("nk,nki,nkj->nij", weights, vectors, vectors)
    np.testing.assert_allclose(rebuilt[0], matrix, atol=1e-10)


def test_bernoulli_function():
    w = np.array([-800.0, -1.0, 0.0, 1e-9, 2.0, 800.0])
    expected = [800.0, 1 / (1 - np.exp(-1)), 1.0, 1 - 5e-10, 2 / np.expm1(2), 0.0]
    np.testing.assert_allclose(bernoulli(w), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("periodic", [False, True])
def test_generator_conserves_mass_and_keeps_signs(periodic):
    rng = np.random.default_rng(3)
    grid = Grid([-1.0, -1.0], [1.0, 2.0], [16, 20], [periodic, False])
    roots = rng.standard_normal((grid.size, 2, 2)) * rng.uniform(0, 1, (grid.size, 1, 1))
    diffusion = roots @ roots.transpose(0, 2, 1)
    diffusion[::7] = 0
    matrix = fokker_planck_generator(grid, rng.standard_normal((grid.size, 2)) * 3, diffusion)
    assert abs(matrix.sum(axis=1)).max() < 1e-9 * abs(matrix).max()
    off = matrix - sparse.diags_array(matrix.diagonal())
    assert off.min() >= 0


def test_generator_has_the_drift_and_diffusion_it_stands_for():
    # In the middle of a grid with constant coefficients: mean and covariance of the jumps per time.
    grid = Grid([-1.0, -2.0], [1.0, 2.0], [41, 41])
    drift, diffusion = np.array([0.7, -0.4]), np.array([[0.5, 0.3], [0.3, 0.4]])
    matrix = fokker_planck_generator(
        grid, np.tile(drift, (grid.size, 1)), np.tile(diffusion, (grid.size, 1, 1))
    )
    middle = grid.size // 2
    row = matrix[[middle]].toarray().ravel()
    jumps = grid.points() - grid.points()[middle]
    np.testing.assert_allclose(row @ jumps, drift, rtol=1e-10)
    second = (jumps * row[:, None]).T @ jumps / 2
    # Beyond 2D only by the O(spacing²) of exponential fitting.
    np.testing.assert_allclose(second, diffusion, rtol=0.01)


@pytest.mark.parametrize("deviation", [0.5, 1.5, 4.0])
def test_gaussian_steps_have_their_moments(deviation):
    grid = Grid([-10.0, -10.0], [10.0, 10.0], [200, 200])
    spread = (0.1 * deviation) ** 2 * np.array([[1.0, 0.4], [0.4, 1.3]])
    means = np.array([[0.013, 0.041], [-1.7, 2.22]])
    steps = gaussian_transitions(grid, means, np.tile(spread, (2, 1, 1)))
    np.testing.assert_allclose(steps.matrix.sum(axis=1), 1, rtol=1e-12)
    points = grid.points()
    np.testing.assert_allclose(steps.matrix @ points, means, atol=1e-8)
    for row, mean, excess in zip(steps.matrix.toarray(), means, steps.excess, strict=True):
        covariance = (points - mean).T @ ((points - mean) * row[:, None])
        # Below one cell the trace is off by what `excess` says.
        trace = np.trace(spread) + (excess if deviation < 1 else 0)
        assert np.trace(covariance) == pytest.approx(trace, rel=1e-3 if deviation < 1 else 1e-8)
        if deviation > 1:
            np.testing.assert_allclose(covariance, spread, rtol=1e-7)
    assert steps.exit.max() < 1e-10


def test_finite_steps_have_their_mean():
    grid = Grid(-1.0, 1.0, 50)
    targets = np.array([[[0.111], [-0.333]], [[0.9], [5.0]]])
    steps = finite_transitions(grid, targets, np.array([0.25, 0.75]))
    np.testing.assert_allclose(steps.matrix.sum(axis=1), 1, rtol=1e-12)
    assert (steps.matrix @ grid.points())[0, 0] == pytest.approx(0.25 * 0.111 - 0.75 * 0.333)
    np.testing.assert_allclose(steps.exit, [0, 0.75])
