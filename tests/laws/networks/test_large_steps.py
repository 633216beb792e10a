"""Large steps in a diagonal network: the exact identity, and the published experiment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, problems, simulate
from statsgd.dynamics.diffusion import Diffusion
from statsgd.laws.networks import DiagonalNetLargeStep
from statsgd.precision import in_double_precision

STEPS = 10_001


@pytest.fixture(scope="module")
def data():
    """The published data: twenty examples, thirty coordinates, three of them with signal."""
    rng = np.random.RandomState(0)
    inputs = rng.multivariate_normal(np.zeros(30), np.eye(30), 20)
    fresh = rng.multivariate_normal(np.zeros(30), np.eye(30), 1000)
    truth = rng.randn(30)
    truth[3:] = 0
    truth = np.abs(truth) / np.linalg.norm(truth)
    np.testing.assert_allclose(inputs[0, :3], [1.76405, 0.40016, 0.97874], atol=5e-6)
    np.testing.assert_allclose(truth[:3], [0.865734, 0.157997, 0.474913], atol=5e-7)
    return inputs, inputs @ truth, fresh, fresh @ truth


def train(problem, rates, chosen):
    """Endpoints in double precision; `chosen` are the examples used, None for all of them."""
    inputs, targets = problem.examples

    def run(_):
        def step(params, now):
            rate, example = now
            x, y = (jnp.asarray(inputs), jnp.asarray(targets))
            if chosen is not None:
                x, y = x[example][None], y[example][None]
            r = x @ (params["u"] * params["v"]) - y
            pull = r @ x / len(y)
            moved = {
                "u": params["u"] - rate * pull * params["v"],
                "v": params["v"] - rate * pull * params["u"],
            }
            return moved, None

        start = {"u": jnp.full(30, 0.1), "v": jnp.zeros(30)}
        index = jnp.zeros(STEPS, int) if chosen is None else jnp.asarray(chosen)
        return jax.lax.scan(step, start, (jnp.asarray(rates), index))[0]

    return in_double_precision(run, np.zeros(1))


def test_published_experiment(data):
    # Train and test loss, coefficients above 1e-3, and the largest charge.
    inputs, targets, fresh, truth = data
    problem = problems.hadamard_regression(inputs, targets)
    rng = np.random.RandomState(2)
    chosen = np.array([rng.randint(20) for _ in range(STEPS)])
    decayed = np.where(np.arange(STEPS) > 5000, 0.2, 0.6)
    runs = (
        (np.full(STEPS, 0.03), None, 4.902e-6, 1.4910e-2, 29, 1.0e-2),
        (np.full(STEPS, 0.05), chosen, 1.656e-6, 1.1854e-2, 30, 9.4e-3),
        (decayed, chosen, 3.873e-8, 3.9821e-8, 3, 3.3e-8),
    )
    for rates, examples, train_loss, test_loss, count, charge in runs:
        end = {name: np.asarray(leaf) for name, leaf in train(problem, rates, examples).items()}
        beta = problem.coefficients(end)
        found = 0.5 * np.mean((inputs @ beta - targets) ** 2)
        tested = 0.5 * np.mean((fresh @ beta - truth) ** 2)
        assert found == pytest.approx(train_loss, rel=4e-4)
        assert tested == pytest.approx(test_loss, rel=1e-4)
        assert np.sum(np.abs(beta) > 1e-3) == count
        assert np.abs(DiagonalNetLargeStep.charges(end)).max() == pytest.approx(charge, rel=0.02)


def test_identity_of_one_step(data):
    inputs, targets, *_ = data
    problem = problems.hadamard_regression(inputs, targets)
    rng = np.random.default_rng(0)
    params = {"u": rng.normal(size=30), "v": rng.normal(size=30)}
    law = DiagonalNetLargeStep(problem, 0.7)
    factors = law.charge_factor(params)
    r = law.residuals(params)
    for i in (0, 7):
        pull = 0.7 * r[i] * inputs[i]
        after = {
            "u": params["u"] - pull * params["v"],
            "v": params["v"] - pull * params["u"],
        }
        np.testing.assert_allclose(
            law.charges(after), law.charges(params) * factors[i], rtol=1e-9, atol=1e-12
        )


def test_rate_at_which_a_coordinate_without_signal_shrinks():
    inputs = np.random.default_rng(1).normal(size=(400, 2))
    problem = problems.hadamard_regression(inputs, np.zeros(400))
    small = DiagonalNetLargeStep(problem, 0.02).shrink_rate(0.5)
    # −½η²E[r²x²] for small steps, r² = 2ℒ.
    np.testing.assert_allclose(small, -0.5 * 0.02**2 * np.mean(inputs**2, axis=0), rtol=2e-3)
    # By simulation of the multiplicative walk: signs of r are even.
    rng = np.random.default_rng(2)
    large = DiagonalNetLargeStep(problem, 0.5)
    pulls = 0.5 * rng.choice([-1, 1], (200_000, 1)) * inputs[rng.integers(0, 400, 200_000)]
    logs = np.log(np.abs(1 - pulls))
    error = logs.std(0) / np.sqrt(len(logs))
    assert (np.abs(logs.mean(0) - large.shrink_rate(0.5)) < 4 * error).all()


@pytest.mark.slow
def test_diffusion_has_the_noise_of_sgd_at_that_level():
    # Residuals ±√(2ℒ): the covariance of one step, η²Cov, is that of the SDE over a time η.
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(40, 2))
    params = {"u": np.array([0.7, -0.2]), "v": np.array([0.3, 0.5])}
    level, rate = 0.5, 0.1
    targets = inputs @ (params["u"] * params["v"]) - rng.choice([-1.0, 1.0], 40)
    problem = problems.hadamard_regression(inputs, targets)
    limit = DiagonalNetLargeStep(problem, rate).diffusion(level)
    assert isinstance(limit, Diffusion)
    root = np.asarray(limit.root(jax.tree.map(jnp.asarray, params)))
    second = np.zeros((4, 4))
    for x, r in zip(inputs, DiagonalNetLargeStep(problem, rate).residuals(params), strict=True):
        gradient = r * np.concatenate([x * params["v"], x * params["u"]])
        second += np.outer(gradient, gradient) / 40
    np.testing.assert_allclose(root @ root.T, rate * second, rtol=1e-5)
    run = simulate(problem, limit, steps=20, replicas=8, seed=0, progress=False)
    assert not run["run"].diverged.any()


@pytest.mark.slow
def test_large_steps_are_sparser(data):
    """Single-example SGD in the library: in every run charges fall faster with a larger η."""
    inputs, targets, *_ = data
    problem = problems.hadamard_regression(inputs, targets)
    largest = {}
    for rate in (0.05, 0.3):
        ends = simulate(
            problem, SGD(rate, noise.Minibatch(1)), steps=4000, replicas=16, seed=1, progress=False
        )
        good = ~ends["run"].diverged.values
        assert good.all()
        charges = DiagonalNetLargeStep.charges(
            {name: ends["endpoints"][name].values for name in ("u", "v")}
        )
        largest[rate] = np.abs(charges).max(1)
    assert largest[0.3].max() < 0.8 * largest[0.05].min()


def test_refusals():
    with pytest.raises(ValueError, match="common, non-empty leading axis"):
        problems.hadamard_regression(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match="u and v of shape"):
        problems.hadamard_regression(np.ones((3, 2)), np.ones(3), np.ones(2))
    problem = problems.hadamard_regression(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match="loss_level"):
        DiagonalNetLargeStep(problem, 0.1).diffusion(-1.0)
