"""What warm-up learns, and kernels inside NumPyro's Gibbs."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, CustomGibbs, Gibbs

from statsgd.kernels import MALA, OBABO, Preconditioner
from statsgd.kernels.preconditioner import as_preconditioner
from tests.kernels.test_battery import assert_mean

SCALES = np.array([1.0, 0.1, 0.01, 0.03])


def anisotropic(rotation):
    """A Gaussian of condition number 10⁴ in rotated axes."""
    root = rotation / SCALES
    return root @ root.T, lambda z: jnp.sum((jnp.asarray(root.T, jnp.float32) @ z["x"]) ** 2) / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shape"),
    [(MALA, "diagonal"), (MALA, "dense"), (OBABO, "dense"), (OBABO, "diagonal")],
)
def test_adapted_kernel_mixes_at_condition_number_ten_thousand(kind, shape):
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0] if shape == "dense" else np.eye(4)
    precision, potential = anisotropic(rotation)
    kernel = kind(potential_fn=potential, adapt_preconditioner=shape, temperature=2.0)
    mcmc = MCMC(
        kernel, num_warmup=2000, num_samples=2500, num_chains=8, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(
        jax.random.key(0),
        init_params={"x": jnp.asarray(random.normal(size=(8, 4)), jnp.float32)},
        extra_fields=("accept_prob", "step_size", "diverging", "adaptation.preconditioner"),
    )
    fields = mcmc.get_extra_fields(group_by_chain=True)
    # The average over the last window scatters by about 0.05 around what was aimed at.
    assert abs(fields["accept_prob"].mean() - kind.optimal_acceptance) < 0.15
    assert np.all(fields["step_size"] == fields["step_size"][:, :1])
    covariance = np.linalg.inv(precision)
    # P is the covariance at temperature one.
    root = np.asarray(fields["adaptation.preconditioner"].root[:, -1], float)
    for chain in root:
        learnt = chain @ chain.T if shape == "dense" else np.diag(chain**2)
        ratio = np.linalg.eigvals(np.linalg.solve(covariance, learnt)).real
        assert np.all((ratio > 0.2) & (ratio < 5))
    white = np.asarray(mcmc.get_samples()["x"], float) @ (rotation / SCALES)
    for i in range(4):
        assert_mean(white[:, i], 0.0, chains=8)
        assert_mean(white[:, i] ** 2, 2.0, chains=8)


@pytest.mark.slow
def test_given_preconditioner_makes_scales_equal():
    # With P the covariance itself the chain is that of a standard normal: same acceptance.
    precision, potential = anisotropic(np.eye(4))
    means = []
    for target, matrix in ((potential, np.linalg.inv(precision)), (standard, np.eye(4))):
        kernel = MALA(
            potential_fn=target, preconditioner=matrix, step_size=0.8, adapt_step_size=False
        )
        mcmc = MCMC(
            kernel, num_warmup=0, num_samples=300, num_chains=4, chain_method="vectorized",
            progress_bar=False,
        )  # fmt: skip
        start = {"x": jnp.ones((4, 4)) * (SCALES if target is potential else 1.0)}
        mcmc.run(jax.random.key(1), init_params=start, extra_fields=("accept_prob",))
        means.append(np.asarray(mcmc.get_extra_fields()["accept_prob"]).mean())
    assert abs(means[0] - means[1]) < 1e-3


def standard(z):
    return jnp.sum(z["x"] ** 2) / 2


@pytest.mark.parametrize("shape", [(), (3,), (3, 3)])
def test_preconditioner_algebra(shape):
    random = np.random.default_rng(1)
    value = random.uniform(0.5, 2.0, shape)
    if len(shape) == 2:
        value = value @ value.T + np.eye(3)
    p = as_preconditioner("preconditioner", value)
    matrix = value * np.eye(3) if len(shape) < 2 else value
    x = {"a": jnp.array([0.3]), "b": jnp.array([-1.0, 2.0])}
    flat = np.array([0.3, -1.0, 2.0])

    def vector(tree):
        return np.concatenate([tree["a"], tree["b"]])

    np.testing.assert_allclose(vector(p(x)), matrix @ flat, rtol=1e-5)
    np.testing.assert_allclose(vector(p.whiten(p.push(x))), flat, rtol=1e-5)
    assert as_preconditioner("preconditioner", p) is p
    assert isinstance(p, Preconditioner)


def normals():
    """x and y of correlation .8 and unit variances."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("y", dist.Normal(0.8 * x, 0.6))
    numpyro.deterministic("twice", 2 * rate)


def draw_y(rng_key, gibbs_sites, hmc_sites):
    return {"y": 0.8 * hmc_sites["x"] + 0.6 * jax.random.normal(rng_key)}


@pytest.mark.slow
def test_kernels_are_blocks_of_gibbs():
    # y exactly from its conditional, x by MALA and the constrained rate by OBABO.
    kernel = Gibbs(
        [(CustomGibbs(draw_y), ["y"]), (MALA(normals), ["x"]), (OBABO(normals), ["rate"])]
    )
    mcmc = MCMC(
        kernel, num_warmup=500, num_samples=4000, num_chains=4, chain_method=jax.vmap,
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0))
    draws = mcmc.get_samples()
    assert_mean(draws["x"], 0.0)
    assert_mean(draws["x"] * draws["y"], 0.8)
    assert_mean(draws["y"] ** 2, 1.0)
    assert_mean(draws["rate"], 1.5)
    assert_mean(draws["rate"] ** 2, 3.0)
    np.testing.assert_allclose(draws["twice"], 2 * draws["rate"], rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named():
    for options, message in (
        ({"preconditioner": -1.0}, "preconditioner must be positive"),
        ({"preconditioner": [[1.0, 2.0], [2.0, 1.0]]}, "preconditioner must be positive definite"),
        ({"preconditioner": np.ones((1, 1, 1))}, "preconditioner must have 0, 1 or 2 axes"),
        ({"adapt_preconditioner": "full"}, "adapt_preconditioner must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            MALA(**options)
