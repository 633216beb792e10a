import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, simulate
from statsgd.laws.balance import (
    balance_rate,
    charge,
    charge_step,
    charge_trajectory,
    matrix_charge_step,
    mean_charge_step,
    noise_balance_gap,
    pair_balance_step,
    product_noise,
    rescaling_generator,
    scale_invariant_equilibrium_norm,
    scale_invariant_norm,
)
from statsgd.laws.networks import DataMoments
from statsgd.problems import diagonal_linear_network, linear_network

# Five examples, ℓ = (uwx − y)² at (u, w) = (1.2, .4): q = 1.28, f = .48.
X, Y = np.array([-1.5, -0.5, 0.5, 1, 2]), np.array([-1, 0.2, 0.3, 0.6, 1.4])
PAIR = np.array([1.2, 0.4])
SWAP = np.diag([1.0, -1.0])

# Four examples, model u (w·x) at u = 1.5, w = (.6, −.2).
INPUTS = np.array([[1, 0], [0, 1], [1, 1], [-1, 0.5]])
TARGETS = np.array([1, -0.5, 0.3, 0.2])
THETA = np.array([1.5, 0.6, -0.2])


def product_gradients(f):
    return 2 * (f * X - Y) * X  # dℓ/d(uw) of each example


def pair_gradients(theta):
    return product_gradients(theta[0] * theta[1])[:, None] * theta[::-1]


def test_noise_of_the_product():
    g = product_gradients(0.48)
    np.testing.assert_allclose([np.mean(g**2), np.var(g)], [0.8116, 0.569536], rtol=1e-6)


@pytest.mark.parametrize(
    ("factor", "decay", "expected"),
    [
        (1, 0.0, 1.27740288),  # S = 1: C = Σ₁
        (1 / 2, 0.0, 1.2783141376),  # S = 2 with replacement
        (3 / 8, 0.0, 1.2785419520),  # S = 2 without: (N−S)/(S(N−1))
        (1 / 2, 0.2, 1.2528421376),
    ],
)
def test_mean_step_of_the_charge(factor, decay, expected):
    # E q' = (1−ηλ)² q + η² (tr AC + ∇LᵀA∇L).
    g = pair_gradients(PAIR)
    covariance = factor * np.cov(g.T, bias=True)
    value = mean_charge_step(PAIR, g.mean(0), covariance, SWAP, 0.05, decay)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize("size", [1, 2])
def test_mean_step_by_enumeration(size, decay):
    g, eta = pair_gradients(PAIR), 0.05
    batches = [g[list(b)].mean(0) for b in itertools.product(range(5), repeat=size)]
    after = [charge((1 - eta * decay) * PAIR - eta * b, SWAP) for b in batches]
    predicted = [charge_step(PAIR, b, SWAP, eta, decay) for b in batches]
    np.testing.assert_allclose(predicted, after, rtol=1e-12)
    covariance = np.cov(g.T, bias=True) / size
    exact = mean_charge_step(PAIR, g.mean(0), covariance, SWAP, eta, decay)
    np.testing.assert_allclose(np.mean(after), exact, rtol=1e-12)


@pytest.mark.parametrize(("beta", "decay"), [(0.6, 0.0), (0.6, 0.3), (0.0, 0.3)])
def test_charge_under_momentum(beta, decay):
    theta, buffer, eta, buffers, charges = PAIR.copy(), np.zeros(2), 0.05, [], []
    for x in (-1.5, 1, 2, -0.5, 0.5):
        gradient = pair_gradients(theta)[list(X).index(x)]
        buffer = beta * buffer + gradient + decay * theta
        theta = theta - eta * buffer
        buffers.append(buffer)
        charges.append(float(charge(theta, SWAP)))
    if (beta, decay) == (0.6, 0.0):
        np.testing.assert_allclose(
            [*theta, charges[-1]], [1.2563078839, 0.5687503985, 1.2548324834], rtol=1e-9
        )
    predicted = charge_trajectory(1.28, buffers, SWAP, eta, beta, decay)
    np.testing.assert_allclose(predicted, charges, rtol=1e-12)


def test_pairs_of_a_deep_network_on_reshuffled_batches():
    # (u ± w)' = (u ± w)(1 − ηλ ∓ ηG), G times the product of the other factors.
    rng = np.random.default_rng(0)
    eta, decay, u = 0.03, 0.1, rng.normal(size=(2, 3)) + 0.5
    for example in rng.permutation(5):
        slope = np.prod(u, axis=1).sum()
        g = product_gradients(slope)[example]
        gradient = g * np.prod(u, axis=1)[:, None] / u
        after = (1 - eta * decay) * u - eta * gradient
        for j, k, rest in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            step = pair_balance_step(u[:, j], u[:, k], g * u[:, rest], eta, decay)
            np.testing.assert_allclose(step.total, after[:, j] + after[:, k], rtol=1e-12)
            np.testing.assert_allclose(step.difference, after[:, j] - after[:, k], rtol=1e-12)
        u = after


def test_ratios_of_sums_are_constants_of_motion():
    # P = 2: (u_i + w_i)/(u_j + w_j) at any η and any sampling; checked in a real run.
    problem = diagonal_linear_network(X, Y, width=2)
    start = np.array([[0.5, 0.3], [0.9, 0.1]])
    run = simulate(
        problem,
        SGD(0.1, noise.Minibatch(2, "without_replacement")),
        steps=100,
        replicas=4,
        seed=0,
        start=start,
        progress=False,
    )
    sums = run["endpoints"]["params"].values.sum(-1)
    np.testing.assert_allclose(sums[:, 0] / sums[:, 1], 0.8, rtol=1e-4)


def test_matrices_of_a_linear_network():
    rng = np.random.default_rng(1)
    problem = linear_network(rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), (4,))
    w, u = rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    with jax.enable_x64(True):
        params = {"weights": [jnp.asarray(w), jnp.asarray(u)]}
        gradient = jax.tree.map(np.asarray, problem.gradient(params))["weights"]
    eta, decay = 0.1, 0.3
    after_w, after_u = (
        (1 - eta * decay) * p - eta * g for p, g in zip((w, u), gradient, strict=True)
    )
    predicted = matrix_charge_step(u, w, gradient[1], gradient[0], eta, decay)
    np.testing.assert_allclose(after_u.T @ after_u - after_w @ after_w.T, predicted, atol=1e-12)


def test_law_of_balance_in_numbers():
    residual = 1.5 * INPUTS @ THETA[1:] - TARGETS
    noise_matrices = product_noise((2 * residual[:, None] * INPUTS)[:, :, None])
    np.testing.assert_allclose(noise_matrices.incoming, [[1.65359375]], rtol=1e-9)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(noise_matrices.outgoing), [0.110289, 1.543305], atol=5e-7
    )
    np.testing.assert_allclose(noise_matrices.ratio_bracket(), [0.066696, 0.933304], atol=5e-7)
    generator = rescaling_generator(3, [0], [1, 2])
    gradients = 2 * residual[:, None] * np.column_stack([INPUTS @ THETA[1:], 1.5 * INPUTS])
    sigma = np.cov(gradients.T, bias=True)
    traces = noise_balance_gap(sigma, generator)
    np.testing.assert_allclose([traces.positive, traces.negative], [0.58496875, 3.7205859375])
    np.testing.assert_allclose(balance_rate(THETA, sigma, generator, 1.0), -3.1356171875)
    # The traces are wᵀC2w and uᵀC1u.
    np.testing.assert_allclose(THETA[1:] @ noise_matrices.outgoing @ THETA[1:], traces.positive)


def test_balance_rate_of_a_scalar_pair():
    # dq/dt = −(T Var[dℓ/d(uw)] + 2λ) q, and Var = 4 g(f).
    sigma = np.cov(pair_gradients(PAIR).T, bias=True)
    g = DataMoments.of_data(X, Y).noise(0.48)
    rate = balance_rate(PAIR, sigma, SWAP, 0.05, 0.2)
    np.testing.assert_allclose(rate, -(0.05 * 4 * g + 0.4) * 1.28, rtol=1e-12)


@pytest.mark.slow
def test_imbalance_decays_in_sgd_and_not_in_gradient_descent():
    # Each step multiplies q by 1 − η²G², so E ln q falls by −E ln(1 − η²G²) a step, about η² 4g(f*)
    # at the minimum f* = b2/b1; 256 runs of 3000 steps give the slope to better than 2 %.
    problem = diagonal_linear_network(X, Y)
    eta, moments = 0.05, DataMoments.of_data(X, Y)
    slopes = {}
    for name, kind in (("sgd", noise.Minibatch(1)), ("gd", noise.NoNoise())):
        run = simulate(
            problem,
            SGD(eta, kind),
            steps=3200,
            replicas=256,
            seed=2,
            start=np.array([[1.2, 0.5]]),
            observe={
                "charge": lambda p: p[0, 0] ** 2 - p[0, 1] ** 2,
                "slope": lambda p: p[0, 0] * p[0, 1],
            },
            observe_at=100,
            progress=False,
        )
        q = np.log(np.abs(run["observables"]["charge"].values))
        f = run["observables"]["slope"].values[:, 2:]
        slopes[name] = (q[:, -1] - q[:, 1]).mean() / 3000
        if name == "sgd":
            gradient = 2 * (f[..., None] * X - Y) * X
            expected = np.mean(np.log1p(-((eta * gradient) ** 2)))
            error = (q[:, -1] - q[:, 1]).std() / 3000 / 16
            np.testing.assert_allclose(slopes[name], expected, rtol=0.02, atol=4 * error)
            assert error < 0.02 * abs(expected)
            assert abs(expected) > 4 * eta**2 * moments.noise(moments.b2 / moments.b1)
    assert abs(slopes["gd"]) < 1e-3 * abs(slopes["sgd"])


def test_scale_invariant_norm():
    # |θ|⁴ = |θ₀|⁴ + 2η²nV and |θ|⁴ = ηV/(λ(2 − ηλ)).
    np.testing.assert_allclose(scale_invariant_norm(9, 0.1, 1e4, 1) ** 2, 42.438, atol=5e-4)
    np.testing.assert_allclose(
        scale_invariant_equilibrium_norm(9, 0.05, 0.04) ** 2, 2.37289, atol=5e-6
    )


def test_refusals():
    with pytest.raises(ValueError, match="disjoint"):
        rescaling_generator(3, [0, 1], [1, 2])
    with pytest.raises(ValueError, match="generator must have shape"):
        charge(np.ones(3), SWAP)
