"""Shapes and dtypes of every annotated call are checked while tests run."""

import gc
import os
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

import tests.typechecker  # the hook looks it up by name, so it must be imported before
from studies.compiled import in_one_piece

in_one_piece()

# Made-up cases are the same in every run, and take what time the machine needs.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

# Not installed where it is off: to prepare checks that are not made takes most of their time.
if not jaxtyping.config.jaxtyping_disable:
    tests.typechecker.leave_inner_functions()
    jaxtyping.install_import_hook("statsgd", f"{tests.typechecker.__name__}.check")


#: Memory mappings at which compiled programs are let go. A program takes two or three of them, and
#: Linux kills a process that asks for more than 65 530.
MOST_MAPPINGS = 45_000


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_text().count("\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def unchecked():
    """Run as users do, without the run-time type checker: for tests of the library's own errors."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


#: Compiled programs of .1 s and more are kept beside pytest's own cache, for the other worker, for
#: processes that tests start, and for the next run. By variables, which these processes inherit.
KEPT_PROGRAMS = {
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def pytest_configure(config):
    # Traced programs are many small objects that live long: looked through as often as Python does
    # by itself, they cost an eighth of the time of these tests.
    gc.set_threshold(100_000, 20, 50)
    # Short runs have rarely mixed. By its message: the class would import statsgd too soon.
    config.addinivalue_line("filterwarnings", "ignore:the chains have not mixed")
    # Two workers keep programs in one folder, and JAX writes into the file itself. One may read
    # what the other has not written whole: the program is compiled then. That both write is no
    # error on POSIX; where one file keeps the other from it (Windows), or the folder was cleared
    # meanwhile, the program is not kept.
    for what in ("reading", "writing"):
        ignored = f"ignore:Error {what} persistent compilation cache"
        config.addinivalue_line("filterwarnings", ignored)
    if not hasattr(config, "cache"):  # pytest -p no:cacheprovider
        return
    folder = config.cache.mkdir("programs")
    for name, value in {"jax_compilation_cache_dir": str(folder), **KEPT_PROGRAMS}.items():
        if name.upper() not in os.environ:
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)
