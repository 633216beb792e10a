"""Importing statsgd is light and leaves the user's process as it was."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Every room may import those before it.
ROOMS = ["problems", "running", "dynamics", "laws", "kernels", "measures", "comparison", "reports",
         "diagnosis"]  # fmt: skip

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


@pytest.mark.slow
def test_it_does_not_matter_that_arviz_came_first():
    command = [sys.executable, "-c", AFTER_ARVIZ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    files = list((Path(__file__).parents[1] / "statsgd" / room).rglob("*.py"))
    assert files
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    for file in files:
        imported = re.findall(r"^\s*(?:from|import) statsgd\.(\w+)", file.read_text(), re.MULTILINE)
        assert not later & set(imported), file


NEW_LAW = """
from statsgd.laws.law import register
from statsgd.laws.bases import GaussianLaw


@register
class NewLaw(GaussianLaw):
    pass
"""

FINDS_IT = """
import statsgd
from statsgd.laws import NewLaw
assert "NewLaw" in dir(statsgd.laws)
assert "NewLaw" in statsgd.laws.catalogue()["law"].tolist()
"""


@pytest.mark.slow
def test_a_new_law_touches_its_own_file_only(tmp_path):
    package = Path(__file__).parents[1] / "statsgd"
    shutil.copytree(package, tmp_path / "statsgd", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "statsgd" / "laws" / "minimum" / "new_law.py").write_text(NEW_LAW)
    command = [sys.executable, "-c", FINDS_IT]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


WITHOUT_EXTRAS = """
import re, sys
from pathlib import Path

EXTRAS = {extras}
sys.modules.update(dict.fromkeys(EXTRAS))  # none of them can be imported
text = Path("README.md").read_text()
code = re.search(r"<!-- example -->\\n```python\\n(.*?)```", text, re.DOTALL).group(1)
names = {{}}
exec(code.replace("40_000", "400"), names)
import statsgd
statsgd.report({{"a": names["law"], "b": names["sgd"], "c": names["ensemble"]}}, {page!r})
assert not any(map(sys.modules.get, EXTRAS))
"""


@pytest.mark.slow
def test_a_core_install_runs_the_example_of_readme(tmp_path):
    # What extras bring is not there to be imported.
    extras = {"optax", "zarr", "sklearn", "tyro", "flax", "dask", "distributed", "safetensors"}
    extras |= {"blackjax", "diffrax", "numba", "orbax", "h5netcdf", "netCDF4"}
    code = WITHOUT_EXTRAS.format(extras=sorted(extras), page=str(tmp_path / "r.html"))
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "r.html").exists()
