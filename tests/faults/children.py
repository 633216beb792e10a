"""Victims in processes of their own, forked from one that has imported everything."""

import hashlib
import multiprocessing
import traceback
from pathlib import Path
from typing import Any

from tests.faults.tally import bits, is_own
from tests.faults.victims import VICTIMS, write_often

PATIENCE = 300.0  # seconds for a run that is let be


def start(name: str, store: Path, programs: Path, said: Path) -> Any:
    """A process that runs the victim `name`, and says in the file `said` what became of it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.victims"])
    process = context.Process(target=_perform, args=(name, store, programs, said))
    process.start()
    return process


def _perform(name: str, store: Path, programs: Path, said: Path) -> None:
    import jax

    # What others compiled is not compiled again.
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    write_often()
    try:
        outcome = digest(VICTIMS[name](store, long=True))
    except Exception as error:
        outcome = f"named: {error}" if is_own(error) else traceback.format_exc()
    said.write_text(outcome)


def digest(tree: Any) -> str:
    """The same for trees of equal bits."""
    return hashlib.sha256(repr(sorted(bits(tree).items())).encode()).hexdigest()
