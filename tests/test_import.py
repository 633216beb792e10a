"""Importing statsgd is light and leaves the user's process as it was."""

import subprocess
import sys

CODE = """
import sys, os
before = dict(os.environ)
import statsgd
import jax
heavy = {"arviz", "matplotlib", "dask", "zarr", "sklearn", "tyro", "optax"} & set(sys.modules)
assert not heavy, heavy
assert not jax.config.jax_enable_x64
assert dict(os.environ) == before
assert not jax._src.xla_bridge.backends_are_initialized()
"""


def test_import_loads_nothing_heavy_and_sets_nothing():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


AFTER_ARVIZ = """
import arviz
import statsgd
law = statsgd.laws.Gibbs(statsgd.problems.quartic_wells(), 0.5)
statsgd.sample(law, statsgd.kernels.MALA(), draws=8, warmup=8, chains=2, seed=0, diagnose=False)
"""


def test_it_does_not_matter_that_arviz_came_first():
    command = [sys.executable, "-c", AFTER_ARVIZ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
