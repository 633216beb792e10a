"""The update rule, term by term, and what SGD refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from statsgd import SGD, noise, problems
from statsgd.dynamics.noise import GradientNoise
from statsgd.laws import HeavyBallGaussian
from statsgd.running import stream_key

TILTED = np.array([[2.0, 0.3], [0.3, 0.7]])


class Scripted(GradientNoise):
    """Adds a given sequence of vectors to the gradient."""

    sequence: jax.Array

    def draw(self, key, problem, params):
        raise AssertionError("the script needs the step")

    def at_step(self, key, step, problem, params):
        return problem.gradient(params) + self.sequence[step]

    def covariance(self, problem, params):
        return jnp.zeros((2, 2))


def test_heavy_ball_trajectory():
    # H = [[2,.3],[.3,.7]], λ .05, η .1, β .9, start (1,−.5) at rest, three given noises. The buffer
    # takes in the gradient AND the weight decay, and the new buffer moves the parameters.
    problem = problems.landscape(lambda x: 0.5 * x @ jnp.asarray(TILTED) @ x, np.array([1.0, -0.5]))
    script = Scripted(jnp.array([[0.1, -0.2], [-0.3, 0.1], [0.2, 0.2]]))
    sgd = SGD(0.1, script, momentum=0.9, weight_decay=0.05)
    state = sgd.init(problem, problem.initial_params(jax.random.key(0)))
    assert np.all(state.momentum_buffer == 0)
    for expected in ([0.8, -0.4725], [0.500175, -0.4463125], [0.121186, -0.42427556]):
        state = sgd.step(stream_key(0), problem, state)
        np.testing.assert_allclose(state.params, expected, rtol=2e-6)
    np.testing.assert_allclose(state.momentum_buffer, [3.78989, -0.22036937], rtol=2e-6)
    assert int(state.step) == 3


def test_brunger_brooks_karplus_integrator_is_heavy_ball_sgd():
    # With s = η, friction number K = (1−β)/(1+β), force f = −a(∇L + λθ + ξ), a = 2/(η(1+β)):
    # V½ = (1−K)V + (s/2)f, θ' = θ + sV½, V' = (V½ + (s/2)f')/(1+K); V½ is SGD's velocity −m.
    eta, beta, decay = 0.1, 0.8, 0.05
    rng = np.random.default_rng(0)
    kicks = rng.normal(size=(60, 2))
    problem = problems.landscape(lambda x: jnp.sum(x**4) / 4 + jnp.sum(x**2), np.ones(2))
    sgd = SGD(eta, Scripted(jnp.asarray(kicks)), momentum=beta, weight_decay=decay)
    state = sgd.init(problem, problem.initial_params(jax.random.key(0)))

    def force(theta, kick):
        return -2 / (eta * (1 + beta)) * (theta**3 + 2 * theta + decay * theta + kick)

    friction = (1 - beta) / (1 + beta)
    theta = np.ones(2)
    # From rest: V_0 = v_1/2, and v_1 = (s/2) f_0 (1+β) of the first kick.
    velocity = -eta * force(theta, kicks[0]) * -(1 + beta) / 4
    for k in range(50):
        half = (1 - friction) * velocity + eta / 2 * force(theta, kicks[k])
        theta = theta + eta * half
        velocity = (half + eta / 2 * force(theta, kicks[k + 1])) / (1 + friction)
        state = sgd.step(stream_key(0), problem, state)
        np.testing.assert_allclose(state.params, theta, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(-state.momentum_buffer, half, rtol=1e-3, atol=1e-4)


def torch_sgd(start, kicks, rate, momentum, decay, nesterov, dampening):
    """`torch.optim.SGD` line by line, on ½θᵀHθ with given noise."""
    theta, buffer = np.array(start), None
    for kick in kicks:
        grad = TILTED @ theta + kick
        if decay != 0:
            grad = grad + decay * theta
        if momentum != 0:
            buffer = grad.copy() if buffer is None else momentum * buffer + (1 - dampening) * grad
            grad = grad + momentum * buffer if nesterov else buffer
        theta = theta - rate * grad
    return theta, buffer


def states_of(sgd, steps):
    problem = problems.landscape(lambda x: 0.5 * x @ jnp.asarray(TILTED) @ x, np.array([1.0, -0.5]))
    state = sgd.init(problem, problem.initial_params(jax.random.key(0)))
    for _ in range(steps):
        state = sgd.step(stream_key(0), problem, state)
        yield state


KICKS = np.random.default_rng(1).normal(size=(12, 2))


@pytest.mark.parametrize(
    ("momentum", "decay", "options"),
    [
        (0.9, 0.05, {"nesterov": True}),
        (0.8, 0.0, {"dampening": 0.6}),
        (0.8, 0.1, {"dampening": 1.0}),
        (0.0, 0.1, {"dampening": 0.5}),
    ],
)
def test_options_mean_what_they_mean_in_torch(momentum, decay, options):
    sgd = SGD(0.1, Scripted(jnp.asarray(KICKS)), momentum, decay, **options)
    rule = {"nesterov": False, "dampening": 0.0} | options
    for steps, state in enumerate(states_of(sgd, 12), start=1):
        theta, buffer = torch_sgd([1.0, -0.5], KICKS[:steps], 0.1, momentum, decay, **rule)
        np.testing.assert_allclose(state.params, theta, rtol=5e-6, atol=1e-6)
        if buffer is not None:
            np.testing.assert_allclose(state.momentum_buffer, buffer, rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "transformation"),
    [
        ({"momentum": 0.9, "nesterov": True}, optax.sgd(0.1, 0.9, nesterov=True)),
        (
            {"momentum": 0.9, "decoupled_weight_decay": 0.2},
            optax.chain(
                optax.trace(0.9), optax.add_decayed_weights(0.2), optax.scale_by_learning_rate(0.1)
            ),
        ),
        (
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.2},
            optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1, 0.9, nesterov=True)),
        ),
    ],
)
def test_options_are_those_of_optax(options, transformation):
    *_, state = states_of(SGD(0.1, Scripted(jnp.asarray(KICKS)), **options), 12)
    theta = jnp.array([1.0, -0.5])
    memory = transformation.init(theta)
    for kick in jnp.asarray(KICKS):
        gradient = jnp.asarray(TILTED) @ theta + kick
        updates, memory = transformation.update(gradient, memory, theta)
        theta = theta + updates
    np.testing.assert_allclose(state.params, theta, rtol=2e-6, atol=5e-7)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        # β .5, h 4, λ 1: 2·1.5/((1+2β)·5); 2·1.5/(.4·5); 2·1.5/(5 + 1.5·2).
        ({"nesterov": True}, 0.3),
        ({"dampening": 0.6}, 1.5),
        ({"decoupled_weight_decay": 2.0}, 0.375),
    ],
)
def test_thresholds_of_the_options(options, limit):
    # The mean itself grows above and shrinks below: exact, step by step.
    problem = problems.linear_regression(np.full((4, 1), 2.0), np.zeros(4))
    for rate, grows in ((1.01 * limit, True), (0.99 * limit, False)):
        sgd = SGD(rate, noise.NoNoise(), 0.5, 1.0, **options)
        if grows:
            with pytest.raises(ValueError, match=rf"= {limit:.6g} for this problem"):
                sgd.check(problem)
        else:
            sgd.check(problem)
        state = sgd.init(problem, jnp.ones(1))
        step = jax.jit(lambda state, sgd=sgd: sgd.step(stream_key(0), problem, state))
        sizes = []
        for _ in range(1200):
            state = step(state)
            sizes.append(abs(float(state.params[0])))
        assert (max(sizes[-20:]) > max(sizes[600:620])) is grows


@pytest.mark.usefixtures("unchecked")
def test_options_that_torch_refuses():
    for options in ({"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(ValueError, match="nesterov must go with momentum > 0 and dampening"):
            SGD(0.1, noise.NoNoise(), nesterov=True, **options)


@pytest.mark.parametrize(
    "options", [{"nesterov": True}, {"dampening": 0.1}, {"decoupled_weight_decay": 0.1}]
)
def test_laws_of_heavy_ball_refuse_the_options(options):
    problem = problems.landscape(lambda x: 0.5 * jnp.sum(x**2), np.zeros(1))
    sgd = SGD(0.1, noise.Isotropic(1.0), momentum=0.9, **options)
    with pytest.raises(ValueError, match="LinearOptimiserGaussian speaks about all of them"):
        HeavyBallGaussian.from_sgd(problem, sgd)
    with pytest.raises(ValueError, match="LinearOptimiserGaussian speaks about all of them"):
        sgd.diffusion_limit(problem)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": -0.1}, "learning_rate must be positive"),
        ({"learning_rate": np.inf}, "learning_rate must be positive and finite, got inf"),
        ({"learning_rate": np.nan}, "learning_rate must be positive and finite, got nan"),
        ({"learning_rate": "fast"}, "learning_rate must be positive and finite, got 'fast'"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay must be non-negative"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        SGD(**({"learning_rate": 0.1, "noise": noise.NoNoise()} | settings))


@pytest.mark.usefixtures("unchecked")
def test_batch_sizes_out_of_range():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        noise.Minibatch(0)
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1, got 2\.5"):
        noise.Minibatch(2.5)
    with pytest.raises(ValueError, match="sampling must be one of 'with_replacement'"):
        noise.Minibatch(2, "bootstrap")
    problem = problems.linear_regression(np.ones((4, 1)), np.ones(4))
    with pytest.raises(
        ValueError, match="at most num_examples = 4 for sampling 'without_replacement', got 5"
    ):
        SGD(0.1, noise.Minibatch(5, "without_replacement")).check(problem)
    SGD(0.1, noise.Minibatch(5)).check(problem)


def test_noise_must_fit_the_problem():
    data = problems.linear_regression(np.ones((4, 1)), np.ones(4))
    with pytest.raises(ValueError, match="needs a population_risk"):
        SGD(0.1, noise.Minibatch(2, "fresh")).check(data)
    with pytest.raises(ValueError, match="on a landscape"):
        SGD(0.1, noise.Minibatch(2)).check(problems.landscape(lambda x: x**2, 0.0))


def test_unstable_setting_names_the_threshold():
    # h = 4, λ = 1, β = .5: 2·1.5/5 = 0.6.
    problem = problems.linear_regression(np.full((4, 1), 2.0), np.ones(4))
    sgd = SGD(0.6, noise.Minibatch(2), momentum=0.5, weight_decay=1.0)
    with pytest.raises(ValueError, match=r"must be below .* = 0\.6 .*allow_unstable=True"):
        sgd.check(problem)
    sgd.check(problem, allow_unstable=True)
    SGD(0.599, noise.Minibatch(2), momentum=0.5, weight_decay=1.0).check(problem)
