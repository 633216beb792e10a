"""Shapes and dtypes of every annotated call are checked while tests run."""

from jaxtyping import install_import_hook

import tests.typechecker  # the hook looks it up by name, so it must be imported before

install_import_hook("statsgd", f"{tests.typechecker.__name__}.check")
