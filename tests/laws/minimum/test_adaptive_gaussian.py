"""Adam and its relatives: frozen laws against printed values, reading optax, simulation."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import solve_discrete_lyapunov

import statsgd
from statsgd import SGD, OptaxDynamics, noise, problems
from statsgd.laws import AdaptiveGaussian, ImproperLawError
from statsgd.laws.minimum import Adam, SignDescent, adaptive_optimiser

TILTED = np.array([[2.0, 0.5], [0.5, 1.0]])
SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])


def bowl(params):
    x = jnp.stack([params["a"], params["b"]])
    return 0.5 * x @ jnp.asarray(TILTED) @ x


BOWL = problems.landscape(bowl, {"a": np.float32(0.0), "b": np.float32(0.0)})
LINE = problems.landscape(lambda x: 0.5 * jnp.sum((x - 1) ** 2), np.zeros(1))
KICKS = noise.Anisotropic(SKEW)


def mode(optimiser, curvature=1.0, variance=1.0, minimum=None):
    return AdaptiveGaussian([[curvature]], [[variance]], optimiser, minimum)


@pytest.mark.parametrize(
    ("rate", "momentum", "printed"),
    [
        (0.1, 0.0, 0.05126562),
        (0.02, 0.0, 0.01005012),
        (1.0, 0.0, 0.64038820),
        (0.05, 0.9, 0.02472865),
        (0.2, 0.9, 0.09600262),
        (1.0, 0.9, 0.42785726),
        (5.0, 0.9, 1.66549475),
    ],
)
def test_one_mode_has_the_root_of_its_cubic(rate, momentum, printed):
    # 2(1+β)W³ − ε(1−β)W² − 2(1+β)W − 2βε = 0, Var = (c/h²)(W² − 1).
    for h, c in ((1.0, 1.0), (3.0, 0.2)):
        eta = rate * np.sqrt(c) / h
        law = mode(Adam(eta, momentum, epsilon=0), h, c)
        assert law.covariance()[0, 0] * h**2 / c == pytest.approx(printed, rel=1e-7, abs=6e-9)
        b = momentum
        roots = np.roots([2 * (1 + b), -rate * (1 - b), -2 * (1 + b), -2 * b * rate])
        root = float(np.max(roots.real))
        assert law.covariance()[0, 0] == pytest.approx(c / h**2 * (root**2 - 1), rel=1e-8)
        assert np.sqrt(law.second_moment[0] / c) == pytest.approx(root, rel=1e-9)


def test_parameters_that_share_curvature_and_noise():
    law = AdaptiveGaussian(TILTED, SKEW, Adam(0.1, epsilon=0, dimension=2))
    printed = [[0.02288085, 0.00933970], [0.00933970, 0.03596323]]
    np.testing.assert_allclose(law.covariance(), printed, atol=6e-9)
    # The fixed point, solved here.
    v = np.diag(SKEW + TILTED @ law.covariance() @ TILTED)
    np.testing.assert_allclose(law.second_moment, v, rtol=1e-9)
    rates, eye = np.diag(0.1 / np.sqrt(v)), np.eye(2)
    step = np.block([[eye - 0.1 * rates @ TILTED, -0.9 * rates], [0.1 * TILTED, 0.9 * eye]])
    into = np.concatenate([-0.1 * rates, 0.1 * eye])
    expected = solve_discrete_lyapunov(step, into @ SKEW @ into.T)[:2, :2]
    np.testing.assert_allclose(law.covariance(), expected, rtol=1e-8)
    np.testing.assert_allclose(law.learning_rates, rates, rtol=1e-9)
    # DHP + PHD = ηDCD at small rates, D from diag C alone.
    small = AdaptiveGaussian(TILTED, SKEW, Adam(1e-5, epsilon=0, dimension=2)).covariance() / 1e-5
    np.testing.assert_allclose(small, [[0.2218266, 0.1126934], [0.1126934, 0.3908669]], rtol=1e-4)


def test_decoupled_decay_has_a_strength_in_units_of_the_loss():
    law = mode(Adam(0.05, epsilon=0, decoupled_weight_decay=0.5), minimum=[1.0])
    found = law.mean()[0], law.covariance()[0, 0], np.sqrt(law.second_moment[0])
    np.testing.assert_allclose(found, [0.65263093, 0.01253578, 1.06451916], atol=6e-9)
    law = mode(Adam(0.02, epsilon=0, decoupled_weight_decay=0.2), 2.0, 0.25, [1.0])
    found = law.mean()[0], law.covariance()[0, 0]
    np.testing.assert_allclose(found, [0.95072846, 0.00221818], atol=6e-9)
    coupled = mode(Adam(0.05, epsilon=0, weight_decay=0.5), minimum=[1.0])
    assert coupled.mean()[0] == pytest.approx(1 / 1.5)
    stiff = mode(Adam(0.05, epsilon=0), 1.5)
    assert coupled.covariance()[0, 0] == pytest.approx(stiff.covariance()[0, 0], rel=1e-8)


@pytest.mark.parametrize(
    ("optimiser", "edge"),
    [
        (Adam(0.1), 38.0),
        (Adam(0.1, 0.0), 2.0),
        (Adam(0.1, nesterov=True), 13.571428571),
        (Adam(0.05, decoupled_weight_decay=0.5), 1.9 * (2 - 0.025) / 0.1),
    ],
)
def test_edge_of_stability(optimiser, edge):
    assert mode(optimiser).edge == pytest.approx(edge, rel=1e-7)
    for factor, stable in ((1.01, False), (0.99, True)):
        v = (optimiser.learning_rate / (factor * edge) - 1e-8) ** 2
        law = AdaptiveGaussian([[1.0]], [[1.0]], optimiser, second_moment=[v])
        assert law.sharpness == pytest.approx(factor * edge, rel=1e-6)
        if stable:
            law.require_proper()
        else:
            with pytest.raises(ImproperLawError, match=f"λ_max.* must be below {edge:.5g}"):
                law.covariance()


def test_what_has_no_law():
    flat = AdaptiveGaussian(np.diag([1.0, 0.0]), np.eye(2), Adam(0.1, dimension=2))
    with pytest.raises(ImproperLawError, match=r"no positive curvature.* hessian is 0"):
        flat.covariance()
    with pytest.raises(ImproperLawError, match=r"no noise .* edge of stability 38"):
        mode(Adam(0.1), 1.0, 0.0).mean()
    # Decoupled decay holds flat directions.
    held = Adam(0.1, decoupled_weight_decay=0.1, dimension=2)
    AdaptiveGaussian(np.diag([1.0, 0.0]), np.eye(2), held).require_proper()


@pytest.mark.parametrize("rate", [1e-3, 20.0, 1e3])
def test_fixed_points_far_from_the_start_are_found(rate):
    law = mode(Adam(rate, epsilon=0))
    assert law.second_moment[0] == pytest.approx(1 + law.covariance()[0, 0], rel=1e-8)
    assert law.sharpness < law.edge


def test_sign_descent_against_its_birth_and_death_chain():
    # π(x+η)/π(x) = F(−hx)/F(h(x+η)), averaged over offsets of the lattice.
    printed = {0.05: 12.73045559, 0.2: 3.33334418, 0.5: 1.45826852}
    for eta, wanted in printed.items():
        found = mode(SignDescent(eta)).covariance()[0, 0] / eta**2
        assert found == pytest.approx(wanted, rel=0.02 * eta**2)


def read(transformation, problem=BOWL, kicks=KICKS, **options):
    return adaptive_optimiser(OptaxDynamics(transformation, kicks, **options), problem)


@pytest.mark.parametrize(
    ("transformation", "options", "ours"),
    [
        (optax.adam(0.1, b2=0.99), {}, Adam(0.1, 0.9, 0.99, dimension=2)),
        (optax.adam, {"learning_rate": 0.1, "b1": 0.5}, Adam(0.1, 0.5, dimension=2)),
        (
            optax.adamw(0.1, weight_decay=0.3),
            {},
            Adam(0.1, decoupled_weight_decay=0.3, dimension=2),
        ),
        (optax.nadam(0.1), {}, Adam(0.1, nesterov=True, dimension=2)),
        (
            optax.chain(optax.add_decayed_weights(0.2), optax.adam(0.1)),
            {},
            Adam(0.1, weight_decay=0.2, dimension=2),
        ),
        (optax.inject_hyperparams(optax.adam)(learning_rate=0.1), {}, Adam(0.1, dimension=2)),
    ],
)
def test_optimisers_of_optax_are_recognised(transformation, options, ours):
    theirs, v = read(transformation, **options), np.array([0.5, 2.0])
    for name in ("second_moment_decay", "gain", "pull"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-7)
    np.testing.assert_allclose(theirs.frozen(v).transition, ours.frozen(v).transition, atol=1e-9)
    np.testing.assert_allclose(theirs.frozen(v).entry, ours.frozen(v).entry, atol=1e-9)


def test_rmsprop_of_optax():
    # ϵ inside the root by default; momentum after the preconditioner.
    optimiser = read(optax.rmsprop(0.1, decay=0.99, momentum=0.5))
    law = AdaptiveGaussian(TILTED, SKEW, optimiser)
    rates, eye = np.diag(0.1 / np.sqrt(law.second_moment + 1e-8)), np.eye(2)
    # m ← .5m + g/√v, θ ← θ − .1 m, in units of the step.
    step = np.block([[eye - rates @ TILTED, -0.5 * eye], [rates @ TILTED, 0.5 * eye]])
    into = np.concatenate([-rates, rates])
    expected = solve_discrete_lyapunov(step, into @ SKEW @ into.T)[:2, :2]
    np.testing.assert_allclose(law.covariance(), expected, rtol=1e-7)
    np.testing.assert_allclose(law.learning_rates, 2 * rates, rtol=1e-7)
    assert law.edge == pytest.approx(6.0, rel=1e-7)  # 2(1+β)/(1−β)


@pytest.mark.parametrize(
    ("transformation", "why"),
    [
        (optax.amsgrad(0.1), "is not linear where its second moments stand still"),
        (optax.rmsprop(0.1, centered=True), "is not linear where its second moments stand still"),
        (optax.lion(0.1), "holds no running second moment"),
        (optax.sgd(0.1), "nor follows signs alone"),
        (optax.adamax(0.1), "does not move `nu` by"),
        (optax.masked(optax.adam(0.1), {"a": True, "b": False}), "holds 1 running second moments"),
    ],
)
def test_what_is_not_recognised_is_refused_with_the_way_out(transformation, why):
    with pytest.raises(ValueError, match=f"{why}.*; laws.LinearOptimiserGaussian speaks about"):
        read(transformation)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"dynamics must be an OptaxDynamics .* got SGD; laws.Lin"):
        AdaptiveGaussian.from_dynamics(BOWL, SGD(0.1, KICKS))
    with pytest.raises(ValueError, match=r"second_moment_decay must be in \(0, 1\), got 1"):
        Adam(0.1, 0.9, 1.0)
    with pytest.raises(ValueError, match="optimiser must move 2 parameters, got 1"):
        AdaptiveGaussian(TILTED, SKEW, Adam(0.1))
    with pytest.raises(ValueError, match=r"second_moment must have shape \(2,\), got \(3,\)"):
        AdaptiveGaussian(TILTED, SKEW, Adam(0.1, dimension=2), second_moment=np.ones(3))
    mixed = optax.chain(
        optax.add_decayed_weights(0.2, mask={"a": True, "b": False}), optax.adam(0.1)
    )
    with pytest.raises(ValueError, match="at must be given where weight decay differs"):
        AdaptiveGaussian.from_dynamics(BOWL, OptaxDynamics(mixed, KICKS))


def test_the_mean_is_found_where_the_loss_is_no_quadratic():
    # AdamW on cosh(θ) − θ/2: sinh θ − ½ + ω√v θ = 0 at the mean.
    steep = problems.landscape(lambda x: jnp.sum(jnp.cosh(x) - 0.5 * x), np.zeros(1))
    dynamics = OptaxDynamics(optax.adamw(0.01, eps=0, weight_decay=0.5), noise.Isotropic(1.0))
    law = AdaptiveGaussian.from_dynamics(steep, dynamics)
    theta, root = float(law.mean()[0]), np.sqrt(float(law.second_moment[0]))
    assert np.sinh(theta) - 0.5 + 0.5 * root * theta == pytest.approx(0, abs=1e-6)
    assert float(law.hessian[0, 0]) == pytest.approx(np.cosh(theta), rel=1e-6)


@pytest.mark.parametrize(
    ("transformation", "correction"),
    [
        # Gaussian noise: ×1 − 3(1−β₂)/8 where ε is small and 1−β₂ ≪ 1−β₁ or β₁ = 0.
        (optax.adam(0.1, b2=0.999), 1.0),
        pytest.param(optax.rmsprop(0.1, decay=0.99), 1 - 0.375 * 0.01, marks=pytest.mark.slow),
        pytest.param(optax.adamw(0.1, b2=0.999, weight_decay=0.5), 1.0, marks=pytest.mark.slow),
        pytest.param(optax.sign_sgd(0.1), 1.0, marks=pytest.mark.slow),
    ],
)
def test_simulation(transformation, correction):
    # 4 standard errors of a variance over 2·10⁴ runs, ten times apart: below .025.
    dynamics = OptaxDynamics(transformation, noise.Isotropic(1.0))
    law = AdaptiveGaussian.from_dynamics(LINE, dynamics)
    result = statsgd.simulate(
        LINE, dynamics, steps=600, replicas=20_000, seed=1, start=np.float32(law.mean()),
        keep=[300, 400, 500, 600], progress=False,
    )  # fmt: skip
    runs = result["snapshots"].params.values.reshape(20_000, -1)
    variance, mean = runs.var(axis=0, ddof=1), runs.mean(axis=0)
    expected = float(law.covariance()[0, 0]) * correction
    assert np.all(np.abs(variance / expected - 1) < 4 * np.sqrt(2 / 20_000) + 1e-3)
    assert np.all(np.abs(mean - law.mean()) < 4 * np.sqrt(expected / 20_000) + 1e-3)
