"""Shapes and dtypes of every annotated call are checked while tests run."""

from pathlib import Path

import jax
import jaxtyping
import pytest

import tests.typechecker  # the hook looks it up by name, so it must be imported before

jaxtyping.install_import_hook("statsgd", f"{tests.typechecker.__name__}.check")


#: Memory mappings at which compiled programs are let go. A program takes two or three of them, and
#: Linux kills a process that asks for more than 65 530.
MOST_MAPPINGS = 25_000


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_text().count("\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def unchecked():
    """Run as users do, without the run-time type checker: for tests of the library's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_configure(config):
    # Short runs have rarely mixed. By its message: the class would import statsgd too soon.
    config.addinivalue_line("filterwarnings", "ignore:the chains have not mixed")
