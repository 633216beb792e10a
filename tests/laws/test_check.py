"""The battery names planted faults, and passes a right law that somebody wrote elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from statsgd import laws
from statsgd.laws import GaussianLaw, ImproperLawError, Law


class Exponential(Law):
    """A law that is not registered, with a bounded support and moments of its own."""

    rate: float = 2.0

    @property
    def dimension(self):
        return 1

    def require_proper(self):
        if not self.rate > 0:
            raise ImproperLawError(f"rate must be positive, got {self.rate}")

    def model(self, obs=None):
        self.require_proper()
        law = dist.Exponential(self.rate).expand([1]).to_event(1)
        if obs is None:
            numpyro.sample("params", law)
            return
        with numpyro.plate("replica", obs.shape[0]):
            numpyro.sample("params", law, obs=obs)

    def _log_density(self, params):
        x = params[0]
        return jnp.where(x >= 0, jnp.log(self.rate) - self.rate * x, -jnp.inf)

    def _mean(self, variable):
        return np.array([1 / self.rate])

    def _covariance(self, variable, other):
        return np.array([[1 / self.rate**2]])

    def _cdf(self, params):
        return -np.expm1(-self.rate * np.maximum(params, 0))

    @classmethod
    def improper_examples(cls):
        return (cls(-1.0),)


class WrongNormaliser(GaussianLaw):
    def _log_density(self, params):
        return super()._log_density(params) + np.log(1.02)


class WrongCovariance(GaussianLaw):
    def _covariance(self, variable, other):
        return 1.05 * super()._covariance(variable, other)


class ReversedScore(GaussianLaw):
    def score(self, params):
        return -super().score(params)


class OtherTemperature(GaussianLaw):
    def _draw(self, key, number):
        draws = super()._draw(key, number)["params"]
        return {"params": self.location + np.sqrt(1.08) * (draws - self.location)}


class OnePointOnly(GaussianLaw):
    """Sums over all axes: one number for a batch of points."""

    def log_density(self, params, momentum_buffer=None):
        return -jnp.sum((params - self.location) ** 2) / 2


class WrongDistribution(GaussianLaw):
    def _cdf(self, params):
        return super()._cdf(params + 0.05)


class WrongModel(GaussianLaw):
    def model(self, obs=None):
        super().model(obs)
        if obs is not None:
            numpyro.factor("too_much", jnp.sum(0.1 * obs**2))


class AcceptsAnything(GaussianLaw):
    def mean(self, variable="params"):
        return self.location


@pytest.mark.parametrize(
    "law",
    [
        Exponential(),
        pytest.param(GaussianLaw([0.5], [[2.0]]), marks=pytest.mark.slow),
        GaussianLaw(np.zeros(3), np.eye(3)),
    ],
)
def test_a_right_law_passes(law):
    found = laws.check(law)
    assert found.passed, str(found)
    held = found.to_dataframe().set_index("test")["passed"]
    assert held[["density of draws", "moments of draws"]].all()


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (WrongNormaliser, {"normalisation", "model"}),
        (WrongCovariance, {"moments of draws"}),
        (ReversedScore, {"score"}),
        (OtherTemperature, {"density of draws", "moments of draws", "cdf of draws"}),
        (WrongDistribution, {"cdf of draws", "quantiles"}),
        (WrongModel, {"model"}),
        (AcceptsAnything, {"refusals"}),
    ],
)
def test_a_planted_fault_is_named(kind, named):
    found = laws.check(kind([0.5, -1.0], [[1.0, 0.3], [0.3, 0.5]]))
    assert not found.passed
    # The model's density is looked at to 1e-3 of its size.
    assert set(found.failures) | {"model"} == named | {"model"}, str(found)


def test_words_say_what_fails(unchecked):
    reversed_score = laws.check(ReversedScore([0.5], [[1.0]]))
    assert "sign is reversed" in reversed_score.failures["score"]
    wrong = laws.check(WrongNormaliser([0.5], [[1.0]]))
    assert "integrates to 1.02" in wrong.failures["normalisation"]
    assert "normalisation FAILS" in str(wrong)
    one = laws.check(OnePointOnly([0.5], [[1.0]]))
    assert "has shape ()" in one.failures["batches"]


def test_what_does_not_apply_says_why():
    singular = laws.check(GaussianLaw(np.zeros(2), np.diag([1.0, 0.0])))
    assert singular.passed, str(singular)
    words = singular.to_dataframe().set_index("test")["words"]
    assert "positive definite" in words["score"]


def test_refusals(unchecked):
    with pytest.raises(ValueError, match="law must be a Law"):
        laws.check(GaussianLaw)
    with pytest.raises(ImproperLawError, match="rate must be positive"):
        laws.check(Exponential(-1.0))
    with pytest.raises(ValueError, match="draws"):
        laws.check(Exponential(), draws=10)
    assert jax.config.jax_enable_x64 is False
