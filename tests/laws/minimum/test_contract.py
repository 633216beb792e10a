"""Laws near a minimum over batches of points, and what improper arguments leave in them."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

from statsgd.laws import LAWS, EpochNoiseGaussian, HeavyBallGaussian
from studies.compilations import compilations
from tests.laws.examples import examples

FAMILY = {
    name: law
    for name, law in LAWS.items()
    if law.__module__.startswith(("statsgd.laws.minimum.", "statsgd.laws.bases.gaussian"))
}


def near(law, *lead):
    width = np.sqrt(np.diagonal(law.covariance()))
    noise = np.random.default_rng(0).normal(size=(*lead, law.dimension))
    return law.mean() + width * noise


@pytest.mark.parametrize("name", FAMILY)
def test_pairs_with_the_buffer_are_batches_too(name):
    pairs = [law for law in examples(name) if len(law.variables) == 2]
    if not pairs:
        pytest.skip("no example of the law is one of the pair")
    for law in pairs:
        buffer = 0.1 * near(law, 2, 3)
        values = law.log_density(near(law, 2, 3), buffer)
        assert values.shape == (2, 3)
        one = law.log_density(near(law, 2, 3)[1, 2], buffer[1, 2])
        np.testing.assert_allclose(one, values[1, 2], rtol=1e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_improper_laws_hold_nan(name):
    improper = FAMILY[name].improper_examples()
    if not improper:
        pytest.skip("every instance of the law is proper")
    for law in improper:
        computed = law.joint if hasattr(law, "joint") else law.scale @ np.ones(law.dimension)
        assert np.all(np.isnan(computed))


def test_a_random_phase_mixes_the_phases():
    law = EpochNoiseGaussian([[0.2]], [[1.0]], 0.1, 20, 0.5, phase="random")
    spread = np.sqrt(law.phase_covariances[:, 0, 0])
    x = np.array([[-0.4], [0.1], [1.0]])
    np.testing.assert_allclose(law.cdf(x), norm.cdf(x / spread).mean(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(
        np.exp(law.log_density(x)), norm.pdf(x, scale=spread).mean(1), rtol=1e-12
    )
    # The hundredth part lies further out than that of the normal law with the same variance.
    assert law.quantile(0.99)[0] > 1.02 * norm.ppf(0.99, scale=law.covariance()[0, 0] ** 0.5)


def test_other_arguments_compile_nothing_new():
    def use(rate, key):
        law = HeavyBallGaussian(np.diag([2.0, 0.5]), np.eye(2), rate, 0.5)
        law.log_density(np.zeros((5, 2)))
        law.score(np.zeros(2))
        law.quantile(np.array([0.1, 0.5]))
        return law.draw(key, (3,))

    use(0.1, jax.random.key(0))
    with compilations() as number:
        use(0.2, jax.random.key(1))
    assert number() == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_what_modes_keep_is_what_a_displacement_keeps(momentum):
    # Long after, a displacement falls by the spectral radius of (θ, m) → (θ − ηm', m') per step.
    law = HeavyBallGaussian(np.diag([2.0, 0.05]), np.eye(2), 0.3, momentum)
    for mode, curvature in enumerate(law.modes().curvatures):
        step = np.array([[1 - 0.3 * curvature, -0.3 * momentum], [curvature, momentum]])
        radius = np.max(np.abs(np.linalg.eigvals(step)))
        np.testing.assert_allclose(law.kept(7)[mode], radius**7, rtol=1e-6)
    # At the rate of the run, not of the law.
    np.testing.assert_allclose(law.kept(100, 0.1, 0.0)[0], (1 - 0.1 * 0.05) ** 100, rtol=1e-6)
