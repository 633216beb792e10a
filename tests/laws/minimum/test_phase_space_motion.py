"""Motion within the heavy-ball laws against known values, iteration, and simulated chains."""

import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian, OrnsteinUhlenbeckLaw, PhaseSpaceGaussian
from statsgd.laws.minimum import (
    PhaseSpaceTransition,
    displacement_exponent,
    entropy_production_rate,
    local_displacement,
    mean_squared_displacement,
    phase_plane_area,
    stochastic_area,
)
from tests.statistical import assert_printed

SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])
THREE = np.array([[1, 0.3, -0.2], [0.3, 0.6, 0.1], [-0.2, 0.1, 0.5]])


def assert_matrix_printed(matrix, rows):
    for row, texts in zip(matrix, rows, strict=True):
        for value, text in zip(row, texts, strict=True):
            assert_printed(value, text)


def test_propagator_of_the_model():
    # B = e^{−γt} [[c+γs, s], [−ω²s, c−γs]], oscillating and overdamped.
    swing = PhaseSpaceTransition(4.1, 0.1, 0.9, "continuous")
    assert_matrix_printed(
        swing.propagator(5)[0], (("-.77004154", "-.01551646"), (".66965760", "-.75370843"))
    )
    slow = PhaseSpaceTransition(0.01, 0.1, 0.9, "continuous")
    assert_matrix_printed(
        slow.propagator(50)[0], ((".64744196", ".67859558"), ("-.07143111", "-.06686918"))
    )
    assert not slow.oscillates()
    assert swing.oscillates()


@pytest.mark.parametrize("model", ["chain", "continuous"])
def test_propagators_compose(model):
    critical = 0.1**2 / (2 * 1.9) / 0.1  # ηh = (1−β)²/(2(1+β)): the model turns no more
    motion = PhaseSpaceTransition([4.1, critical, 0.001], 0.1, 0.9, model)
    once = motion.propagator(3)
    np.testing.assert_allclose(motion.propagator(6), once @ once, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(motion.propagator(0), np.tile(np.eye(2), (3, 1, 1)), atol=1e-12)
    assert np.isfinite(motion.propagator(100_000)).all()


@pytest.mark.parametrize(
    ("momentum", "model", "chain"),
    [(0.9, ".00263158", ".00263340"), (0.5, ".08333333", ".08578644")],
)
def test_onset_of_oscillation(momentum, model, chain):
    # ηh > (1−β)²/(2(1+β)) for the model, (1−√β)² for the chain.
    for name, printed in (("continuous", model), ("chain", chain)):
        lowest, _ = PhaseSpaceTransition(1.0, 0.1, momentum, name).oscillation_window()
        assert_printed(lowest, printed)
    never = PhaseSpaceTransition([0.5, 8.0, 15.0], 0.1, 0.0)
    assert not never.oscillates().any()
    assert (never.period() == np.inf).all()


@pytest.mark.parametrize(
    ("reach", "momentum", "model", "chain"),
    [
        (0.41, 0.9, "9.59506655", "9.41135532"),
        (0.009196143, 0.9, "75.585541", "75.521858"),
        (0.009196143, 0.99, "65.445931", "65.420368"),
    ],
)
def test_periods(reach, momentum, model, chain):
    # 2π/(η√(ω²−γ²)) and 2π/arccos((1+β−ηh)/(2√β)).
    for name, printed in (("continuous", model), ("chain", chain)):
        assert_printed(PhaseSpaceTransition(reach / 0.1, 0.1, momentum, name).period()[0], printed)


@pytest.mark.parametrize(
    ("h", "rate", "momentum", "printed"),
    [(4.1, 0.1, 0.9, ".43517330"), (0.6, 0.1, 0.9, "3.28070175"), (1, 0.1, 0, "19")],
)
def test_integrated_time_is_the_sum_of_correlations(h, rate, momentum, printed):
    # 2(1−β)/(ηh) − (1−β)/(1+β) = 1 + 2Σ corr; zero for the velocity.
    motion = PhaseSpaceTransition(h, rate, momentum)
    assert_printed(motion.integrated_time()[0], printed)
    lags = range(1, 600)
    total = 1 + 2 * sum(motion.correlation(lag)[0] for lag in lags)
    assert total == pytest.approx(motion.integrated_time()[0], rel=1e-6)
    still = 1 + 2 * sum(motion.correlation(lag, "velocity")[0] for lag in lags)
    assert still == pytest.approx(0, abs=1e-6)
    assert motion.correlation(1)[0] == pytest.approx(1 - rate * h / (1 + momentum))
    assert motion.correlation(1, "velocity")[0] == pytest.approx(momentum - rate * h / 2)


DISPLACEMENTS = (
    (1, ".00427470", ".00455434", ".00028444", ".00084688"),
    (10, ".16800655", ".17148778", ".04485895", ".04741653"),
    (100, ".20876502", ".21105336", ".11020858", ".11140400"),
)


def _four_modes(kind, rho, noise_scale, size, rate, momentum, decay):
    rho = np.array(rho)
    return kind(np.diag(rho), np.diag(noise_scale * rho / size), rate, momentum, decay)


def test_mean_squared_displacements():
    # 2Σ Vx(1−B₁₁) from stationary starts; Σ [P − BPBᵀ]₁₁ from rest at the minimum.
    four = ((1, 0.3, 0.05, 0.005), 1, 16, 0.1, 0.9, 0.001)
    three = ((2, 0.4, 0.02), 0.6, 8, 0.05, 0.5, 0.0)
    cases = [(four, *row) for row in DISPLACEMENTS]
    cases.append((three, 50, ".01474508", ".01505683", ".00808938", ".00825406"))
    for setting, k, *printed in cases:
        model, chain = (
            _four_modes(kind, *setting) for kind in (PhaseSpaceGaussian, HeavyBallGaussian)
        )
        at = np.zeros(len(setting[0]))
        found = [
            mean_squared_displacement(law, [k], start)[0]
            for start in (None, at)
            for law in (model, chain)
        ]
        for value, text in zip(found, printed, strict=True):
            assert_printed(value, text)


def test_local_displacement():
    # η² tr Cov m, of the model and of the chain.
    setting = ((4, 0.5), 0.5, 8, 0.1, 0.9, 0.1)
    assert_printed(local_displacement(_four_modes(PhaseSpaceGaussian, *setting)), ".01480263")
    chain = _four_modes(HeavyBallGaussian, *setting)
    assert_printed(local_displacement(chain), ".01642039")
    # It is the displacement of one step, and (4η/(1+β)) times the excess objective.
    assert local_displacement(chain) == pytest.approx(mean_squared_displacement(chain, [1])[0])
    h = chain.modes().curvatures
    excess = 0.5 * np.sum(h * np.diagonal(chain.covariance())[::-1])
    assert excess == pytest.approx(1.9 / 0.4 * local_displacement(chain))


@pytest.mark.parametrize(
    ("decay", "exponent", "at_1000"), [(1.5, ".6726", ".00217074"), (2.0, ".5210", ".00067099")]
)
def test_anomalous_exponent_of_a_power_law_spectrum(decay, exponent, at_1000):
    # ρ_l = 10 l^{−α}: displacement grows like k^{1/α} before the modes saturate.
    rho = 10 * np.arange(1, 20_001.0) ** -decay
    motion = PhaseSpaceTransition(rho, 0.001, 0.9, "continuous")
    blocks = motion.stationary_blocks(rho / 256)
    lags = np.unique(np.round(np.geomspace(100, 10_000, 81)))
    moved = np.array([motion.displacement(k, blocks) for k in lags])
    assert displacement_exponent(lags, moved) == pytest.approx(float(exponent), abs=6e-5)
    assert_printed(motion.displacement(1000, blocks), at_1000)


def test_areas():
    # (η/2)(HV − VH)/(1−β) per step.
    hessian = np.diag([2, 0.5])
    assert_printed(stochastic_area(HeavyBallGaussian(hessian, SKEW, 0.1))[0, 1], ".00187500")
    assert_printed(stochastic_area(HeavyBallGaussian(hessian, SKEW, 0.1, 0.9))[0, 1], ".03433735")
    assert_printed(stochastic_area(OrnsteinUhlenbeckLaw(hessian, SKEW, 0.1))[0, 1], ".00180000")
    three = HeavyBallGaussian(np.diag([1, 0.4, 0.1]), THREE, 0.2, 0.5)
    assert_printed(stochastic_area(three)[0, 1], ".00998152")
    # The velocity carries it: ½⟨θ_i dθ_j − θ_j dθ_i⟩ = η Cov(θ_i, v_j) of the model.
    model = PhaseSpaceGaussian(hessian, SKEW, 0.1, 0.9)
    cross = -0.1 * model.covariance("params", "momentum_buffer")
    np.testing.assert_allclose(stochastic_area(model), cross, rtol=1e-12, atol=1e-16)


def test_entropy_production():
    hessian = np.diag([2, 0.5])
    rates = {
        (PhaseSpaceGaussian, 0.0): ".07201600",
        (HeavyBallGaussian, 0.0): ".07670455",
        (PhaseSpaceGaussian, 0.9): ".13959500",
        (HeavyBallGaussian, 0.9): ".14047097",
        (OrnsteinUhlenbeckLaw, 0.0): ".07363636",
    }
    for (kind, momentum), printed in rates.items():
        assert_printed(entropy_production_rate(kind(hessian, SKEW, 0.1, momentum)), printed)
        still = kind(hessian, 0.3 * hessian, 0.1, momentum)
        assert entropy_production_rate(still) == pytest.approx(0, abs=1e-12)
    setting = (np.diag([1, 0.4, 0.1]), THREE, 0.2, 0.5)
    assert_printed(entropy_production_rate(PhaseSpaceGaussian(*setting)), ".06316045")
    assert_printed(entropy_production_rate(HeavyBallGaussian(*setting)), ".06537191")


def test_a_rotating_pair():
    # A published illustration: H = [[2.5, −1.5], [−1.5, 2.5]], C = diag(4, 1), η = 1e-4.
    hessian, rate = np.array([[2.5, -1.5], [-1.5, 2.5]]), 1e-4
    law = OrnsteinUhlenbeckLaw(hessian, np.diag([4.0, 1.0]), rate)
    v = law.covariance()
    np.testing.assert_allclose(v, [[1.08125e-4, 4.6875e-5], [4.6875e-5, 4.8125e-5]], rtol=1e-10)
    assert abs(stochastic_area(law)[0, 1]) == pytest.approx(4.5e-9, rel=1e-9)
    assert_printed(entropy_production_rate(law), "1.0125e-4")
    rotation = -hessian + rate / 2 * np.diag([4.0, 1.0]) @ np.linalg.inv(v)
    np.testing.assert_allclose(
        np.sort(np.linalg.eigvals(rotation).imag), [-0.82072935, 0.82072935], rtol=1e-7
    )


def test_mean_of_the_first_order_estimator_on_the_chain():
    # E[u(y)ᵀD⁻¹Δy] with u = −𝒜V⁻¹y: the chain's covariance enters, not V.
    hessian, rate = np.diag([2, 0.5]), 0.1
    first = OrnsteinUhlenbeckLaw(hessian, SKEW, rate)
    chain = HeavyBallGaussian(hessian, SKEW, rate).covariance()
    drift = -stochastic_area(first) @ np.linalg.inv(first.covariance())
    step = -rate * hessian
    mean = np.trace(drift.T @ np.linalg.solve(rate**2 * SKEW / 2, step) @ chain)
    assert_printed(mean, ".08211872")


@pytest.mark.slow
def test_sgd_moves_as_the_chain_does():
    # 16384 chains: displacement over 10 steps to about 1 %, areas by ½(θ_i θ'_j − θ_j θ'_i).
    hessian = np.diag([2.0, 0.5])
    law = HeavyBallGaussian(hessian, SKEW, 0.1, 0.9)
    problem = problems.landscape(lambda x: x[0] ** 2 + 0.25 * x[1] ** 2, np.zeros(2))
    kept = simulate(
        problem,
        SGD(0.1, noise.Anisotropic(SKEW), 0.9),
        steps=310,
        replicas=2**14,
        seed=3,
        keep=[300, 301, 310],
        progress=False,
    )
    before, after, late = np.moveaxis(kept["snapshots"].params.values.astype(float), 1, 0)
    for sample, expected in (
        (np.sum((late - before) ** 2, 1), mean_squared_displacement(law, [10])[0]),
        ((before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) / 2, stochastic_area(law)[0, 1]),
    ):
        error = sample.std() / np.sqrt(len(sample))
        assert error < 0.05 * abs(expected)
        assert abs(sample.mean() - expected) < 4 * error


def test_area_of_the_phase_plane():
    # ½⟨x Δv − v Δx⟩ over one step of the chain, from its exact moments; −ηC/(2(1−β)).
    h, c, rate, momentum = 1.5, 0.7, 0.2, 0.6
    law = HeavyBallGaussian([[h]], [[c]], rate, momentum)
    motion = PhaseSpaceTransition.of(law)
    later = (motion.propagator(1) @ motion.stationary_blocks(c))[0]
    area = (later[1, 0] - later[0, 1]) / 2
    assert phase_plane_area(law)[0] == pytest.approx(area)
    assert phase_plane_area(law)[0] == pytest.approx(-rate * c / (2 * (1 - momentum)))
    model = PhaseSpaceGaussian([[h]], [[c]], rate, momentum)
    assert phase_plane_area(model)[0] == pytest.approx(-rate * c / (1 - momentum**2))


def test_refusals():
    with pytest.raises(ImproperLawError, match="outside"):
        PhaseSpaceTransition(25.0, 0.1)
    with pytest.raises(ValueError, match="whole number"):
        PhaseSpaceTransition(1.0, 0.1).propagator(0.5)
    with pytest.raises(ValueError, match="positive definite"):
        entropy_production_rate(HeavyBallGaussian(np.eye(2), np.diag([1.0, 0.0]), 0.1))
    with pytest.raises(ValueError, match="two or more"):
        displacement_exponent([1.0], [2.0])
