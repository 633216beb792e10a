from types import SimpleNamespace

import jax
import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws import NoiseEquilibrium
from statsgd.laws.balance import (
    charge,
    linear_network_equilibrium,
    noise_balance_gap,
    rescaling_generator,
)
from statsgd.problems import (
    ConvergenceWarning,
    empirical_risk,
    linear_network,
    multilayer_perceptron,
)

INPUTS = np.array([[1, 0], [0, 1], [1, 1], [-1, 0.5]])
TARGETS = np.array([1, -0.5, 0.3, 0.2])
THETA = np.array([1.5, 0.6, -0.2])
GENERATOR = rescaling_generator(3, [0], [1, 2])
INPUT_COVARIANCE, LABEL_COVARIANCE = np.diag([1, 0.25]), np.diag([0.25, 0.0625])
TARGET = np.array([[1, 0.3], [-0.2, 0.8]])


def covariance(theta):
    residual = theta[0] * INPUTS @ theta[1:] - TARGETS
    gradients = 2 * residual[:, None] * np.column_stack([INPUTS @ theta[1:], theta[0] * INPUTS])
    return np.cov(gradients.T, bias=True)


def test_rescaled_pair_of_vectors():
    # Model u (w·x), u = 1.5, w = (.6, −.2): ρ⁴ = wᵀC2w/uᵀC1u.
    law = NoiseEquilibrium(THETA, covariance(THETA), GENERATOR)
    np.testing.assert_allclose(np.exp(law.orbit_parameters[0]), 0.6296951, atol=5e-8)
    np.testing.assert_allclose(charge(law.point, GENERATOR), -0.1166258, atol=5e-8)
    u, w = law.point[0], law.point[1:]
    np.testing.assert_allclose(u**2 / (w @ w), 0.88439, atol=5e-6)
    np.testing.assert_allclose(u * w, 1.5 * THETA[1:], rtol=1e-12)
    traces = noise_balance_gap(covariance(law.point), GENERATOR)
    np.testing.assert_allclose(traces.positive, traces.negative, rtol=1e-10)
    # Any start on the orbit ends at the same point.
    moved = THETA * np.array([3, 1 / 3, 1 / 3])
    other = NoiseEquilibrium(moved, covariance(moved), GENERATOR)
    np.testing.assert_allclose(other.point, law.point, rtol=1e-9)


def test_weight_decay_shifts_the_equilibrium():
    # η tr(AC) = 2λq on the orbit.
    eta, decay = 0.1, 0.3
    law = NoiseEquilibrium(THETA, covariance(THETA), GENERATOR, eta, decay)
    drift = eta * np.sum(GENERATOR * covariance(law.point))
    np.testing.assert_allclose(drift, 2 * decay * charge(law.point, GENERATOR), rtol=1e-8)
    strong = NoiseEquilibrium(THETA, covariance(THETA), GENERATOR, eta, 1e6)
    assert abs(charge(strong.point, GENERATOR)) < 1e-5  # equal norms


@pytest.mark.slow
def test_hidden_units_of_a_perceptron_balance_one_by_one():
    rng = np.random.default_rng(0)
    problem = multilayer_perceptron(
        rng.normal(size=(40, 2)), rng.normal(size=40), (3,), activation="relu", biases=False
    )
    params = problem.initial_params(jax.random.key(1))
    # Flat order: W₁ (3, 2), then W₂ (1, 3).
    generators = [rescaling_generator(9, [2 * i, 2 * i + 1], [6 + i]) for i in range(3)]
    law = NoiseEquilibrium.from_sgd(problem, SGD(0.01, noise.Minibatch(1)), generators, params)
    at = problem.unflatten(np.asarray(law.point, dtype=np.float32))
    np.testing.assert_allclose(problem.loss(at), problem.loss(params), rtol=1e-5)
    sigma = np.asarray(noise.Minibatch(1).covariance(problem, at))
    for generator in generators:
        assert abs(noise_balance_gap(sigma, generator).relative_gap) < 1e-4


def test_matrix_generator():
    # A need not be diagonal: rotate the pair's symmetry.
    angle = 0.4
    rotation = np.eye(3)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    law = NoiseEquilibrium(THETA, covariance(THETA), GENERATOR)
    turned = NoiseEquilibrium(
        rotation @ THETA,
        rotation @ covariance(THETA) @ rotation.T,
        rotation @ GENERATOR @ rotation.T,
    )
    np.testing.assert_allclose(turned.point, rotation @ law.point, rtol=1e-8)


def test_two_layer_linear_network():
    w, u = linear_network_equilibrium(INPUT_COVARIANCE, LABEL_COVARIANCE, TARGET)
    np.testing.assert_allclose(u @ w, TARGET, atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(u.T @ u), [0.80194, 1.07240], atol=5e-6)
    np.testing.assert_allclose(np.linalg.eigvalsh(w @ w.T), [0.73523, 1.16970], atol=5e-6)
    # s of Ē^½ V X̄^½.
    root_e, root_x = np.sqrt(LABEL_COVARIANCE / 0.3125), np.sqrt(INPUT_COVARIANCE / 1.25)
    s = np.linalg.svd(root_e @ TARGET @ root_x)[1]
    np.testing.assert_allclose(s, [0.81093, 0.16968], atol=5e-6)
    # tr(Σε) WΣxWᵀ = tr(Σx) UᵀΣεU; weight decay alone gives UᵀU = WWᵀ with the spectrum of V.
    left = np.trace(LABEL_COVARIANCE) * w @ INPUT_COVARIANCE @ w.T
    right = np.trace(INPUT_COVARIANCE) * u.T @ LABEL_COVARIANCE @ u
    np.testing.assert_allclose(left, right, atol=1e-12)
    np.testing.assert_allclose(np.linalg.svd(TARGET)[1], [1.04588, 0.82227], atol=5e-6)


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_deep_linear_network(layers):
    # tr(E_{i+1}) X_{i+1} = tr(X_i) E_i at every interface; X and E carried through the layers.
    weights = linear_network_equilibrium(
        INPUT_COVARIANCE, LABEL_COVARIANCE, TARGET, layers, hidden=3
    )
    product = np.linalg.multi_dot(weights[::-1])
    np.testing.assert_allclose(product, TARGET, atol=1e-12)
    x = [INPUT_COVARIANCE]
    for weight in weights:
        x.append(weight @ x[-1] @ weight.T)
    e = [LABEL_COVARIANCE]
    for weight in weights[:0:-1]:
        e.insert(0, weight.T @ e[0] @ weight)
    for i in range(layers - 1):
        np.testing.assert_allclose(np.trace(e[i + 1]) * x[i + 1], np.trace(x[i]) * e[i], atol=1e-12)


def linear_problem():
    """Inputs and labels whose covariances are exact on 16 examples; loss minimum at the target."""
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    inputs = signs[:, :2] * np.sqrt(np.diagonal(INPUT_COVARIANCE))
    labels = signs[:, 2:] * np.sqrt(np.diagonal(LABEL_COVARIANCE))
    return linear_network(inputs, inputs @ TARGET.T + labels, (2,))


def test_linear_network_is_the_equilibrium_of_the_problem():
    problem = linear_problem()
    law = NoiseEquilibrium.linear_network(INPUT_COVARIANCE, LABEL_COVARIANCE, TARGET)
    at = problem.unflatten(np.asarray(law.mean(), dtype=np.float32))
    sigma = np.asarray(noise.Minibatch(1).covariance(problem, at))
    for i in range(2):
        # Row i of W against column i of U; flat order W₁, W₂.
        generator = rescaling_generator(8, [2 * i, 2 * i + 1], [4 + i, 6 + i])
        assert abs(noise_balance_gap(sigma, generator).relative_gap) < 1e-4


@pytest.mark.slow
def test_sgd_reaches_the_equilibrium_of_a_linear_network():
    # From the balanced point of weight decay; running mean over runs and time. The two spectra
    # differ from its spectrum by 3–10 %, the tolerance is 2 %.
    problem, eta = linear_problem(), 0.004
    left, s, right = np.linalg.svd(TARGET)
    start = {"weights": [np.sqrt(s)[:, None] * right, left * np.sqrt(s)]}
    run = simulate(
        problem,
        SGD(eta, noise.Minibatch(1)),
        steps=400_000,
        replicas=64,
        seed=0,
        start=start,
        observe={
            "outgoing": lambda p: p["weights"][1].T @ p["weights"][1],
            "incoming": lambda p: p["weights"][0] @ p["weights"][0].T,
        },
        observe_at=2000,
        progress=False,
    )
    late = run["observables"].isel(step=slice(100, None))
    w, u = linear_network_equilibrium(INPUT_COVARIANCE, LABEL_COVARIANCE, TARGET)
    for name, exact in (("outgoing", u.T @ u), ("incoming", w @ w.T)):
        spectra = np.linalg.eigvalsh(late[name].values)
        np.testing.assert_allclose(spectra.mean((0, 1)), np.linalg.eigvalsh(exact), rtol=0.02)


def test_conditions():
    one_sided = NoiseEquilibrium([1.0, 1.0], np.diag([0.0, 1.0]), np.diag([1.0, -1]))
    with pytest.raises(
        ImproperLawError, match=r"one side carries no gradient noise \(positive side 0"
    ):
        one_sided.mean()
    pair = [np.diag([1.0, -1, 0, 0]), np.diag([0.0, 0, 1, -1])]
    missing = NoiseEquilibrium(np.ones(4), np.diag([1.0, 1, 0, 0]), pair)
    with pytest.raises(ImproperLawError, match="distinguishes only 1 of 2 generators"):
        missing.draw(jax.random.key(0))
    running = NoiseEquilibrium(np.ones(4), np.diag([1.0, 1, 1, 0]), pair)
    with pytest.raises(ImproperLawError, match="combination"):
        running.mean()
    with pytest.raises(ImproperLawError, match="label_covariance must be positive definite"):
        linear_network_equilibrium(np.eye(2), np.diag([1.0, 0]), np.eye(2))


def test_a_search_that_stops_early_says_so(monkeypatch):
    # Newton steps alone run away from a place where the logarithm of the sum is nearly straight.
    module = "statsgd.laws.balance.noise_equilibrium.minimize"
    monkeypatch.setattr(module, lambda *a, **k: SimpleNamespace(x=np.array([1.0])))
    with pytest.warns(ConvergenceWarning, match="charges still drift"):
        NoiseEquilibrium(THETA, covariance(THETA), GENERATOR)


def test_arguments():
    with pytest.raises(ValueError, match="must commute"):
        NoiseEquilibrium(np.ones(2), np.eye(2), [np.diag([1.0, -1]), [[0, 1.0], [1, 0]]])
    with pytest.raises(ValueError, match="generators must have shape"):
        NoiseEquilibrium(np.ones(2), np.eye(2), np.ones(2))
    problem = empirical_risk(lambda p, x: p[0] * x[0] + p[1] * x[1], INPUTS, np.ones(2))
    with pytest.raises(ValueError, match="not a symmetry"):
        NoiseEquilibrium.from_sgd(
            problem, SGD(0.1, noise.Minibatch(1)), np.diag([1.0, -1]), np.ones(2)
        )


def test_point_mass():
    law = NoiseEquilibrium(THETA, covariance(THETA), GENERATOR)
    draws = law.draw(jax.random.key(0), (2, 3))
    np.testing.assert_array_equal(draws, np.broadcast_to(law.point, (2, 3, 3)))
    np.testing.assert_array_equal(law.covariance(), np.zeros((3, 3)))
    with pytest.raises(ImproperLawError, match="point mass has no density"):
        law.log_density(law.mean())
