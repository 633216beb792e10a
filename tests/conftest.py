"""Shapes and dtypes of every annotated call are checked while tests run."""

import jaxtyping
import pytest

import tests.typechecker  # the hook looks it up by name, so it must be imported before

jaxtyping.install_import_hook("statsgd", f"{tests.typechecker.__name__}.check")


@pytest.fixture
def unchecked():
    """Run as users do, without the run-time type checker: for tests of the library's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_configure(config):
    # Short runs have rarely mixed. By its message: the class would import statsgd too soon.
    config.addinivalue_line("filterwarnings", "ignore:the chains have not mixed")
