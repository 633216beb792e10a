"""What drivers ask of every kernel: chain methods, pickling, resuming, one compilation."""

import pickle
import subprocess
import sys

import arviz
import jax
import numpy as np
import pytest
from numpyro.infer import MCMC

from statsgd import sample
from statsgd.kernels import chains
from statsgd.running import chunks
from tests.kernels.settings import build
from tests.kernels.test_battery import RUN, every_kernel, run, skewed

SHORT = {"num_warmup": 5, "num_samples": 30, "num_chains": 2}
#: At a fixed step: adaptation would turn a last digit into another path.
FIXED = {"step_size": 0.1, "adapt_step_size": False}


@pytest.mark.filterwarnings("ignore:There are not enough devices", "ignore:Some donated buffers")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["BAOAB"])
def test_chain_methods_give_the_same_draws(name):
    reference = run(build(name, skewed, **FIXED), **SHORT).get_samples()["x"]
    for method in ("sequential", jax.vmap):
        draws = run(build(name, skewed, **FIXED), **SHORT, chain_method=method).get_samples()["x"]
        np.testing.assert_allclose(draws, reference, rtol=1e-4, atol=1e-5)


PARALLEL = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, numpy as np
from tests.kernels.settings import SETTINGS, build
from tests.kernels.test_battery import run, skewed
from tests.kernels.test_contract import FIXED, SHORT
assert jax.local_device_count() == 2
for name in SETTINGS:
    a, b = (
        run(build(name, skewed, **FIXED), **SHORT, chain_method=method).get_samples()["x"]
        for method in ("parallel", "vectorized")
    )
    assert len(a.devices()) == 2, name
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)
"""


@pytest.mark.slow
def test_chains_on_two_devices_give_the_same_draws():
    done = subprocess.run([sys.executable, "-c", PARALLEL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MALA", "OBABO"])
def test_pickled_and_resumed_run_goes_on_bitwise(name):
    mcmc = run(build(name, skewed), num_warmup=20, num_samples=20)
    mcmc.post_warmup_state = mcmc.last_state
    state, kernel = mcmc.last_state, pickle.loads(pickle.dumps(mcmc.sampler))
    mcmc.run(state.rng_key)
    again = MCMC(kernel, chain_method="vectorized", **(RUN | {"num_samples": 20}))
    again.post_warmup_state = state
    again.run(state.rng_key)
    np.testing.assert_array_equal(mcmc.get_samples()["x"], again.get_samples()["x"])
    # ArviZ reads the run.
    stats = arviz.from_numpyro(mcmc)["sample_stats"]
    assert stats["diverging"].shape == (4, 20)


#: One entry each time that the model is read. A global: what a model closes over is part of it.
TRACED: list[None] = []


def counted():
    TRACED.append(None)
    skewed()


@every_kernel("OBABO")
def test_one_compilation_serves_other_numbers_pickles_and_resumed_runs(name, tmp_path, monkeypatch):
    def go(kernel, seed=0, store=None):
        settings = {"warmup": 10, "draws": 40, "chains": 2, "progress": False, "diagnose": False}
        return sample(counted, kernel, seed=seed, store=store, **settings)["posterior"].to_dataset()

    kernel = build(name, **FIXED)
    TRACED.clear()
    draws = go(kernel)
    once = len(TRACED)
    assert go(pickle.loads(pickle.dumps(kernel))).identical(draws)
    other = go(build(name, **(FIXED | {"step_size": 0.03, "temperature": 2.0})), seed=1)
    assert not np.any(np.isclose(other["x"], draws["x"]))
    assert len(TRACED) == once
    # Cut off by Ctrl-C between chunks, here of one step each after the first.
    advance, calls = chains.advance, []

    def cut(*arguments, **options):
        calls.append(1)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return advance(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(chains, "advance", cut)
        patch.setattr(chunks, "_SECONDS_PER_CHUNK", 0.0)
        patch.setattr(chunks, "_FIRST_CHUNK", 1)
        with pytest.raises(KeyboardInterrupt):
            go(kernel, store=tmp_path / "draws")
    assert len(calls) == 25
    once = len(TRACED)
    assert go(kernel, store=tmp_path / "draws").load().equals(draws)
    assert len(TRACED) == once
