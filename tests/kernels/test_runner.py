"""The runner: exact draws, kernels, one compilation, and ArviZ's schema."""

import arviz
import numpy as np
import pytest

from statsgd import sample
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian, ImproperLawError, KinkedWellsGibbs
from tests.kernels.test_battery import assert_mean
from tests.laws.examples import example

LAW = example("HeavyBallGaussian", 1)


def test_exact_draws_come_without_a_kernel():
    tree = sample(LAW, seed=0, draws=5000, chains=2)
    assert set(tree.children) == {"posterior"}
    draws = tree["posterior"]["params"].values.reshape(-1, 2)
    error = np.sqrt(np.diagonal(LAW.covariance()) / len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - LAW.mean()) < 4 * error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["HeavyBallGaussian", "PhaseSpaceGaussian", "FlooredLossScaledLaw", "ValleyEntropyLaw"]
)
def test_mala_draws_from_laws_of_every_make(name):
    # Generative models, a Student-t, and a law known by its potential on an interval.
    law = example(name)
    tree = sample(law, MALA(), seed=1, warmup=1000, draws=4000, chains=4, progress=False)
    draws = tree["posterior"]["params"].values
    mean, covariance = np.asarray(law.mean()), np.asarray(law.covariance())
    for i in range(law.dimension):
        assert_mean(draws[..., i], mean[i])
        assert_mean((draws[..., i] - mean[i]) ** 2, covariance[i, i])


@pytest.mark.slow
def test_chains_run_on_the_density_of_a_law_whose_model_chooses_a_well():
    # Its model has a Bernoulli site, which no Langevin kernel moves.
    law = KinkedWellsGibbs(0.5)
    tree = sample(
        law, MALA(), seed=0, warmup=300, draws=500, chains=256, progress=False, diagnose=False
    )
    flat = (tree["posterior"]["params"].values < law.loss.split()).mean(axis=(1, 2))
    assert abs(flat.mean() - law.flat_probability()) < 4 * flat.std(ddof=1) / np.sqrt(256)


def test_schema_is_the_one_arviz_reads():
    tree = sample(LAW, MALA(), seed=0, warmup=300, draws=700, chains=3, progress=False)
    assert tree["posterior"]["params"].dims == ("chain", "draw", "params_dim_0")
    assert tree["posterior"].sizes["draw"] == 700
    for name in ("lp", "acceptance_rate", "step_size", "diverging"):
        assert tree["sample_stats"][name].dims == ("chain", "draw")
    assert float(arviz.rhat(tree["posterior"].to_dataset())["params"].max()) < 1.05
    assert len(arviz.summary(tree, var_names=["params"])) == 2


def test_same_arguments_same_draws_whatever_came_before():
    first = sample(LAW, MALA(step_size=0.3), seed=4, draws=50, warmup=10, progress=False)
    sample(LAW, MALA(step_size=0.9), seed=5, draws=300, warmup=0, progress=False)
    again = sample(LAW, MALA(step_size=0.3), seed=4, draws=50, warmup=10, progress=False)
    np.testing.assert_array_equal(first["posterior"]["params"], again["posterior"]["params"])


def test_one_compilation_for_other_numbers(monkeypatch):
    traced = []
    original = HeavyBallGaussian.model

    def counted(self, obs=None):
        traced.append(1)
        return original(self, obs)

    monkeypatch.setattr(HeavyBallGaussian, "model", counted)

    def go(rate, step, seed):
        law = HeavyBallGaussian([[2.0]], [[0.3]], rate, 0.5)
        sample(law, MALA(step_size=step), seed=seed, draws=20, warmup=10, progress=False)

    go(0.5, 0.1, 0)
    first = len(traced)
    go(0.3, 0.7, 1)
    go(0.1, 0.2, 2)
    assert len(traced) == first


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ImproperLawError):
        sample(HeavyBallGaussian.improper_examples()[0], seed=0)
    for changes, message in (
        ({"draws": 0}, "draws must be at least 1"),
        ({"chains": 0}, "chains must be at least 1"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"seed": 1.5}, "seed must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(LAW, **({"seed": 0} | changes))
