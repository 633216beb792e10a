"""Linear optimisers: stationary moments, transients and averages against chains written by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import solve_discrete_lyapunov

from statsgd import SGD, ImproperLawError, OptaxDynamics, noise, problems, simulate
from statsgd.laws import HeavyBallGaussian, LinearOptimiserGaussian, OrnsteinUhlenbeckLaw
from statsgd.laws.minimum import LinearOptimiser, PhaseSpaceTransition, entropy_production_rate
from tests.statistical import assert_printed, assert_variance_within

sgd, quasi = LinearOptimiser.sgd, LinearOptimiser.quasi_hyperbolic
SKEW = np.array([[1.0, 0.6], [0.6, 0.8]])
HESSIAN = np.diag([2.0, 0.5])
TILTED = np.array([[2.0, 0.3], [0.3, 0.7]])
HEAVY, NESTEROV, PLAIN = sgd(0.1, 0.9), sgd(0.1, 0.9, nesterov=True), sgd(0.1)


def mode(optimiser, h=1.0, c=1.0):
    return LinearOptimiserGaussian([[h]], [[c]], optimiser)


def upper(matrix):
    return matrix[np.triu_indices(len(matrix))]


def assert_all_printed(values, printed):
    for value, text in zip(values, printed, strict=True):
        assert_printed(value, text)


@pytest.mark.parametrize(
    ("law", "position", "buffer", "cross"),
    [
        (mode(HEAVY), ".51351351", "5.40540541", "-.27027027"),
        (mode(NESTEROV), ".32177033", "2.99043062", "-.41866029"),
        (
            mode(sgd(0.05, 0.95, nesterov=True), 0.3, 2.0),
            "2.67888718",
            "16.14334483",
            "-1.17039250",
        ),
        (mode(quasi(0.5, 0.9, 0.7)), ".16898997", ".02445586", "-.03912937"),
        (mode(sgd(0.1, 0.9, dampening=0.5)), ".25333333", "1.33333333", "-.06666667"),
        (mode(sgd(0.1, 0.9, 0.2)), ".43025362", "5.43478261", "-.27173913"),
        (mode(sgd(0.1, 0.9, decoupled_weight_decay=0.2)), ".42699137", "4.55289874", "-.31218923"),
        (
            mode(sgd(0.1, 0.9, nesterov=True, decoupled_weight_decay=0.2)),
            ".28979570",
            "2.71592842",
            "-.42987183",
        ),
        (mode(sgd(0.1, 0.9, 0.2, nesterov=True)), ".25472627", "2.77580387", "-.38861254"),
    ],
)
def test_moments_of_one_mode(law, position, buffer, cross):
    joint = law.joint
    assert_all_printed((joint[0, 0], joint[1, 1], joint[0, 1]), (position, buffer, cross))


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ({"decoupled_weight_decay": 0.2}, ".98039216"),
        ({"weight_decay": 0.2}, ".83333333"),
        ({"decoupled_weight_decay": 0.2, "nesterov": True}, ".98039216"),
    ],
)
def test_weight_decay_moves_the_mean(options, printed):
    # hθ*/(h + (1−β)ω) decoupled, hθ*/(h + λ) coupled.
    optimiser = sgd(0.1, 0.9, **options)
    assert_printed(optimiser.mean(np.eye(1), np.ones(1))[0], printed)
    # The noiseless run comes to rest there, buffer and all.
    law = LinearOptimiserGaussian([[1.0]], [[0.0]], optimiser, optimiser.mean(np.eye(1), [1.0]))
    theta, buffer = np.array([0.0]), np.array([0.0])
    rule = {"weight_decay": 0.0, "decoupled_weight_decay": 0.0, "nesterov": False} | options
    for _ in range(4000):
        full = theta - 1 + rule["weight_decay"] * theta
        buffer = 0.9 * buffer + full
        step = full + 0.9 * buffer if rule["nesterov"] else buffer
        theta = (1 - 0.1 * rule["decoupled_weight_decay"]) * theta - 0.1 * step
    np.testing.assert_allclose(law.mean(), theta, rtol=1e-10)
    np.testing.assert_allclose(law.mean("momentum_buffer"), buffer, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(law.state_after(4000, mean=[0.0])[0], [*theta, *buffer], atol=1e-10)


@pytest.mark.parametrize(
    ("optimiser", "printed"),
    [
        (HEAVY, (".01", ".22985616", ".44820994")),
        (NESTEROV, (".0361", ".24655363", ".31688275")),
    ],
)
def test_transients_from_a_point(optimiser, printed):
    law = mode(optimiser)
    assert_all_printed([law.after(k).covariance()[0, 0] for k in (1, 5, 20)], printed)


def test_first_step_of_torch_is_not_dampened():
    law = mode(sgd(0.1, 0.9, dampening=0.5))
    printed = (".01", ".03672500", ".15725303", ".22107900", ".23872118")
    found = [law.after(k).covariance()[0, 0] for k in (1, 2, 5, 10, 20)]
    assert_all_printed(found, printed)
    means = [mode(NESTEROV).after(k, mean=[1.0]).mean()[0] for k in (1, 5, 20)]
    assert_all_printed(means, (".81", "-.10458168", ".11997224"))


def test_noise_that_does_not_commute():
    law = LinearOptimiserGaussian(HESSIAN, SKEW, NESTEROV)
    assert_all_printed(upper(law.covariance()), (".13249559", ".07553858", ".61081590"))
    buffer = upper(law.covariance("momentum_buffer"))
    assert_all_printed(buffer, ("2.20458554", ".70931345", "3.01488600"))
    cross = law.covariance("params", "momentum_buffer").ravel()
    assert_all_printed(cross, ("-.30864198", "-.33436706", ".13575930", "-.42208404"))


@pytest.mark.parametrize(
    ("optimiser", "printed"),
    [
        (
            sgd([[0.1, 0.03], [0.03, 0.2]], 0.9, nesterov=True),
            (".18383863", ".21116549", ".96670761"),
        ),
        (quasi([[0.5, 0.1], [0.1, 0.8]], 0.9, 0.7), (".09393173", ".11818409", ".45239283")),
    ],
)
def test_matrix_learning_rate(optimiser, printed):
    law = LinearOptimiserGaussian(HESSIAN, SKEW, optimiser)
    assert_all_printed(upper(law.covariance()), printed)


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        # 2(1+β); 2(1+β)/(1+2β); 2(1+β)/(1+β(1−2w)), each over η; (1+β)(2−ηω)/η.
        (lambda: sgd(0.1, 0.9), 38.0),
        (lambda: NESTEROV, 13.571428571),
        (lambda: quasi(0.1, 0.9, 0.7), 59.375),
        (lambda: sgd(0.1, 0.9, decoupled_weight_decay=0.5), 37.05),
        (lambda: sgd(0.1), 20.0),
        (lambda: sgd(0.1, 0.9, dampening=0.5), 76.0),
    ],
)
def test_stability_threshold(make, limit):
    optimiser = make()
    assert optimiser.stable_curvatures()[1] == pytest.approx(limit, rel=1e-8)
    mode(optimiser, 0.9999 * limit).require_proper()
    with pytest.raises(ImproperLawError, match=rf"h = .* is outside \(.*, {limit:.5g}"):
        mode(optimiser, 1.0001 * limit).require_proper()
    for factor, stable in ((0.9999, True), (1.0001, False)):
        step = optimiser.steps_of(np.array([factor * limit]))[0]
        assert (np.abs(np.linalg.eigvals(step)).max() < 1) == stable


def test_flat_directions_have_no_law_but_a_past():
    law = LinearOptimiserGaussian(np.diag([1.0, 0.0]), np.eye(2), HEAVY)
    with pytest.raises(ImproperLawError, match=r"h = 0 of hessian is outside \(0, 38\)"):
        law.covariance()
    # θ_k of the flat mode is −η Σ (1−β^{k−j})/(1−β) ξ_j.
    expected = 0.01 * sum((1 - 0.9**j) ** 2 for j in range(1, 8)) / 0.1**2
    assert law.after(7).covariance()[1, 1] == pytest.approx(expected, rel=1e-12)
    rates = sgd([0.1, 0.2], 0.9)
    with pytest.raises(ImproperLawError, match="spectral radius 1, not below 1"):
        LinearOptimiserGaussian(np.diag([1.0, 0.0]), np.eye(2), rates).mean()


@pytest.mark.parametrize(
    ("optimiser", "decays", "lengths", "strides"),
    [
        (
            HEAVY,
            (".08833701", ".00545793", ".000504624"),
            (".24115980", ".01087079", ".00100876"),
            (".01534934", ".02240771"),
        ),
        (
            NESTEROV,
            (".06545647", ".00521507", ".000502206"),
            (".15344103", ".01039239", ".00100392"),
            (".01669069", ".01592829"),
        ),
        (
            PLAIN,
            (".02638869", ".00458837", ".000495553"),
            (".03829585", ".00905266", ".00099053"),
            (".01003315", ".00265747"),
        ),
    ],
)
def test_averages_of_one_mode(optimiser, decays, lengths, strides):
    law = mode(optimiser)
    exponential = [law.average(g).covariance()[0, 0] for g in (0.9, 0.99, 0.999)]
    assert_all_printed(exponential, decays)
    tail = [law.average(length=n).covariance()[0, 0] for n in (10, 100, 1000)]
    assert_all_printed(tail, lengths)
    pairs = ((10, 10), (20, 50))
    spaced = [law.average(length=n, every=k).covariance()[0, 0] for n, k in pairs]
    assert_all_printed(spaced, strides)


RATES = [[0.1, 0.03], [0.03, 0.2]]


@pytest.mark.parametrize(
    "law",
    [
        LinearOptimiserGaussian(TILTED, SKEW, NESTEROV, [0.5, -1.0]),
        LinearOptimiserGaussian(TILTED, SKEW, quasi(RATES, 0.9, 0.7)),
        HeavyBallGaussian(TILTED, SKEW, RATES, 0.5, 0.1),
    ],
)
def test_averages_are_outputs_of_a_longer_chain(law):
    # Exponential: its own row. Tails: θ of the last L steps carried along.
    a, q = law.chain().transition, law.chain().noise
    gamma, length, every = 0.8, 3, 2
    longer = np.block([[a, np.zeros((4, 2))], [(1 - gamma) * a[:2], gamma * np.eye(2)]])
    into = np.concatenate([np.eye(4), (1 - gamma) * np.eye(4)[:2]])
    found = solve_discrete_lyapunov(longer, into @ q @ into.T)[4:, 4:]
    np.testing.assert_allclose(law.average(gamma).covariance(), found, rtol=1e-9)
    np.testing.assert_allclose(law.average(gamma).mean(), law.location)
    window = (length - 1) * every + 1
    shift = np.eye(4 * window, k=-4)
    shift[:4, :4] = a
    noises = np.zeros_like(shift)
    noises[:4, :4] = q
    states = solve_discrete_lyapunov(shift, noises)
    pick = np.zeros((2, 4 * window))
    for j in range(length):
        pick[:, 4 * every * j : 4 * every * j + 2] = np.eye(2) / length
    average = law.average(length=length, every=every).covariance()
    np.testing.assert_allclose(average, pick @ states @ pick.T, rtol=1e-9)


@pytest.mark.parametrize("optimiser", [HEAVY, NESTEROV, sgd(RATES, 0.5), quasi(0.5, 0.9, 0.7)])
def test_long_averages_forget_the_optimiser(optimiser):
    # H⁻¹CH⁻¹/L, with a relative error of O(1/L).
    law = LinearOptimiserGaussian(TILTED, SKEW, optimiser)
    inverse = np.linalg.inv(TILTED)
    found = 10**6 * law.average(length=10**6).covariance()
    np.testing.assert_allclose(found, inverse @ SKEW @ inverse, rtol=1e-3)


@pytest.mark.parametrize(
    ("law", "printed"),
    [
        (mode(HEAVY), (".48648649", ".04728649")),
        (mode(NESTEROV), (".29454545", ".03759328")),
        (mode(quasi(0.5, 0.9, 0.7)), (".15005258", ".06013486")),
    ],
)
def test_autocovariance(law, printed):
    found = [law.autocovariance(lag)[0, 0] for lag in (1, 5)]
    assert_all_printed(found, printed)
    # All lags together are c/h², whatever the optimiser.
    later = sum(law.autocovariance(lag)[0, 0] for lag in range(1, 500))
    assert law.autocovariance(0)[0, 0] + 2 * later == pytest.approx(1, rel=1e-9)


def test_weights_that_grow_are_refused():
    grows = optax.chain(optax.sgd(0.1), optax.add_decayed_weights(0.2))
    with pytest.raises(ValueError, match="must let weights decay, not grow, got the decay -2"):
        through_optax(grows)


@pytest.mark.parametrize(
    "optimiser", [NESTEROV, sgd([0.1, 0.4], 0.5), sgd(0.1, 0.8, dampening=0.4)]
)
def test_a_run_that_goes_on(optimiser):
    law = LinearOptimiserGaussian(TILTED, SKEW, optimiser, [0.5, -1.0])
    mean, covariance = law.state_after(5, mean=[2.0, 1.0], covariance=0.1 * SKEW)
    going_on = law.state_after(6, mean=mean, covariance=covariance)
    at_once = law.state_after(11, mean=[2.0, 1.0], covariance=0.1 * SKEW)
    unmoved = law.state_after(0, mean=mean, covariance=covariance)
    for i in range(2):
        np.testing.assert_allclose(going_on[i], at_once[i], rtol=1e-11)
        np.testing.assert_allclose(unmoved[i], (mean, covariance)[i])
    end = law.after(20_000, mean=[2.0, 1.0])
    np.testing.assert_allclose(end.covariance(), law.covariance(), rtol=1e-9)
    np.testing.assert_allclose(end.mean(), law.mean(), atol=1e-9)


@pytest.mark.parametrize("rate", [[0.1, 0.4], RATES])
def test_heavy_ball_with_a_matrix_of_learning_rates(rate):
    matrix = np.diag(rate) if np.ndim(rate) == 1 else np.array(rate)
    law = HeavyBallGaussian(TILTED, SKEW, rate, 0.8, 0.1)
    stiffness, eye = TILTED + 0.1 * np.eye(2), np.eye(2)
    step = np.block([[eye - matrix @ stiffness, -0.8 * matrix], [stiffness, 0.8 * eye]])
    into = np.concatenate([-matrix, eye])
    expected = solve_discrete_lyapunov(step, into @ SKEW @ into.T)
    np.testing.assert_allclose(law.joint, expected, rtol=1e-10, atol=1e-12)
    general = LinearOptimiserGaussian(TILTED, SKEW, sgd(rate, 0.8, 0.1))
    np.testing.assert_allclose(general.joint, expected, rtol=1e-10, atol=1e-12)


def test_heavy_ball_is_a_special_case():
    arguments = (TILTED, SKEW, 0.3, 0.8, 0.1)
    special = HeavyBallGaussian(*arguments)
    general = LinearOptimiserGaussian(TILTED, SKEW, sgd(0.3, 0.8, 0.1))
    np.testing.assert_allclose(special.joint, general.joint, rtol=1e-11)
    for one, other in (
        (special.after(3, mean=[1.0, 2.0]), general.after(3, mean=[1.0, 2.0])),
        (special.average(0.9), general.average(0.9)),
        (special.average(length=7, every=2), general.average(length=7, every=2)),
    ):
        np.testing.assert_allclose(one.covariance(), other.covariance(), rtol=1e-10)
        np.testing.assert_allclose(one.mean(), other.mean(), rtol=1e-12)
    same = HeavyBallGaussian(TILTED, SKEW, [0.3, 0.3], 0.8, 0.1)
    np.testing.assert_allclose(same.joint, special.joint, rtol=1e-10)


def test_matrix_rates_have_their_threshold_and_no_modes():
    # Λ(H+λI) has eigenvalues 2.1·.2 and .6·.9 here; 2(1+β) = 3.
    law = HeavyBallGaussian(HESSIAN, SKEW, [2.0, 0.5], 0.5)
    with pytest.raises(ImproperLawError, match=r"learning_rate\*h = 4 outside \(0, .*= \(0, 3\)"):
        law.require_proper()
    law = HeavyBallGaussian(HESSIAN, SKEW, [0.2, 0.5], 0.5)
    for use in (entropy_production_rate, PhaseSpaceTransition.of):
        with pytest.raises(ValueError, match="learning_rate must be one number here"):
            use(law)


@pytest.mark.usefixtures("unchecked")
def test_refused_learning_rates():
    with pytest.raises(ValueError, match="one number for OrnsteinUhlenbeckLaw, got shape"):
        OrnsteinUhlenbeckLaw(HESSIAN, SKEW, [0.1, 0.2])
    with pytest.raises(ValueError, match="learning_rate must be positive definite"):
        sgd([[0.1, 0.2], [0.2, 0.1]])
    with pytest.raises(ValueError, match=r"learning_rate must have shape \(2, 2\)"):
        HeavyBallGaussian(HESSIAN, SKEW, [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="optimiser must move 2 parameters, got one of 3"):
        LinearOptimiserGaussian(HESSIAN, SKEW, sgd([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match="give decay or length"):
        mode(HEAVY).average(0.9, length=3)
    with pytest.raises(ValueError, match=r"mean must have shape \(1,\) or \(2,\)"):
        mode(HEAVY).after(3, mean=np.zeros(3))
    with pytest.raises(ValueError, match="gradients must reach the parameters"):
        mode(LinearOptimiser(np.diag([1.0, 0.9]), np.array([0.0, 1.0])))


def bowl(params):
    x = jnp.stack([params["a"], params["b"]]) - jnp.array([1.0, -1.0])
    return 0.5 * x @ jnp.asarray(TILTED) @ x


BOWL = problems.landscape(bowl, {"a": np.float32(2.0), "b": np.float32(1.0)})
KICKS = noise.Anisotropic(SKEW)


def through_optax(transformation, **options):
    return LinearOptimiserGaussian.from_dynamics(
        BOWL, OptaxDynamics(transformation, KICKS), **options
    )


@pytest.mark.parametrize(
    ("transformation", "options"),
    [
        (optax.sgd(0.1, 0.9), {"momentum": 0.9}),
        (optax.sgd(0.1, 0.9, nesterov=True), {"momentum": 0.9, "nesterov": True}),
        (
            optax.chain(
                optax.trace(0.9), optax.add_decayed_weights(0.2), optax.scale_by_learning_rate(0.1)
            ),
            {"momentum": 0.9, "decoupled_weight_decay": 0.2},
        ),
    ],
)
def test_optimisers_of_optax_are_read(transformation, options):
    theirs = through_optax(transformation)
    ours = LinearOptimiserGaussian.from_dynamics(BOWL, SGD(0.1, KICKS, **options))
    np.testing.assert_allclose(theirs.optimiser.transition, ours.optimiser.transition, atol=1e-15)
    np.testing.assert_allclose(theirs.optimiser.entry, ours.optimiser.entry, atol=1e-15)
    np.testing.assert_allclose(theirs.joint, ours.joint, rtol=1e-9)
    decay = 0.1 * options.get("decoupled_weight_decay", 0.0)
    mean = np.linalg.solve(TILTED + decay * np.eye(2), TILTED @ [1.0, -1.0])
    np.testing.assert_allclose(ours.mean(), mean, rtol=1e-5)


def test_optimisers_with_two_buffers():
    # m ← .9m + g, n ← .5n + m, θ ← θ − .02 n.
    law = through_optax(
        optax.chain(optax.trace(0.9), optax.trace(0.5), optax.scale_by_learning_rate(0.02))
    )
    assert law.variables == ("params",)
    eye, zero = np.eye(2), np.zeros((2, 2))
    # n' = .5n + .9m + g in one row; θ' = θ − .02 n'.
    step = np.block(
        [
            [eye - 0.02 * TILTED, -0.018 * eye, -0.01 * eye],
            [TILTED, 0.9 * eye, zero],
            [TILTED, 0.9 * eye, 0.5 * eye],
        ]
    )
    into = np.concatenate([-0.02 * eye, eye, eye])
    expected = solve_discrete_lyapunov(step, into @ SKEW @ into.T)
    np.testing.assert_allclose(law.state_covariance, expected, rtol=1e-9)
    fast = optax.chain(optax.trace(0.9), optax.trace(0.5), optax.scale_by_learning_rate(0.5))
    with pytest.raises(ImproperLawError, match="the spectral radius"):
        through_optax(fast).require_proper()


def test_parameters_that_move_differently():
    # Rates .1 and .3 by name, weight decay on one of them alone.
    by_name = optax.multi_transform(
        {"slow": optax.sgd(0.1), "fast": optax.sgd(0.3)}, {"a": "slow", "b": "fast"}
    )
    law = through_optax(by_name)
    assert not law.optimiser.uniform
    step = np.eye(2) - np.diag([0.1, 0.3]) @ TILTED
    rates = np.diag([0.1, 0.3])
    expected = solve_discrete_lyapunov(step, rates @ SKEW @ rates)
    np.testing.assert_allclose(law.covariance(), expected, rtol=1e-9)
    masked = optax.chain(
        optax.add_decayed_weights(0.2, mask={"a": True, "b": False}), optax.sgd(0.1)
    )
    with pytest.raises(ValueError, match="at must be given where weight decay differs"):
        through_optax(masked)
    mean = np.linalg.solve(TILTED + np.diag([0.2, 0]), TILTED @ [1.0, -1.0])
    optimiser = LinearOptimiser.of(OptaxDynamics(masked, KICKS), BOWL)
    np.testing.assert_allclose(optimiser.mean(TILTED, np.array([1.0, -1.0])), mean, rtol=1e-12)


@pytest.mark.parametrize(
    "transformation",
    [
        optax.adam(0.1),
        optax.sgd(optax.exponential_decay(0.1, 10, 0.5)),
        optax.chain(optax.clip(1.0), optax.sgd(0.1)),
        optax.chain(optax.ema(0.9), optax.scale(-0.1)),
    ],
    ids=["adam", "schedule", "clip", "debiased"],
)
def test_what_is_not_linear_is_refused(transformation):
    with pytest.raises(ValueError, match="must be linear in gradients, params and state"):
        through_optax(transformation)


@pytest.mark.parametrize(
    "options",
    [
        {"nesterov": True, "decoupled_weight_decay": 0.5},
        pytest.param({"dampening": 0.6, "weight_decay": 0.3}, marks=pytest.mark.slow),
    ],
)
def test_sgd_follows_its_law(options):
    # Gaussian noise on a quadratic: exact after any number of steps. 6000 runs: 4 standard errors
    # of a variance are 7 %.
    dynamics = SGD(0.2, KICKS, momentum=0.7, **options)
    optimiser = LinearOptimiser.of(dynamics, BOWL)
    law = LinearOptimiserGaussian(TILTED, SKEW, optimiser, optimiser.mean(TILTED, [1.0, -1.0]))
    tree = simulate(
        BOWL, dynamics, steps=40, replicas=6000, seed=0, keep=[1, 2, 40], progress=False
    )
    for k, steps in enumerate((1, 2, 40)):
        parts = [
            tree[group][name].values[:, k]
            for group in ("snapshots", "snapshots_momentum_buffer")
            for name in "ab"
        ]
        mean, covariance = law.state_after(steps, mean=[2.0, 1.0])
        state = np.stack(parts, axis=1).astype(np.float64)
        np.testing.assert_array_less(
            np.abs(state.mean(0) - mean), 4 * np.sqrt(np.diagonal(covariance) / 6000) + 1e-6
        )
        assert_variance_within(state, np.diagonal(covariance), mean=mean)
    np.testing.assert_allclose(covariance, law.joint, rtol=0.05, atol=0.05)
